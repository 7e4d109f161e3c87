"""Tensors on "cuda:0" without CUDA: shapes, dtypes and layouts as a GPU gives them, and nothing computed."""
