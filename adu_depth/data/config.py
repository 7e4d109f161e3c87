"""What a run is told of its data: a dataclass that the command line fills, and that every checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from adu_depth.arguments import Argument
from adu_depth.data.synthetic.sceneries import Scenery, require_scenery
from adu_depth.errors import InputError
from adu_depth.schema import Length, Range, check_ranges, require_kinds

MOST = 10**8 - 1  # steps, scenes: eight digits, as checkpoints are named
BUILT_IN = "synthetic"
"""Stands in place of a data set's folder for the built-in scenes."""
MOST_AREA = 2**22
"""Pixels that a network is trained at, and works at afterwards: 2048×2048, several times what a GPU can train on."""
Side = Annotated[int, Range(32, 16_384)]
CropScale = Annotated[float, Range(0.05, 4)]
Text = Annotated[str, Length(4096)]


@dataclass(frozen=True)
class SourceConfig:
    """One more data set of a training, beside that of data.root; size, fit and dense are those of both."""

    WORDS: ClassVar[str] = "ROOT SHARE [NAME=VALUE …]"

    root: Text
    """A data set's folder, or "synthetic" for built-in scenes."""
    share: Annotated[float, Range(0.001, 0.999)]
    """Share of the samples that come from it, in thousandths; data.root has what is left."""
    layout: Text = "auto"
    split: Text = ""
    ground_truth: Text = ""
    kb_crop: bool = False
    skip_missing: bool = False
    proxies: Text = ""
    pairs: Annotated[int, Range(0, MOST)] = 0
    scene_seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    scenery: Scenery = "usual"
    labels: bool = True
    """False: its ground truth is not looked at, a student learns there from its teacher alone; any folder of images
    will do."""

    def __post_init__(self) -> None:
        check_ranges(self, f"data.mix {self.root}: ")
        require_scenery(self.scenery, self.root == BUILT_IN, f"data.mix {self.root}: scenery", self.root)
        if self.proxies and not self.labels:
            raise InputError(
                f"data.mix {self.root}: proxies={self.proxies} stand in for ground truth, which labels=false leaves "
                "aside; give one of the two"
            )

    @property
    def thousandths(self) -> int:
        return round(self.share * 1000)

    @classmethod
    def from_words(cls, words: list[str]) -> Self:
        """ROOT SHARE and any of the other settings as NAME=VALUE."""
        if len(words) < 2:
            raise InputError(f"data.mix: expected {cls.WORDS}, got {' '.join(words) or 'nothing'}")
        root, share, *rest = words
        options = {field.name: field.default for field in fields(cls)[2:]}
        given: dict[str, Any] = {}
        for word in rest:
            name, equals, value = word.partition("=")
            name = name.replace("-", "_")
            if not equals or name not in options:
                raise InputError(f"data.mix {root}: expected {', '.join(f'{n}=…' for n in options)}, got {word!r}")
            given[name] = _setting(f"data.mix {root}: {name}", type(options[name]), value)
        return cls(root, _setting(f"data.mix {root}: share", float, share), **given)

    def words(self) -> list[str]:
        others = [field.name for field in fields(self)[2:] if getattr(self, field.name) != field.default]
        return [self.root, f"{self.share:g}", *(f"{name}={getattr(self, name)!s}" for name in others)]


def _setting(name: str, kind: type, value: str) -> Any:
    """A setting written as text."""
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise InputError(f"{name}: expected true or false, got {value!r}")
        return value.lower() == "true"
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{name}: expected a number, got {value!r}") from None


