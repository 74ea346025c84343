"""What one suite does in each mode."""
