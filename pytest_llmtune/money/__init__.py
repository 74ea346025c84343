"""Prices, and the ledger of USD spent."""
