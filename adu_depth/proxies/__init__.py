"""Proxy labels by classical matching: disparities for frames of which nobody measured the depth."""
