"""Any folder of images, without depth: what a teacher labels for its student."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from adu_depth.data.camera_file import CameraFile, find_camera_file, name_in
from adu_depth.data.dataset import FileDataset, no_maps
from adu_depth.data.file_index import images_below
from adu_depth.data.image_files import read_view
from adu_depth.data.image_look import Look, look_at
from adu_depth.data.rgbd import UNKNOWN_CAMERA
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError

MAP_WORDS = frozenset(
    ("depth", "depths", "depthmap", "disp", "disparity", "disparities", "gt", "groundtruth", "truth", "mask", "masks",
     "label", "labels", "seg", "d")
)  # fmt: skip
"""In a folder's or a file's name: what a grey image of 8 bits is called where it is a map."""
DEPTH_WORDS = frozenset(word for word in MAP_WORDS if word.startswith(("depth", "disp")))
ADVICE = "name their layout (layout=rgbd, nyu_v2, scannet), or give the folder of the images alone"


class Pictures(FileDataset):
    """Every image in a folder and in its folders, called by its path there, suffix included: single images.

    Each is turned upright as EXIF says, and its camera with it. camera.toml in the folder or nearer to an image is read
    where there is one; else the camera is not known. The first
    bytes of every image are looked at: maps of depth (one channel of 16 bits, floats, or of 8 bits and called so) are
    refused, grey pictures counted in `notes`. Raises InputError where no image is, or a file is none.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        self.images = {path.relative_to(root).as_posix(): path for path in images_below(root)}
        if not self.images:
            raise InputError(f"{root}: no images, in it and in its folders")
        self.looks = {name: look_at(path) for name, path in self.images.items()}
        _refuse_maps(root, self.looks)
        self.cameras: dict[Path, CameraFile] = {}
        super().__init__(root, list(self.images))
        self.notes += _notes(root, self.looks)

    def files(self, name: str) -> dict[str, Path]:
        image = self.images[name]
        camera = find_camera_file(image, self.root)
        return {"left": image} | ({} if camera is None else {"calibration": camera})

    def split_entry(self, line: str, listed: str = "") -> str:
        """A name as it is: two images may differ in their suffix alone."""
        return line

    def focal_known(self, name: str) -> bool:
        return "calibration" in self.files(name)

    def upright(self, name: str) -> bool:
        return True

    def load_stored(self, name: str) -> StereoSample:
        files, orientation = self.files(name), self.orientation(name)
        image, camera = read_view(files["left"], upright=orientation != 1), UNKNOWN_CAMERA
        if (path := files.get("calibration")) is not None:
            if path not in self.cameras:
                self.cameras[path] = CameraFile(path)
            called = name_in(path, files["left"])
            camera = self.cameras[path].camera(called, (image.shape[1], image.shape[2]), ("fx",), orientation)
        return StereoSample(left=image, right=None, **no_maps(image), camera=camera, name=name)


def _refuse_maps(root: Path, looks: Mapping[str, Look | None]) -> None:
    """InputError for maps of depth beside their images: they would be taught as if they were views."""
    found: dict[str, list[str]] = {}
    for name, look in looks.items():
        if look is not None and look.map_like:
            kind = "floating-point numbers" if look.floating else f"one channel of {look.bits} bits"
            found.setdefault(f"{kind}, as a map of depth has, expected pictures (8 bits, or colours)", []).append(name)
        elif look is not None and look.grey and called_a_map(name):
            found.setdefault("grey and called a map", []).append(name)
    for what, names in found.items():
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise InputError(f"{root}: {names[0]}{more} of {len(looks):,} images: {what}: {ADVICE}")


def called_a_map(name: str, words: frozenset[str] = MAP_WORDS) -> bool:
    """Whether one of the words is in a path, its ending aside."""
    return not words.isdisjoint(re.split(r"[^a-z]+", re.sub(r"\.\w+$", "", name.lower())))


def _notes(root: Path, looks: Mapping[str, Look | None]) -> list[str]:
    notes = []
    grey = [name for name, look in looks.items() if look is not None and look.grey]
    if grey:
        notes.append(
            f"{root}: {len(grey):,} of {len(looks):,} pictures are grey (such as {grey[0]}): they are read as three "
            "equal colours; if they are maps, give the folder of the images alone"
        )
    painted = [name for name, look in looks.items() if look and not look.grey and called_a_map(name, DEPTH_WORDS)]
    if painted:
        notes.append(
            f"{root}: {len(painted):,} of {len(looks):,} pictures are of colours and called maps (such as "
            f"{painted[0]}): if they are maps in colour, give the folder of the images alone"
        )
    stems = Counter(Path(name).with_suffix("").as_posix() for name in looks)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        notes.append(f"{root}: {len(twice):,} names are there with two endings (such as {twice[0]}): all are read")
    return notes
