"""Any folder of images, without depth: what a teacher labels for its student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adu_depth.data.camera_file import CameraFile, find_camera_file
from adu_depth.data.dataset import FileDataset, no_maps
from adu_depth.data.file_index import images_below
from adu_depth.data.image_files import read_view
from adu_depth.data.rgbd import UNKNOWN_CAMERA
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError


class Pictures(FileDataset):
    """Every image in a folder and in its folders, called by its path there, suffix included: single images.

    camera.toml in the folder or nearer to an image is read where there is one; else the camera is not known. Raises
    InputError where no image is.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        self.images = {path.relative_to(root).as_posix(): path for path in images_below(root)}
        _refuse_maps(root, self.images)
        if not self.images:
            raise InputError(f"{root}: no images, in it and in its folders")
        self.cameras: dict[Path, CameraFile] = {}
        super().__init__(root, list(self.images))

    def files(self, name: str) -> dict[str, Path]:
        image = self.images[name]
        camera = find_camera_file(image, self.root)
        return {"left": image} | ({} if camera is None else {"calibration": camera})

    def split_entry(self, line: str) -> str:
        """A name as it is: two images may differ in their suffix alone."""
        return line

    def load_stored(self, name: str) -> StereoSample:
        files = self.files(name)
        image, camera = read_view(files["left"]), UNKNOWN_CAMERA
        if (path := files.get("calibration")) is not None:
            known = self.cameras.setdefault(path, CameraFile(path))
            camera = known.camera(name, (image.shape[1], image.shape[2]), ("fx",))
        return StereoSample(left=image, right=None, **no_maps(image), camera=camera, name=name)


def _refuse_maps(root: Path, images: Mapping[str, Path]) -> None:
    """InputError for what looks like maps of depth beside their images: they would be taught as if they were views."""
    advice = "name their layout (layout=rgbd, nyu_v2, scannet), or give the folder of the images alone"
    stems: dict[str, str] = {}
    for name in images:
        folder = next((part for part in Path(name).parts[:-1] if "depth" in part.lower()), None)
        if folder is not None or Path(name).stem.lower().startswith(("depth", "sync_depth")):
            raise InputError(f"{root}: {name} is called a map of depth: {advice}")
        other = stems.setdefault(Path(name).with_suffix("").as_posix(), name)
        if other != name and Path(other).suffix.lower() != Path(name).suffix.lower():
            raise InputError(f"{root}: {other} and {name} may be an image and its map of depth: {advice}")
