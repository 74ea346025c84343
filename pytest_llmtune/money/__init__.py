"""Prices and the ledger of what was spent, in USD."""
