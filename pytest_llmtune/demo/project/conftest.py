"""Starts a stand-in for a model on this machine. Delete this file to ask a real one."""

from pytest_llmtune import demo

demo.serve()
