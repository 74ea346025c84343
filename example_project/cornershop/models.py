"""The models that the shop may use, and what they cost."""

__all__ = ["MODELS", "PRICES"]

MODELS = ["gemma-3-270m", "smollm2-135m-instruct"]

PRICES = {
    "gemma-3-270m": {"input": 0.10, "output": 0.40},
    "smollm2-135m-instruct": {"input": 0.05, "output": 0.20},
}
"""USD per 1M tokens. Made up, in proportion to the models' sizes: both run on your own machine."""
