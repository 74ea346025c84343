"""Redaction of keys and secrets from files and reports."""
