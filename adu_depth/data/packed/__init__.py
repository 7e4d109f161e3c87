"""A data set copied into a few large files that are read by memory map: no decoding, and windows read alone."""

from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.data.packed.dataset import PackedStereo

__all__ = ["PackConfig", "PackedStereo", "run_pack"]
