"""Group normalisation with a residual and ReLU in one pass (README.md)."""
