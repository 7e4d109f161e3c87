"""Depth for images: the predictor, the files it writes, the pictures people read."""
