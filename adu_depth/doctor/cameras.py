"""Checks of the calibration and of the depths it gives, against what such cameras and scenes can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from adu_depth.doctor.findings import ERROR, OK, SKIPPED, WARNING, Report, counted
from adu_depth.doctor.measure import FrameFacts

FIELD_OF_VIEW = (10.0, 150.0)  # degrees across the image
CENTRE = (0.2, 0.8)  # where in the image a principal point is usual, in widths and heights
BASELINE = (0.005, 5.0)  # metres
DEPTH_WARNING, DEPTH_ERROR = (0.3, 150.0), (0.1, 1000.0)  # medians, metres
# Cameras that the data set's authors describe: KITTI's colour cameras stood 0.532 to 0.538 m apart on all recording
# days (calib_cam_to_cam.txt), DrivingStereo's 0.545 m (T_103).
KNOWN_BASELINES = dict.fromkeys(("kitti2012", "kitti2015", "kitti_object", "kitti_eigen"), (0.52, 0.55)) | {
    "driving_stereo": (0.53, 0.56)
}


def check_cameras(frames: Sequence[FrameFacts], report: Report) -> None:
    """Focal length, principal point and baseline of every frame looked at."""
    unknown = [f for f in frames if math.isnan(float(f.camera.fx))]
    if unknown:
        report.add(
            "calibration",
            SKIPPED,
            f"{counted(len(unknown), 'frame')} of single images without a camera.toml",
            advice="a network that scales depth by the focal length (reference_focal) needs one; others do not",
        )
    frames = [f for f in frames if not math.isnan(float(f.camera.fx))]
    if not frames:
        return
    before = len(report.findings)
    pairs = [f for f in frames if f.features is not None]

    def complain(
        level: str, bad: Callable[[FrameFacts], bool], text: str, advice: str, among: Sequence[FrameFacts]
    ) -> None:
        if names := [f.name for f in among if bad(f)]:
            report.add(
                "calibration",
                ERROR if level == ERROR else WARNING,
                f"{counted(len(names), 'frame')}: {text}",
                names,
                advice,
            )

    complain(
        ERROR,
        lambda f: not FIELD_OF_VIEW[0] <= field_of_view(f) <= FIELD_OF_VIEW[1],
        "the focal length gives a field of view outside {:g}° to {:g}°".format(*FIELD_OF_VIEW),
        "give fx in pixels of these images (not millimetres, not those of another resolution)",
        frames,
    )
    complain(
        WARNING,
        lambda f: (
            not math.isnan(float(f.camera.cx))
            and not (_central(f.camera.cx, f.size[1]) and _central(f.camera.cy, f.size[0]))
        ),
        "the principal point is far from the image's middle",
        "usual only for crops: check that cx and cy are of these images",
        frames,
    )
    complain(
        ERROR,
        lambda f: not BASELINE[0] <= float(f.camera.baseline) <= BASELINE[1],
        "the baseline is not from {:g} to {:g} m".format(*BASELINE),
        "give it in metres",
        pairs,
    )
    if (known := KNOWN_BASELINES.get(report.layout)) is not None:
        wrong = sorted({f"{float(f.camera.baseline):.4g}" for f in pairs if not _within(f.camera.baseline, known)})
        complain(
            ERROR,
            lambda f: not _within(f.camera.baseline, known),
            f"baseline {', '.join(wrong[:3])} m, but this data set's cameras are {known[0]:g} to {known[1]:g} m apart",
            "use the data set's own calibration files",
            pairs,
        )
    if len(report.findings) == before:
        report.add("calibration", OK, _described(frames, pairs))
    if pairs and report.layout not in KNOWN_BASELINES and all("depth" not in f.files for f in pairs):
        report.add("baseline", SKIPPED, "nothing but the calibration says it: no depth was measured apart from it")


def check_depths(frames: Sequence[FrameFacts], report: Report) -> None:
    """Are the depths those of a scene, in metres? And is there any in every frame?"""
    seen = [f for f in frames if math.isfinite(f.median_depth)]
    promised = [f for f in frames if f.files.keys() & {"depth", "disparity", "scan"}]
    _check_values(frames, report)
    if empty := [f for f in promised if not math.isfinite(f.median_depth)]:
        learnable = any("sparse_depth" in f.files for f in empty)
        report.add(
            "depths",
            ERROR if len(empty) == len(promised) and not learnable else WARNING,
            f"no pixel is known in {counted(len(empty), 'map')}{_why(empty)}",
            [f.name for f in empty],
            "training learns nothing from them",
        )
    if not seen:
        return
    medians = sorted(f.median_depth for f in seen)
    known = f"known in {_mean([f.valid for f in seen]):.0%} of the pixels"
    told = f"median depth {_span(medians)} m, {known}"
    impossible = [f for f in seen if not _within(f.median_depth, DEPTH_ERROR)]
    odd = [f for f in seen if f not in impossible and not _within(f.median_depth, DEPTH_WARNING)]
    for found, level in ((impossible, ERROR), (odd, WARNING)):
        if found:
            report.add(
                "depths", level, f"{told}; unlike scenes in metres: {counted(len(found), 'frame')}",
                [f.name for f in found],
                "check the maps' unit and factor (16-bit PNG is value / 256), the focal length and the baseline",
            )  # fmt: skip
    if not impossible and not odd:
        report.add("depths", OK, told)


def _check_values(frames: Sequence[FrameFacts], report: Report) -> None:
    """Negative values are nobody's mark for "unknown": they are another convention, or an error."""
    if found := [f for f in frames if f.negative]:
        share = _mean([max(f.negative.values()) for f in found])
        roles = ", ".join(sorted({role for f in found for role in f.negative}))
        report.add(
            "map values",
            WARNING,
            f"negative values in {roles} of {counted(len(found), 'frame')}, {share:.0%} of the pixels: read as unknown",
            [f.name for f in found],
            "disparities of a left image are positive here (x left − x right): store them with the other sign",
        )


def _why(frames: Sequence[FrameFacts]) -> str:
    told = [
        f"{_mean([max(shares.values()) for shares in found]):.0%} of the values are {kind}"
        for kind, found in (
            ("negative", [f.negative for f in frames if f.negative]),
            ("NaN", [f.not_numbers for f in frames if f.not_numbers]),
        )
        if found
    ]
    return f": {', '.join(told)}" if told else ": every value is 0 or infinite"


def field_of_view(frame: FrameFacts) -> float:
    """Degrees across the image."""
    return math.degrees(2 * math.atan(frame.size[1] / (2 * float(frame.camera.fx))))


def _described(frames: Sequence[FrameFacts], pairs: Sequence[FrameFacts]) -> str:
    focal = _span([float(f.camera.fx) for f in frames])
    view = _span([field_of_view(f) for f in frames])
    text = f"focal length {focal} px ({view}° across)"
    return text + (f", baseline {_span([float(f.camera.baseline) for f in pairs])} m" if pairs else "")


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _within(value: object, limits: tuple[float, float]) -> bool:
    return limits[0] <= float(value) <= limits[1]  # type: ignore[arg-type]


def _central(value: object, length: int) -> bool:
    return _within(float(value) / length, CENTRE)  # type: ignore[arg-type]
