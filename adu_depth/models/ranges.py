"""How large the parts of a network may be: far beyond any that was trained, far below what no memory holds.

A configuration comes from whoever made the checkpoint; its numbers become shapes. `Weight` is a loss term's.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from adu_depth.schema import Range

MOST_CHANNELS = 4096
MOST_LETTERS = 4096  # as long as a path can be
MOST_PIXELS = 1_000_000  # focal lengths
MOST_PARAMETERS = 2**31
"""Of an encoder: 8 GB of fp32."""

Channels: TypeAlias = Annotated[int, Range(1, MOST_CHANNELS)]
Weight: TypeAlias = Annotated[float, Range(0, 1e15)]
Metres: TypeAlias = Annotated[float, Range(0, 1_000_000, above=True)]
