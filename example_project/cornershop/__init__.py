"""The assistant of a small shop: it adds up at the till, and sorts what customers write."""
