"""Keeps keys and secrets out of files and reports."""
