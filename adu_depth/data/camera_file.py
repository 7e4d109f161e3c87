"""camera.toml: the calibration beside images that carry none.

# pixels of the left image; baseline in metres
fx = 721.5377
fy = 721.5377
cx = 609.5593
cy = 172.854
baseline = 0.5327
width = 1242          # optional: images of another size are then refused
height = 375

[000003]              # optional: what differs for one image, by its path from this file's folder, without extension
fx = 707.09

["monday/000003"]     # the same where images lie in folders of sequences; ["monday"] is for a whole one
fx = 707.09
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from adu_depth.errors import InputError
from adu_depth.files import read_name_lines, read_text, replacing
from adu_depth.geometry import Camera, Turning

FILE_NAME = "camera.toml"
OTHER_NAMES = ("K.txt", "k.txt", "cam_K.txt", "intrinsics.txt", "intrinsic.txt", "camera.txt", "calib.txt")
_CAMERA_KEYS = tuple(f.name for f in fields(Camera))
_SIZE_KEYS = ("width", "height")
ALL_NEEDED = ("fx", "cx", "cy")
MOST = 1_000_000
"""Pixels or metres: far beyond any camera, and products of a few of them are finite in float32."""
LONGEST_LINE = 10_000
MOST_LINES = 200_000
"""tomllib takes seconds for more, and for millions of digits. A camera for each sequence needs far fewer."""
LEAST = 1e-6
"""Of focal lengths and a pair's baseline: below it float32 soon has 0."""
_Table = dict[str, float]


def camera_from_numbers(
    fx: float | None = None,
    fy: float | None = None,
    cx: float | None = None,
    cy: float | None = None,
    baseline: float | None = None,
    disparity_offset: float | None = None,
    source: str = "the camera",
    needed: Sequence[str] = ALL_NEEDED,
) -> Camera | None:
    """The camera from loose numbers; None if none is given. fy defaults to fx, baseline and offset to 0 (one view).

    needed: the numbers that must be there. cx and cy that are neither needed nor given are NaN: not known.
    Raises InputError, naming `source`, where a number is missing, not finite, or a focal length is not positive.
    """
    given = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "baseline": baseline, "disparity_offset": disparity_offset}
    table = {name: float(value) for name, value in given.items() if value is not None}
    return _camera(table, source, needed) if table else None


def read_camera(
    path: str | Path,
    name: str = "",
    size: tuple[int, int] | None = None,
    needed: Sequence[str] = ALL_NEEDED,
    orientation: int = 1,
) -> Camera:
    """The camera that the file gives for the image `name` (without extension) of `size` (height, width) pixels.

    needed: as for camera_from_numbers. orientation: as for CameraFile.camera. Raises InputError if the file is missing
    or malformed, lacks a number, or is for images of another size.
    """
    return CameraFile(path).camera(name, size, needed, orientation)


