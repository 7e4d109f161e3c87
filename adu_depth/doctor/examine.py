"""All checks of a data set, in the order in which a fault hides the next one."""

from __future__ import annotations

from collections.abc import Sequence

from adu_depth.data.dataset import FileDataset
from adu_depth.data.image_decoding import every_decoder_warning
from adu_depth.data.pictures import Pictures
from adu_depth.doctor.alignment import check_alignment
from adu_depth.doctor.cameras import check_cameras, check_depths
from adu_depth.doctor.files import COPY_AGAIN, check_files
from adu_depth.doctor.findings import ERROR, OK, SKIPPED, WARNING, Report, counted
from adu_depth.doctor.images import (
    check_order,
    check_product,
    check_rows,
    check_scale,
    check_sizes,
    check_sparse,
    check_warp,
)
from adu_depth.doctor.measure import FrameFacts, measure_frame
from adu_depth.doctor.pictures import describe_pictures
from adu_depth.errors import InputError
from adu_depth.progress import Progress


def examine(
    dataset: FileDataset, layout: str, samples: int = 24, every_file: bool = False, progress: Progress | None = None
) -> Report:
    """What is right and wrong with `dataset`, opened with `layout`.

    Every frame's files are looked for, and at their ends. `samples` frames, evenly spread over the data set, are
    decoded, matched and compared with their ground truth; with every_file all the others are decoded too.
    """
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    progress = progress or Progress(enabled=False)
    report = Report(str(dataset.root), layout, len(dataset))
    report.add("layout", OK, f"{layout}, {_sequences(dataset)}")
    if isinstance(dataset, Pictures):
        describe_pictures(dataset, report)
    else:
        for note in dataset.notes:
            report.add("split", WARNING, note)
    whole = check_files(dataset, report, progress.track(dataset.names, "looking for files"))
    chosen = _spread([name for name in dataset.names if name in whole], samples)
    with every_decoder_warning() as remarks:
        frames, failures = _measured(dataset, chosen, progress)
        decoded = len(chosen)
        if every_file:
            others = sorted(whole - set(chosen))
            failures |= _decoded(dataset, others, progress)
            decoded += len(others)
    report.looked_at = len(frames)
    if failures:
        report.add(
            "reading",
            ERROR,
            f"{len(failures)} of {counted(decoded, 'frame')} cannot be used",
            list(failures.values()),
            COPY_AGAIN,
        )
    elif decoded:
        left_out = len(whole) - decoded
        more = f"; {left_out} not tried (--all decodes every one)" if left_out else ""
        report.add("reading", OK, f"{counted(decoded, 'frame')} decoded, maps and calibration read{more}")
    if remarks:
        report.add(
            "decoders",
            WARNING,
            f"{counted(len(remarks), 'remark')} of the images' decoders, which took their pixels to be right",
            remarks,
            "look at these images; writing them anew by any program takes the cause away",
        )
    if frames and not isinstance(dataset, Pictures):
        _judge(frames, report)
    elif frames:
        check_cameras(frames, report)
        report.add("pairs", SKIPPED, "pictures alone: a student's teacher can label them, nothing is evaluated on them")
    return report


def _judge(frames: Sequence[FrameFacts], report: Report) -> None:
    pairs = [frame for frame in frames if frame.features is not None]
    check_sizes(frames, report)
    check_cameras(frames, report)
    check_depths(frames, report)
    check_alignment(frames, report)
    if not pairs:
        report.add(
            "pairs", SKIPPED, "single images: a student can be trained on them and evaluated, a stereo teacher cannot"
        )
        return
    check_order(pairs, report)
    check_rows(pairs, report)
    check_scale(pairs, report)
    check_product(pairs, report)
    check_sparse(pairs, report)
    check_warp(pairs, report)


def _measured(
    dataset: FileDataset, names: Sequence[str], progress: Progress
) -> tuple[list[FrameFacts], dict[str, str]]:
    frames, failures = [], {}
    for name in progress.track(names, "comparing views and maps"):
        try:
            frames.append(measure_frame(dataset.load(name), dataset.files(name)))
        except InputError as error:
            failures[name] = str(error)
    return frames, failures


def _decoded(dataset: FileDataset, names: Sequence[str], progress: Progress) -> dict[str, str]:
    failures = {}
    for name in progress.track(names, "decoding every file"):
        try:
            dataset.load(name)
        except InputError as error:
            failures[name] = str(error)
    return failures


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spaced, the first and the last among them."""
    if len(names) <= count:
        return list(names)
    if count == 1:
        return [names[0]]
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def _sequences(dataset: FileDataset) -> str:
    count = len({dataset.sequence(name) for name in dataset.names})
    return f"{count} sequences" if count > 1 else "one sequence, or none named"
