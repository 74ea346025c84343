"""Regression-test the inference configuration of LLM applications with pytest."""