class CameraFile:
    """A camera.toml that is read once and asked for many images. InputError if it is missing or malformed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._tables = _read_tables(self.path)

    @property
    def sections(self) -> list[str]:
        """What has numbers of its own: names of images, or of folders of them."""
        return [name for name in self._tables if name]

    def camera(
        self,
        name: str = "",
        size: tuple[int, int] | None = None,
        needed: Sequence[str] = ALL_NEEDED,
        orientation: int = 1,
    ) -> Camera:
        """See read_camera. A name with folders, `monday/000003`, also takes what `["monday"]` says.

        orientation: EXIF's, 1 to 8, by which the image was turned upright to be of `size`. The file's numbers are of
        the pixels as stored, one camera for photos of all orientations, and are turned along; unless its width and
        height are those of the image as it is turned.
        """
        table = dict(self._tables[""])
        for end in [*(i for i, letter in enumerate(name) if letter == "/"), len(name)]:
            table |= self._tables.get(name[:end], {})
        camera = _camera({k: v for k, v in table.items() if k in _CAMERA_KEYS}, str(self.path), needed)
        if size is None:
            return camera
        stored = Turning.of(orientation).size(*size)
        if (other := _other_size(table, stored)) is None:
            return camera.turned(orientation, *stored)
        if _other_size(table, size) is None:
            return camera
        key, actual = other
        raise InputError(
            f"{self.path} is for images of {key} {table[key]:g}, but {name or 'the image'} has {key} {actual}"
        )


def _other_size(table: _Table, size: tuple[int, int]) -> tuple[str, int] | None:
    """The side of an image of this (height, width) that the table says otherwise, and how long it is; None if none."""
    sides = zip(_SIZE_KEYS, reversed(size), strict=True)
    return next(((key, actual) for key, actual in sides if table.get(key, actual) != actual), None)


def find_camera_file(image: Path, top: Path | None = None) -> Path | None:
    """camera.toml in the image's folder or the nearest above it, up to `top`: by default the next one up.

    A link is looked for beside itself, not beside what it leads to.
    """
    folders = Path(os.path.abspath(image)).parents
    last = folders[1 if len(folders) > 1 else 0] if top is None else Path(os.path.abspath(top))
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
        if folder == last:
            break
    return None


def name_in(file: Path, image: Path, views: Path | None = None) -> str:
    """What the camera.toml `file` calls an image below its folder: the path from there, without extension.

    In a folder of pairs (left/, right/), or of images/ and their depth without lists, the path from left/ or images/:
    so the layouts rig and rgbd call frames. views: that folder, where it is known.
    """
    top, whole = Path(os.path.abspath(file)).parent, Path(os.path.abspath(image)).with_suffix("")
    if views is None:
        views = next(
            (top / first for first in whole.relative_to(top).parent.parts[:1] if _holds_views(top, first)), top
        )
    views = Path(os.path.abspath(views))
    return whole.relative_to(views if views.is_relative_to(top) else top).as_posix()


def _holds_views(top: Path, folder: str) -> bool:
    if folder == "images":
        return any((top / beside).exists() for beside in ("depth", "depth.toml")) and not any(top.glob("*.csv"))
    return folder == "left" and (top / "right").is_dir()


def other_calibration(*folders: Path) -> str:
    """What to do with a calibration of another kind that lies in one of the folders; "" if none does.

    K.txt holds the nine numbers of the camera matrix, and often the baseline on a line of its own.
    """
    for path in (folder / name for folder in folders for name in OTHER_NAMES):
        if not path.is_file():
            continue
        try:
            words = read_text(path, share=100).split()
            numbers = [float(word) for word in words[:10]]
        except (InputError, ValueError):
            numbers = []
        told = f"{path} is not read: write its numbers into {folder_of_views(path.parent) / FILE_NAME}"
        if len(numbers) >= 9 and all(math.isfinite(number) for number in numbers):
            named = {"fx": numbers[0], "fy": numbers[4], "cx": numbers[2], "cy": numbers[5]}
            if len(numbers) == 10:
                named["baseline"] = numbers[9]
            told += f", as it seems {', '.join(f'{name} = {value:g}' for name, value in named.items())}"
        return told
    return ""


def folder_of_views(folder: Path) -> Path:
    """Where camera.toml of images in `folder` goes: above left/ and right/, else beside them."""
    return folder.parent if folder.name in ("left", "right") else folder


def write_cameras(path: str | Path, cameras: dict[str, Camera], size: tuple[int, int] | None = None) -> None:
    """Writes the cameras of images by name: what all share first, then a table for each image that differs."""
    tables = {name: {key: float(getattr(camera, key)) for key in _CAMERA_KEYS} for name, camera in cameras.items()}
    first = next(iter(tables.values()))
    shared = {k: v for k, v in first.items() if all(t[k] == v for t in tables.values())}
    lines = ["# pixels of the left image; baseline in metres", *_assignments(shared)]
    if size is not None:
        lines += [f"width = {size[1]}", f"height = {size[0]}"]
    for name, table in tables.items():
        own = {k: v for k, v in table.items() if k not in shared}
        if own:
            header = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
            lines += ["", f"[{header}]", *_assignments(own)]
    with replacing(path) as temporary:
        temporary.write_bytes(os.fsencode("\n".join(lines) + "\n"))


def _quoted(name: str) -> str:
    """As a basic string of TOML, whose escapes are JSON's, and which takes no DEL."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _assignments(table: _Table) -> list[str]:
    return [f"{key} = {value!r}" for key, value in table.items()]


