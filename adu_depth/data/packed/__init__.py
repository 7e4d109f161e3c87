"""A data set copied into a few large files that are read by memory map: no decoding, and windows read alone."""

from adu_depth.data.packed.dataset import PackedStereo

__all__ = ["PackedStereo"]
