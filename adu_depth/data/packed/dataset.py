"""A packed data set as any other, and windows of it without the rest of the frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from adu_depth.data.dataset import KB_SIZE, FileDataset
from adu_depth.data.packed.encoding import Window, decode_sample
from adu_depth.data.packed.shards import MANIFEST, PACKING, Shard, read_manifest, require_same_packing, require_sizes
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.images import check_range


class PackedStereo(FileDataset):
    """What `adu-depth pack` wrote: the samples of the data set that was packed, bit for bit.

    (Views of a pack with resized frames were rounded to 8 bits when it was made.) `settings` says what was packed and
    how. Opening looks at every shard's size and mark; `adu-depth pack --verify` compares their checksums. Shards are
    opened when first read, in each worker process by itself. Raises InputError where a shard is missing or of another
    packing, or the packing unfinished.
    """

    def __init__(self, root: str | Path) -> None:
        manifest = read_manifest(Path(root))
        self.settings: dict[str, Any] = manifest["settings"]
        self._entries = manifest["shards"]
        require_sizes(Path(root), self._entries)
        require_same_packing(Path(root), self._entries)
        self._places: dict[str, tuple[int, int]] = {}
        self._unlabelled: set[str] = set()
        self._open: dict[int, Shard] = {}
        names: list[str] = []
        for number, entry in enumerate(self._entries):
            names += entry["names"]
            self._places.update({name: (number, place) for place, name in enumerate(entry["names"])})
            self._unlabelled.update(entry["names"][place] for place in entry["unlabelled"])
        super().__init__(root, names)

    def load_stored(self, name: str) -> StereoSample:
        return self._decode(name, None)

    def files(self, name: str) -> dict[str, Path]:
        return {"shard": self.root / self._entries[self._place(name)[0]]["file"]}

    def part_digests(self) -> list[str] | None:
        return [entry["sha256"] for entry in self._entries]

    def labelled(self, name: str) -> bool:
        return name not in self._unlabelled

    where_focal_is = "expected fx in a camera.toml of what was packed: pack it again with one"

    def focal_known(self, name: str) -> bool:
        number, place = self._place(name)
        return "fx" in self._shard(number).samples[place]["camera"]

    @property
    def source_layout(self) -> str:
        """The layout of what was packed, while its frames are whole (or KITTI's window of them); else "packed"."""
        return str(self.settings["layout"]) if self.settings["size"] is None else "packed"

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of a sample, without reading it."""
        if self.kb_crop:
            return KB_SIZE
        number, place = self._place(self.names[index])
        height, width = self._shard(number).samples[place]["size"]
        return (height, width)

    def window(self, index: int, top: int, left: int, height: int, width: int) -> StereoSample:
        """`self[index].crop(top, left, height, width)`, bit for bit, reading the window's rows alone."""
        return self.stored_window(index, top, left, height, width).floats()

    def stored_window(self, index: int, top: int, left: int, height: int, width: int) -> StereoSample:
        """`window` with views of 8 bits as in `stored`: the mapped file, read when a batch is made."""
        if self.kb_crop or self.proxied(self.names[index]):
            return self.stored(index).crop(top, left, height, width)
        return self._decode(self.names[index], Window(top, left, height, width))

    def _decode(self, name: str, window: Window | None) -> StereoSample:
        number, place = self._place(name)
        shard = self._shard(number)
        try:
            sample = decode_sample(
                lambda part: shard.tensor(place, part), shard.samples[place], window, truth=self.truth
            )
            _require_numbers(sample, [view for view in ("left", "right") if shard.holds_floats(place, view)])
            return sample
        except InputError as error:
            raise InputError(f"{self.root / self._entries[number]['file']}: {name}: {error}") from error

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._places:
            raise InputError(f"{self.root}: holds no frame {name!r}")
        return self._places[name]

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            self._open[number] = Shard(self.root, self._entries[number])
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a mapped file cannot be sent to another process, its name can


def _require_numbers(sample: StereoSample, views: list[str]) -> None:
    """InputError where `views`, kept as floats, are no images, or a truth that is called known is no number: a shard
    may be anybody's."""
    for name in views:
        check_range(name, getattr(sample, name))
    for name in ("depth", "disparity"):
        if math.isfinite(float(getattr(sample, name).sum())):
            continue  # which says it of every value; else it may be large numbers, or what is not called known
        if not bool(torch.isfinite(getattr(sample, name)[sample.valid]).all()):
            raise InputError(f"{name}: NaN or infinite where it is called known")


def recognises(root: Path) -> bool:
    return (root / MANIFEST).is_file() or (root / PACKING).is_file()
