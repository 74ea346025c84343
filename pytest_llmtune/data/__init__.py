"""Dataset rows: reading, filtering, splitting."""
