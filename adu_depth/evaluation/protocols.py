"""Which pixels of an image a published evaluation looks at, and which metrics it reports there.

Two protocols are called "Garg" in papers: the window of the whole ground truth (BTS, offline), and the same fractions
of a ground truth that was cut to 352×1216 before (AdaBins, NeWCRFs, URCDC-Depth), which leaves out 13 far rows. Numbers
of the one must not stand beside numbers of the other, so they have two names here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from adu_depth.errors import InputError

MetricSet = Literal["papers", "kitti", "hu", "pair"]
METRIC_SETS: tuple[MetricSet, ...] = get_args(MetricSet)


@dataclass(frozen=True)
class Protocol:
    """Rows int(top·H) to int(bottom·H), columns int(left·W) to int(right·W), ends excluded.

    crop: (height, width) cut out first, the lowest rows and the middle columns; H and W are then its own.
    metrics: what is reported there: the papers' (`depth_metrics`), KITTI's own (`kitti_depth_metrics`), those of the
        light-weight student's line of work (`hu_metrics`) or, without ground truth, of a pair against itself
        (`pair_metrics`); only the papers' know a range of depths.
    by_name: taken by its name alone, not by "all", which is for streets with ground truth.
    about: what it is, in words.
    """

    top: float
    bottom: float
    left: float
    right: float
    crop: tuple[int, int] | None = None
    metrics: MetricSet = "papers"
    by_name: bool = False
    about: str = ""

    @property
    def capped(self) -> bool:
        """Whether truths outside a range of depths are left out."""
        return self.metrics == "papers"

    def fits(self, height: int, width: int) -> bool:
        """Whether an image of this size is large enough for the crop."""
        return self.crop is None or (height >= self.crop[0] and width >= self.crop[1])

    @property
    def whole(self) -> bool:
        """Whether every pixel is looked at."""
        return self.crop is None and (self.top, self.bottom, self.left, self.right) == _WHOLE

    def mask(self, height: int, width: int) -> Tensor:
        """H×W bool, true inside."""
        inside = torch.zeros(height, width, dtype=torch.bool)
        cut = inside
        if self.crop is not None:
            first = int((width - self.crop[1]) / 2)
            cut = inside[height - self.crop[0] :, first : first + self.crop[1]]
        rows, columns = cut.shape
        cut[int(self.top * rows) : int(self.bottom * rows), int(self.left * columns) : int(self.right * columns)] = True
        return inside


_WHOLE = (0.0, 1.0, 0.0, 1.0)
_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)  # Garg et al., 1603.04992
_EIGEN = (0.3324324, 0.91351351, 0.0359477, 0.96405229)  # Eigen et al., 1406.2283
_NYU_EIGEN = (45 / 480, 471 / 480, 41 / 640, 601 / 640)
KITTI_CROP = (352, 1216)

PROTOCOLS = {
    "none": Protocol(*_WHOLE, about="every pixel with ground truth"),
    "garg": Protocol(*_GARG, about="Garg's window of the whole ground truth"),
    "eigen": Protocol(*_EIGEN, about="Eigen's window of the whole ground truth"),
    "garg-352x1216": Protocol(*_GARG, crop=KITTI_CROP, about="ground truth cut to 352×1216, then Garg's window"),
    "kitti-depth": Protocol(*_WHOLE, metrics="kitti", about="KITTI's depth benchmark: every pixel, its own metrics"),
    "nyu-eigen": Protocol(
        *_NYU_EIGEN, by_name=True, about="Eigen's window of NYU's 480×640: rows 45 to 470, columns 41 to 600"
    ),
    "hu": Protocol(
        *_WHOLE, metrics="hu", by_name=True, about="every pixel, errors as in 1803.08673 and 2105.06143: δ ≤, no clamp"
    ),
    "pair": Protocol(
        *_WHOLE, metrics="pair", by_name=True, about="the two views against each other: no ground truth, no metres"
    ),
}

BY_LAYOUT = {
    "kitti_eigen": ("garg-352x1216", "garg", "eigen", "none"),
    "kitti_depth": ("kitti-depth", "none"),
}
"""What "auto" means for a data set's layout, the default protocol first; every other layout is taken whole."""


def window_mask(protocol: str, height: int, width: int) -> Tensor:
    """H×W bool, the pixels a protocol looks at. Raises InputError for an unknown name, or an image below its crop."""
    chosen = protocol_named(protocol)
    if not chosen.fits(height, width):
        assert chosen.crop is not None
        size = "×".join(map(str, chosen.crop))
        raise InputError(f"protocol {protocol!r} needs images of {size} or larger, got {height}×{width}")
    return chosen.mask(height, width)


def choose_protocols(
    wanted: str,
    layout: str,
    size: tuple[int, int],
    cropped: bool = False,
    middles: bool = False,
    stereo: bool = False,
    truth: bool = True,
) -> tuple[str, ...]:
    """The protocols that a word names: "auto" the layout's, "all" those of streets that fit, else names between commas.

    size: (height, width) of the data set's images. cropped: they were cut to 352×1216 before, so what looks at the
    whole ground truth cannot be measured and is left out of "auto" and "all"; middles: to their middle (data.fit
    centre), where a window would be another part of the image. stereo: a stereo network is measured. truth: there is
    something to compare depths with; without it "auto" is "pair" for a stereo network. Raises InputError for an unknown
    name, for one that needs the whole ground truth of cropped images, and for "pair" of a network that sees one image.
    """
    possible = [
        name
        for name, protocol in PROTOCOLS.items()
        if (protocol.whole if middles else not cropped or protocol.crop == KITTI_CROP or protocol.metrics == "pair")
    ]
    if wanted == "auto" and stereo and not truth:
        return ("pair",)
    usual = tuple(name for name in possible if not PROTOCOLS[name].by_name)
    if wanted == "auto":
        return tuple(name for name in BY_LAYOUT.get(layout, ("none",)) if name in possible) or usual
    if wanted == "all":
        return tuple(name for name in usual if PROTOCOLS[name].fits(*size))
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for name in names:
        protocol_named(name)
        if name not in possible:
            cut = "data.fit centre has cut to its middle" if middles else "kb_crop has cut to 352×1216"
            raise InputError(f"protocol {name!r} is of the whole ground truth, which {cut}")
        if PROTOCOLS[name].metrics == "pair" and not stereo:
            raise InputError(
                f"protocol {name!r} holds a stereo teacher's disparity against both views; this is a student, which "
                "has none: it needs ground truth, or proxies (`adu-depth proxies`)"
            )
    return names


def protocol_named(name: str) -> Protocol:
    """The protocol of this name. Raises InputError for an unknown one."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]