@dataclass(frozen=True)
class DataConfig:
    """Which pairs to train on, and how they are brought to one size."""

    root: Text = "synthetic"
    """A data set's folder, or "synthetic" for the built-in scenes."""
    layout: Text = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Text = ""
    """A file that names the samples to use, one a line; KITTI's takes BTS's and Monodepth2's lists. Empty: all."""
    ground_truth: Text = ""
    """Folder of the ground truth where it is not in `root` (KITTI raw)."""
    kb_crop: bool = False
    """Cut every frame to KITTI's 352×1216 benchmark window first."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    proxies: Text = ""
    """Folder of `adu-depth proxies`: disparities of a classical matcher, which stand in for ground truth in the frames
    that have none."""
    size: tuple[Side, Side] = (96, 320)
    """Height and width the network is trained at, multiples of 32 but for light networks."""
    fit: Literal["resize", "crop", "centre"] = "resize"
    """Bring images to `size` by resizing them, by random crops at native resolution, or by bringing them to a short
    side and cutting out their middle, as is usual indoors."""
    crop_scale: tuple[CropScale, CropScale] = (1.0, 1.0)
    """With fit crop: each frame is first resized by a factor drawn between these two (log-uniform, both axes alike, no
    smaller than `size` fits in), for networks that are to work at more than one size: 0.5 1.5."""
    short_side: Annotated[int, Range(0, 16_384)] = 0
    """With fit centre: the short side that images are brought to before their middle is cut out (240 for the published
    228×304). evaluate then measures in that middle. What is too narrow there (upright photos) is made larger to fit."""
    pairs: Annotated[int, Range(0, MOST)] = 0
    """Built-in scenes: how many different ones; 0 means endless, rendered on the training device."""
    scene_seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Built-in scenes: seed of the scenes, apart from the training's seed."""
    scenery: Scenery = "usual"
    """Built-in scenes: usual, streets by day as a KITTI-like car sees them, or varied, with other cameras and
    things near by (adu_depth/data/synthetic/README.md)."""
    dense: bool = False
    """Supervise with the dense ground truth instead of the sparse (LiDAR) one."""
    mix: Annotated[tuple[SourceConfig, ...], Length(15), Argument(repeated=True)] = ()
    """One more data set to train on, with its share of the samples (0.3; `root` has what is left), and what is its own
    of layout, split, ground_truth, kb_crop, skip_missing, proxies, pairs, scene_seed, scenery: --data.mix kitti 0.3
    split=train.txt. labels=false: a set, or any folder of images, that a student's teacher alone labels (photos 0.5
    labels=false)"""

    def __post_init__(self) -> None:
        require_kinds(self, "data.")
        if self.pairs < 0:
            raise InputError(f"data.pairs must be 0 (endless) or more, got {self.pairs}")
        check_ranges(self, "data.")
        require_scenery(self.scenery, self.root == BUILT_IN, "data.scenery", f"data.root {self.root}")
        if self.fit == "centre" and self.short_side < min(self.size):
            raise InputError(f"data.short_side: with fit centre expected at least {min(self.size)}, the short side of "
                             f"data.size, got {self.short_side} (240 for 228×304)")  # fmt: skip
        if self.fit != "centre" and self.short_side:
            raise InputError(f"data.short_side is for data.fit centre, got {self.short_side} with fit {self.fit}")
        low, high = self.crop_scale
        if low > high:
            raise InputError(f"data.crop_scale: expected the lowest factor, then the highest, got {low:g} {high:g}")
        if self.rescales and self.fit != "crop":
            raise InputError(f"data.crop_scale is for data.fit crop, got {low:g} {high:g} with fit {self.fit}")
        if self.size[0] * self.size[1] > MOST_AREA:
            raise InputError(f"data.size: expected at most {MOST_AREA:,} pixels, got {self.size[0]}×{self.size[1]}")
        if (mixed := sum(source.thousandths for source in self.mix)) > 999:
            shares = " + ".join(f"{source.share:g}" for source in self.mix)
            raise InputError(f"data.mix: expected shares below 1 in all, so that data.root has some, got {shares} = "
                             f"{mixed / 1000:g}")  # fmt: skip

    @property
    def rescales(self) -> bool:
        """Whether windows are cut from frames of other sizes than their own."""
        return tuple(self.crop_scale) != (1.0, 1.0)

    def require_own_scale(self, kept: str) -> None:
        """InputError where frames are resized before they are cut. kept: what is kept of them and cannot be."""
        if self.rescales:
            low, high = self.crop_scale
            raise InputError(
                f"data.crop_scale {low:g} {high:g}: {kept}: of frames at their own size, which cannot be resized; "
                "expected a teacher that runs online (no teacher_cache), or no data.crop_scale"
            )

    def require_cells(self, source: str = "") -> None:
        """InputError, beginning with `source`, for a size that maps at 1/32 do not tile."""
        if any(side % 32 for side in self.size):
            raise InputError(f"{source}data.size must be two positive multiples of 32 (height, width), got {self.size}")
