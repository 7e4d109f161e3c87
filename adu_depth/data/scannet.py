"""ScanNet's frames as its reader exports them, and as `scannet_frames_25k` is packed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.dataset import FileDataset, maps_from_depth, no_maps, size_by_look
from adu_depth.data.file_index import is_image
from adu_depth.data.image_files import read_view
from adu_depth.data.indoor import PARTS, read_millimetres
from adu_depth.data.rgbd import UNKNOWN_CAMERA
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import read_text
from adu_depth.geometry import Camera
from adu_depth.images import from_levels

SCENE = re.compile(r"scene\d{4}_\d{2}")
MATRICES = ("intrinsic/intrinsic_depth.txt", "intrinsics_depth.txt")
OWN_FILES = ("pose", "intrinsic", *MATRICES, "intrinsics_color.txt")
"""What stands beside color/ and depth/ in a scene of ScanNet's, and not in Redwood's or Open3D's."""
CENTRE, FOCAL = (0.45, 0.55), (0.4, 2.0)
"""Of a side of the image: where a principal point is, and how long a focal length. ScanNet's are 0.5 and 0.9."""
SAME_SHAPE = 0.02
"""By how much widths over heights may differ: 1296×968 and 640×480 do by 0.006."""


class ScanNet(FileDataset):
    """ScanNet's frames as its reader exports them, and as `scannet_frames_25k` is packed: a folder a scene.

        scene0000_00/color/0.jpg  depth/0.png  intrinsic/intrinsic_depth.txt

    Depth is 16-bit millimetres, 0 = none, and smaller than the colour image: that is brought to the depth's size (an
    image without depth stays as it is, and where ground truth is left aside one whose depth is broken or of another
    shape). Focal lengths are the depth camera's, where its matrix is there (intrinsic/intrinsic_depth.txt or
    intrinsics_depth.txt). A matrix of another size than the depth maps' (an export at half size) is brought to theirs
    where it is of the depthWidth and depthHeight that the scene's own text (scene0000_00.txt) has, else refused.
    A frame is called scene0000_00/color/0. Single images: `right` is None. Raises InputError if there is no frame.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        self.images = {
            path.relative_to(root).with_suffix("").as_posix(): path
            for scene in scenes_of(root)
            for path in sorted((scene / "color").iterdir(), key=lambda path: (len(path.stem), path.stem))
            if is_image(path.name)
        }
        if not self.images:
            raise InputError(f"{root}: no frame, expected folders of color/0.jpg and depth/0.png")
        self.cameras: dict[tuple[Path, tuple[int, ...]], Camera] = {}
        super().__init__(root, list(self.images))

    def files(self, name: str) -> dict[str, Path]:
        image = self.images[name]
        scene = image.parent.parent
        depth, sizes = scene / "depth" / f"{image.stem}.png", scene / f"{scene.name}.txt"
        matrix = next((path for path in (scene / name for name in MATRICES) if self.file_index.holds(path)), None)
        found = {"left": image} | ({"depth": depth} if self.file_index.holds(depth) else {})
        if matrix is not None:
            found |= {"calibration": matrix} | ({"sizes": sizes} if self.file_index.holds(sizes) else {})
        return found

    def sequence(self, name: str) -> str:
        """Scans of one room (scene0000_00, scene0000_01) are one sequence."""
        return Path(name).parts[-3].partition("_")[0] if len(Path(name).parts) >= 3 else ""

    where_focal_is = f"expected {MATRICES[0]} in each scene, and the depth maps that it is of"

    def focal_known(self, name: str) -> bool:
        return {"calibration", "depth"} <= self.files(name).keys()

    def image_size(self, index: int) -> tuple[int, int] | None:
        files = self.files(self.names[index])
        return self._size_by_map(files) or size_by_look(files["left"])

    def load_stored(self, name: str) -> StereoSample:
        files = self.files(name)
        image = read_view(files["left"])
        depth = read_millimetres(files["depth"]) if self.truth and "depth" in files else None
        size = self._size_by_map(files) if depth is None else (depth.shape[0], depth.shape[1])
        if size is None:
            return StereoSample(left=image, right=None, **no_maps(image), camera=UNKNOWN_CAMERA, name=name)
        camera = self._camera(files, size)
        if tuple(image.shape[-2:]) != size:
            height, width = image.shape[-2:]
            if not _same_shape((height, width), size):
                raise InputError(
                    f"{files['depth']}: expected depth of the colour image's shape, {width}×{height}, at any size; got "
                    f"{size[1]}×{size[0]}"
                )
            image = _resized(image, size)
        maps = no_maps(image) if depth is None else maps_from_depth(depth, camera)
        return StereoSample(left=image, right=None, **maps, camera=camera, name=name)

    def _size_by_map(self, files: dict[str, Path]) -> tuple[int, int] | None:
        """(height, width) of the frame's depth map, by its first bytes; None where there is none, and of one that is
        not read where it cannot be the image's."""
        size = size_by_look(files["depth"]) if "depth" in files else None
        if size is None or self.truth:
            return size
        image = size_by_look(files["left"])
        return None if image is not None and not _same_shape(image, size) else size

    def _camera(self, files: dict[str, Path], size: tuple[int, ...]) -> Camera:
        """Of depth maps of this (height, width)."""
        if (path := files.get("calibration")) is None:
            return UNKNOWN_CAMERA
        if (path, size) not in self.cameras:
            self.cameras[path, size] = depth_camera(path, files.get("sizes"), size)
        return self.cameras[path, size]


