"""The steps of one suite in each mode."""