def _camera(table: _Table, source: str, needed: Sequence[str]) -> Camera:
    missing = [key for key in needed if key not in table]
    if missing:
        raise InputError(
            f"{source} lacks {', '.join(missing)}: expected {', '.join(needed)} (pixels), and for a pair baseline "
            "(metres)"
        )
    for key, value in table.items():
        if not math.isfinite(value):
            raise InputError(f"{key} of {source} must be finite, got {value}")
        if abs(value) > MOST:
            raise InputError(f"{key} of {source} must be at most {MOST:,} (pixels; metres for baseline), got {value:g}")
        if (key in ("fx", "fy") and value < LEAST) or (key == "baseline" and value < 0):
            raise InputError(f"{key} of {source} must be positive, at least {LEAST:g}, got {value:g}")
    return Camera(**{"fy": table["fx"], "cx": math.nan, "cy": math.nan, "baseline": 0.0, **table})


def _read_tables(path: Path) -> dict[str, _Table]:
    """By section; "" is what stands above the first."""
    lines = read_name_lines(path)
    if len(lines) > MOST_LINES:
        raise InputError(f"{path}: {len(lines):,} lines, expected at most {MOST_LINES:,}")
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}, line {number}: {len(line):,} characters, expected at most {LONGEST_LINE:,}")
    try:
        whole = tomllib.loads("\n".join([*lines, ""]))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits and a nest of brackets too
        raise _refusal(path, lines, error) from error
    tables: dict[str, _Table] = {"": {key: value for key, value in whole.items() if not isinstance(value, dict)}}
    tables |= {key: value for key, value in whole.items() if isinstance(value, dict)}
    for section, table in tables.items():
        for key, value in table.items():
            if isinstance(value, dict) and section:
                where = _where(path, lines, section, key)
                raise InputError(f"{where}: [{section}.{key}] names two tables; a name with a dot stands in quotes")
            if key not in _CAMERA_KEYS + _SIZE_KEYS:
                raise _unknown(_where(path, lines, section, key), key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{_where(path, lines, section, key)}: {key} must be a number, got {value!r}"[:500])
            table[key] = _float(value)
    return tables


def _where(path: Path, lines: list[str], section: str, key: str) -> str:
    """The file and, where it can be told, the line in which the section has the key."""
    headers = (f"[{section}]", f"[{_quoted(section)}]")
    start = next((n for n, line in enumerate(lines) if line.partition("#")[0].strip() in headers), 0)
    number = next((n for n, line in enumerate(lines[start:], start + 1) if _key(line) == key), 0)
    return f"{path}, line {number}" if number else str(path)


def _key(line: str) -> str:
    """Left of the equals sign; "" where there is none."""
    key, equals, _ = line.partition("=")
    return key.strip().strip("\"'") if equals else ""


def _float(value: float) -> float:
    """As `float`, a whole number beyond its range being infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _unknown(where: str, what: str) -> InputError:
    known = ", ".join(_CAMERA_KEYS + _SIZE_KEYS)
    return InputError(f"{where}: expected `name = number` with a name of {known}, got {what[:200]!r}")


def _refusal(path: Path, lines: list[str], error: Exception) -> InputError:
    """What stands in the line that `tomllib` names, in words of this file's own."""
    named = re.search(r"\(at line (\d+)", str(error))
    if not named:
        return InputError(f"{path} is not TOML of numbers: {str(error)[:200]}")
    number = min(int(named[1]), len(lines))
    line = lines[number - 1].strip()
    where, key = f"{path}, line {number}", _key(line)
    if key not in _CAMERA_KEYS + _SIZE_KEYS:
        return _unknown(where, line)
    value = line.partition("=")[2].partition("#")[0].strip()
    if "overwrite" in str(error):
        before = next(one.partition("=")[2].partition("#")[0].strip() for one in lines if _key(one) == key)
        return InputError(f"{where}: {key} is there twice, {before[:200]} and {value[:200]}")
    return InputError(f"{where}: {key} must be a number, got {value[:200]!r}")