def _same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return abs(one[1] / one[0] - other[1] / other[0]) <= SAME_SHAPE


def scenes_of(root: Path) -> list[Path]:
    """The folders with color in them: `root` itself, those in it, or those in its folders (scans/scene0000_00)."""
    for part in PARTS:
        if found := sorted(path.parent for path in root.glob(f"{part}color") if path.is_dir()):
            return found
    return []


def recognises_scannet(root: Path) -> bool:
    """By what only ScanNet has beside color/ and depth/: other sets have folders of these names too."""
    return any((scene / "depth").is_dir() and _is_own(scene) for scene in scenes_of(root)[:1])


def _is_own(scene: Path) -> bool:
    name = scene.absolute().name
    return bool(SCENE.fullmatch(name)) or any((scene / file).exists() for file in (*OWN_FILES, f"{name}.txt"))


def depth_camera(path: Path, sizes: Path | None, size: tuple[int, ...]) -> Camera:
    """What a matrix says of depth maps of `size` (height, width). sizes: the scene's text, which may say what size the
    matrix is of: it is of that one of the two in whose middle its principal point is nearer. InputError where it is of
    neither, or of another shape."""
    camera = read_matrix(path)
    told = None if sizes is None else read_depth_size(sizes)
    of = [each for each in (size, told) if each is not None and _fits(camera, each)]
    if of:
        nearest = min(of, key=lambda each: abs((float(camera.cx) + 0.5) / each[1] - 0.5))
        if nearest == size:
            return camera
        if _same_shape(nearest, size):
            return camera.resized(size[1] / nearest[1], size[0] / nearest[0])
    height, width = size
    scene = path.parent.parent if path.parent.name == "intrinsic" else path.parent
    said = "nothing says what size it is of" if told is None else f"{sizes} says depth of {told[1]}×{told[0]}"
    raise InputError(
        f"{path}: fx {camera.fx:g}, cx {camera.cx:g} and cy {camera.cy:g} are not of depth maps of {width}×{height} "
        f"(expected cx near {width / 2:g}, cy near {height / 2:g}; {said}): it may be the colour camera's, or of maps "
        f"before they were resized; put the matrix of these maps there, or depthWidth = … and depthHeight = … of the "
        f"matrix into {scene.name}.txt"
    )


def _fits(camera: Camera, size: tuple[int, ...]) -> bool:
    height, width = size
    values = ((camera.cx, width, CENTRE), (camera.cy, height, CENTRE), (camera.fx, width, FOCAL))
    return all(low <= float(value) / side <= high for value, side, (low, high) in values)


def read_depth_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of the depth maps as the scene's text has them, lines of `depthWidth = 640`; None if it says
    nothing."""
    found = dict(re.findall(r"^\s*(depth(?:Width|Height))\s*=\s*(\d{1,6})\s*$", read_text(path), re.MULTILINE))
    height, width = (int(found.get(key, 0)) for key in ("depthHeight", "depthWidth"))
    return (height, width) if height and width else None


def read_matrix(path: Path) -> Camera:
    """The numbers of a 3×3 or 4×4 matrix in a text file; InputError if it is none."""
    try:
        rows = [[float(number) for number in line.split()] for line in read_text(path).splitlines() if line.strip()]
        camera = Camera(fx=rows[0][0], fy=rows[1][1], cx=rows[0][2], cy=rows[1][2], baseline=0.0)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: expected a 3×3 or 4×4 matrix of numbers: {error}") from error
    if not all(0 < value < math.inf for value in (rows[0][0], rows[1][1])):
        raise InputError(f"{path}: expected focal lengths above 0, got {rows[0][0]:g} and {rows[1][1]:g}")
    return camera


def _resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    image = image if image.is_floating_point() else from_levels(image)
    return F.interpolate(image[None], tuple(size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
