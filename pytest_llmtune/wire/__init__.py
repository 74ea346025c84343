"""Parsing of responses: bodies, answers, token usage."""
