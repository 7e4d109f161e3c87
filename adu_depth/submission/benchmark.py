"""What KITTI's depth prediction benchmark asks for: from the readme of its development kit.

500 maps named 0000000000.png to 0000000499.png in the root of a zip, each a one-channel 16-bit PNG of metres × 256 at
the size of its image, 352×1216. The benchmark takes a stored 0 for "no prediction" and fills it from its neighbours.
"""

from __future__ import annotations

import re

IMAGES = 500
SIZE = (352, 1216)
"""Height and width."""
STEPS_PER_METRE = 256
NAME = re.compile(r"\d{10}\.png")


def file_names(count: int = IMAGES) -> list[str]:
    return [f"{number:010d}.png" for number in range(count)]
