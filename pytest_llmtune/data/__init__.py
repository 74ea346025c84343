"""Rows of a data set: reading, filtering, splitting."""
