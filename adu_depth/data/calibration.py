"""Camera parameters as the data sets write them down. Nothing is ever guessed: a missing value is an InputError."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from adu_depth.data.camera_file import LEAST, MOST
from adu_depth.errors import InputError
from adu_depth.files import read_text
from adu_depth.geometry import Camera

NUMBERS_SHARE = 100  # a list of numbers takes sixteen times the room of its text


def read_kitti_calibration(path: Path) -> dict[str, np.ndarray]:
    """`key: numbers` lines of a KITTI calibration file, each value a float64 vector; lines of text are left out."""
    values: dict[str, np.ndarray] = {}
    for line in read_text(path, share=NUMBERS_SHARE).splitlines():
        key, colon, numbers = line.partition(":")
        try:
            vector = np.array([float(number) for number in numbers.split()])
        except ValueError:
            continue
        if colon and vector.size:
            values[key.strip()] = vector
    return values


def calibration_matrix(values: dict[str, np.ndarray], key: str, shape: tuple[int, int], path: Path) -> np.ndarray:
    """The matrix under `key`. InputError naming the file if it is absent or has another number of entries."""
    if key not in values:
        raise InputError(f"{path}: no line '{key}:', found {', '.join(values) or 'no line of numbers'}")
    if values[key].size != shape[0] * shape[1]:
        raise InputError(f"{path}: {key} needs {shape[0]}×{shape[1]} numbers, got {values[key].size}")
    return values[key].reshape(shape)


def camera_from_projections(left: np.ndarray, right: np.ndarray, path: Path) -> Camera:
    """Camera of a rectified pair from its two 3×4 projections: baseline = (P_left[0,3] − P_right[0,3]) / f."""
    fx, offset = left[0, 0], right[0, 2] - left[0, 2]
    baseline = (left[0, 3] - right[0, 3]) / fx if fx > 0 else 0.0
    camera = Camera(
        fx=float(fx), fy=float(left[1, 1]), cx=float(left[0, 2]), cy=float(left[1, 2]),
        baseline=float(baseline), disparity_offset=float(offset),
    )  # fmt: skip
    return usable_camera(camera, path)


def usable_camera(camera: Camera, path: Path, pair: bool = True) -> Camera:
    """The camera read from `path`. InputError unless its numbers are those of a camera (`camera_file.MOST`), and focal
    lengths, and a pair's baseline, positive."""
    wrong = {name: float(value) for name, value in vars(camera).items() if not abs(value) <= MOST}
    for name in ("fx", "fy", *(("baseline",) if pair else ())):
        if not float(getattr(camera, name)) >= LEAST:
            wrong[name] = float(getattr(camera, name))
    if wrong:
        told = ", ".join(f"{name} {value:g}" for name, value in wrong.items())
        needed = "focal length and baseline" if pair else "focal length"
        raise InputError(
            f"{path}: expected a positive {needed} (at least {LEAST:g}), and finite numbers of at most {MOST:,}, "
            f"got {told}"
        )
    return camera


def _size(height: float, width: float, path: Path) -> tuple[int, int]:
    """(height, width) as whole numbers."""
    if not (0 < height < 1e9 and 0 < width < 1e9):
        raise InputError(f"{path}: expected the images' width and height, got {width:g} and {height:g}")
    return int(height), int(width)


def read_frame_table(path: Path, frame: str) -> tuple[Camera, tuple[int, int]]:
    """(camera, (height, width)) of one frame from a CSV with columns frame, width, height, fx, cx, cy, baseline_m.

    Pixels are square in rectified images, so fy = fx unless there is a column fy.
    """
    needed = ("frame", "width", "height", "fx", "cx", "cy", "baseline_m")
    reader = csv.DictReader(read_text(path, share=NUMBERS_SHARE).splitlines())
    try:
        rows = [row for row in reader if row["frame"] == frame] if "frame" in (reader.fieldnames or ()) else []
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is no CSV: {error}") from error
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise InputError(f"{path}: expected the columns {', '.join(needed)}; missing {', '.join(missing)}")
    found = {tuple(_number(row, name, path) for name in needed[1:]) for row in rows}
    if len(found) != 1:
        raise InputError(f"{path}: expected one calibration of frame {frame}, found {len(found)}")
    width, height, fx, cx, cy, baseline = found.pop()
    fy = _number(rows[0], "fy", path) if rows[0].get("fy") else fx
    camera = Camera(fx=fx, fy=fy, cx=cx, cy=cy, baseline=baseline)
    return usable_camera(camera, path), _size(height, width, path)


def read_middlebury_calibration(path: Path) -> tuple[Camera, tuple[int, int]]:
    """(camera, (height, width)) from Middlebury's and ETH3D's calib.txt; its baseline is in mm, the camera's in metres.

    Matrices look like `cam0=[f 0 cx; 0 f cy; 0 0 1]`. depth = f·baseline / (disparity + doffs).
    """
    lines = (line.partition("=") for line in read_text(path, share=NUMBERS_SHARE).splitlines() if "=" in line)
    entries = {key.strip(): value.strip() for key, _, value in lines}
    numbers: dict[str, list[float]] = {}
    for key, size in (("cam0", 9), ("baseline", 1), ("doffs", 1), ("width", 1), ("height", 1)):
        if key not in entries:
            raise InputError(f"{path}: no line '{key}=', found {', '.join(entries) or 'none'}")
        try:
            numbers[key] = [float(part) for part in entries[key].translate(str.maketrans("[];,", "    ")).split()]
        except ValueError as error:
            raise InputError(f"{path}: {key}: expected numbers, got {entries[key]!r}") from error
        if len(numbers[key]) != size:
            raise InputError(f"{path}: {key} needs {size} number(s), got {len(numbers[key])}")
    fx, _, cx, _, fy, cy = numbers["cam0"][:6]
    baseline = numbers["baseline"][0] / 1000.0
    camera = Camera(fx=fx, fy=fy, cx=cx, cy=cy, baseline=baseline, disparity_offset=numbers["doffs"][0])
    return usable_camera(camera, path), _size(numbers["height"][0], numbers["width"][0], path)


def read_numbers(path: Path) -> np.ndarray:
    """All numbers of a file of nothing else, a float64 vector."""
    words = read_text(path, share=NUMBERS_SHARE).split()
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"{path}: expected nothing but numbers: {error}") from error


def _number(row: dict[str, str], column: str, path: Path) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: frame {row['frame']}, {column}: expected a number, got {row[column]!r}") from error
