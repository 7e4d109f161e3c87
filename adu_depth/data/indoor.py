"""NYU-v2 as it lies on disk in BTS's form."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np

from adu_depth.data.dataset import FileDataset, SeveralFrames, maps_from_depth, no_maps, require_size
from adu_depth.data.file_index import images_below
from adu_depth.data.image_files import read_levels, read_view
from adu_depth.data.rgbd import UNKNOWN_CAMERA
from adu_depth.data.sample import StereoSample
from adu_depth.data.splits import use_of
from adu_depth.errors import InputError

MILLIMETRES = np.float32(1000)
PARTS = ("", "*/", "sync/*/", "train/*/", "val/*/", "test/*/", "scans/*/", "scans_test/*/", "official_splits/test/*/")
"""Where scenes lie below a root. Not at any depth: to look there would list every file of a large set."""
TOGETHER = ("sync", "train", "val", "test", "official_splits/train", "official_splits/test")
"""Parts that may lie below one root."""
FEW_SCENES, FEW_FILES = 16, 1000
"""That are looked at to recognise a set."""


class NyuV2(FileDataset):
    """NYU-v2 as BTS and those after it lay it out: rgb_00045.jpg beside sync_depth_00045.png, in a folder a scene.

        kitchen_0028b/rgb_00045.jpg  sync_depth_00045.png     `sync` of the training, `official_splits/test`, …

    Depth is 16-bit millimetres, 0 = none. A frame is called by its image's path, without suffix:
    `kitchen_0028b/rgb_00045`. BTS's lists are split files, as
    `/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579`. Single images: `right` is None, and
    nothing is known of the camera. Raises InputError if there is no frame.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        found = [path for path in images_below(root) if path.name.startswith("rgb_")]
        self.images = {path.relative_to(root).with_suffix("").as_posix(): path for path in found}
        if not self.images:
            raise InputError(f"{root}: no frame, expected folders of rgb_00045.jpg and sync_depth_00045.png")
        self._ends: dict[str, list[str]] = {}
        super().__init__(root, list(self.images))

    def parts(self) -> list[str]:
        found = {part for name in self.images for part in TOGETHER if name.startswith(f"{part}/")}
        return sorted(found) if len(found) > 1 else []

    def files(self, name: str) -> dict[str, Path]:
        image = self.images[name]
        depth = image.with_name(f"sync_depth_{image.stem.removeprefix('rgb_')}.png")
        return {"left": image} | ({"depth": depth} if self.file_index.holds(depth) else {})

    def split_entry(self, line: str, listed: str = "") -> str:
        """A name, or a line of BTS's lists, whose paths begin below `sync`, `official_splits/test` or another part.

        A frame that two parts have is the one of the part that the list is for (train, test); SeveralFrames where
        neither its name nor the line says it.
        """
        name = super().split_entry(line.split()[0].lstrip("/"))
        if name in self.images:
            return name
        found = [known for known in self._by_end().get(_end(name), ()) if known.endswith(f"/{name}")]
        if len(found) > 1 and (use := use_of(listed)):
            found = [known for known in found if use_of(known.removesuffix(name)) == use] or found
        if len(found) > 1:
            raise SeveralFrames(
                f"{name} is there several times, as {' and '.join(found)}: name the part in the line, or call the list "
                "train or test as its part is"
            )
        return found[0] if found else name

    def _by_end(self) -> dict[str, list[str]]:
        """All frames by folder and file, whatever part they lie in."""
        if not self._ends:
            for known in self.images:
                self._ends.setdefault(_end(known), []).append(known)
        return self._ends

    where_focal_is = "this layout reads none: list the frames in a *.csv beside a camera.toml (layout rgbd)"

    def focal_known(self, name: str) -> bool:
        return False

    def upright(self, name: str) -> bool:
        return "depth" not in self.read_files(name)

    def load_stored(self, name: str) -> StereoSample:
        files = self.read_files(name)
        image = read_view(files["left"], upright=self.upright(name))
        if "depth" not in files:
            return StereoSample(left=image, right=None, **no_maps(image), camera=UNKNOWN_CAMERA, name=name)
        depth = read_millimetres(files["depth"])
        require_size(depth.shape, image, files["depth"], files["left"])
        maps = maps_from_depth(depth, UNKNOWN_CAMERA)
        return StereoSample(left=image, right=None, **maps, camera=UNKNOWN_CAMERA, name=name)


def _end(name: str) -> str:
    return "/".join(name.split("/")[-2:])


def recognises_nyu(root: Path) -> bool:
    """By the first files of the first scenes: folders above a user's pictures are looked at too, and may be large."""
    folders = (folder for part in PARTS for folder in ([root] if not part else islice(root.glob(part), FEW_SCENES)))
    return any(_begins_with(folder, "sync_depth_") for folder in folders)


def _begins_with(folder: Path, prefix: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.startswith(prefix) for entry in islice(entries, FEW_FILES))
    except OSError:  # no permission, or gone
        return False


def read_millimetres(path: Path) -> np.ndarray:
    """H×W float32 metres, 0 = none. InputError for 8 bits, which hold no millimetres of a room."""
    levels = read_levels(path)
    if levels.dtype != np.uint16:
        raise InputError(
            f"{path}: expected 16-bit millimetres, got 8 bits: another copy of the set, whose scale is not known; name "
            "the frames in a list and the scale in depth.toml (layout rgbd)"
        )
    return levels.astype(np.float32) / MILLIMETRES
