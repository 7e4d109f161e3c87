"""Checks that need no image decoded: which files are there, and whether each has its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from adu_depth.data.dataset import FileDataset
from adu_depth.data.image_files import orientation_of
from adu_depth.data.image_header import read_header
from adu_depth.data.packed import PackedStereo
from adu_depth.doctor.findings import ERROR, OK, WARNING, Report, counted
from adu_depth.errors import InputError
from adu_depth.files import open_regular, read_bytes

# The last bytes of a whole file; a JPEG may carry some padding behind its mark.
ENDINGS = {".png": (b"IEND\xaeB`\x82", 12), ".jpg": (b"\xff\xd9", 64), ".jpeg": (b"\xff\xd9", 64)}
VIEWS = ("left", "right")
COPY_AGAIN = "copy or download them again"


def check_files(dataset: FileDataset, report: Report, frames: Iterable[str]) -> set[str]:
    """Adds what was found out about every frame's files; returns the frames that have all of them, whole.

    frames: the data set's names, in whatever wrapping shows progress.
    """
    roles: Counter[str] = Counter()
    missing: dict[str, list[Path]] = {}
    cut: list[Path] = []
    unlabelled: list[str] = []
    calibrations: set[Path] = set()
    whole: set[str] = set()
    seen: dict[Path, bool] = {}
    turned: list[Path] = []
    upright: list[Path] = []
    for name in frames:
        files = dataset.files(name)
        roles.update(files.keys())
        absent = [role for role, path in files.items() if not dataset.file_index.holds(path)]
        for role in absent:
            missing.setdefault(role, []).append(files[role])
        calibrations |= {path for role, path in files.items() if role == "calibration" and role not in absent}
        broken = [p for role, p in files.items() if role not in absent and not _known_whole(p, seen)]
        cut += broken
        marked = [p for role, p in files.items() if role in VIEWS and role not in absent and _is_turned(p)]
        (upright if dataset.upright(name) else turned).extend(marked)
        if not dataset.labelled(name):
            unlabelled.append(name)
        if not absent and not broken:
            whole.add(name)
    if roles["right"]:
        pairs = counted(roles["right"], "pair")
    else:
        pairs = f"{counted(roles['left'], 'image')}, no right ones" if roles["left"] else "frames packed in shards"
    if not missing:
        report.add("files", OK, f"{pairs}, every file is there")
    for role, paths in missing.items():
        report.add(
            "files",
            ERROR,
            f"{counted(len(set(paths)), f'{role} file')} missing, of {pairs}",
            sorted(set(paths)),
            "put them there, or use --data.skip-missing, which passes over such frames",
        )
    if cut:
        report.add(
            "file ends", ERROR, f"empty or cut short: {counted(len(set(cut)), 'file')}", sorted(set(cut)), COPY_AGAIN
        )
    else:
        report.add("file ends", OK, f"every image of {len(seen)} files is whole at its end")
    if turned:
        report.add(
            "orientation",
            WARNING,
            f"{counted(len(turned), 'image')} with an EXIF orientation: every command takes images with ground truth, "
            "and pairs, as stored, not turned",
            turned,
            "maps and calibration must be of the stored pixels; if those stand upright, take the mark out "
            "(`exiftool -Orientation= FILE`), else store the images turned",
        )
    if upright:
        report.add(
            "orientation",
            OK,
            f"{counted(len(upright), 'image')} with an EXIF orientation and without ground truth: turned upright when "
            "they are read, and a camera.toml with them",
        )
    if unused := dataset.unused():
        report.add(
            "unused files",
            WARNING,
            f"{counted(len(unused), 'file')} without a left image",
            unused,
            "nothing reads them: name them as their left image, maps with the ending .png, .pfm or .npy",
        )
    labelled = len(dataset) - len(unlabelled)
    if not unlabelled:
        report.add("ground truth", OK, f"every frame has {', '.join(sorted(_truth_roles(roles))) or 'it'}")
    else:
        bare = report.layout in ("kitti_depth", "pictures")
        unread = [folder for folder in ("depth", "disparity") if (dataset.root / folder).is_dir()]
        adaptable = not unread and (bool(roles["right"]) or _packed_pairs(dataset))
        level = WARNING if labelled or adaptable else ERROR
        if not labelled and (roles["sparse_depth"] or bare):
            level = OK
        text = f"{labelled} of {len(dataset)} frames have ground truth"
        advice = "the others teach nothing without a teacher, and evaluation passes over them"
        if report.layout == "kitti_depth" and not labelled:
            advice = "the benchmark's test part, for `adu-depth submit`; the other part has groundtruth_depth"
        elif report.layout == "pictures":
            advice = "for a student whose teacher labels them: --data.mix ROOT SHARE labels=false beside a labelled set"
        elif not labelled and adaptable:
            advice = "a trained teacher can be adapted to them, and teach a student here: `adu-depth adapt`"
        elif level == ERROR:
            advice = "nothing can be learned or evaluated here, but for a student whose teacher learned elsewhere"
            if unread:
                advice += (
                    f"; nothing in {' and '.join(f'{folder}/' for folder in unread)} is read: maps are known by their "
                    "left image's name, and end in .png, .pfm or .npy"
                )
        if sparse := roles["sparse_depth"]:
            text = f"{text} to evaluate on, {sparse} have sparse depth to train on"
            advice = "maps of a LiDAR may lie in depth/ instead: they are then used for both"
        report.add("ground truth", level, text, unlabelled if labelled else (), advice)
    if calibrations:
        report.add(
            "calibration files", OK, f"{counted(len(calibrations), 'file')} for {counted(len(dataset), 'frame')}"
        )
    return whole


def _packed_pairs(dataset: FileDataset) -> bool:
    """Whether it is a pack of pairs, whose files do not say what views they hold."""
    if not isinstance(dataset, PackedStereo):
        return False
    try:
        return dataset[0].right is not None
    except InputError:  # a broken shard: whoever reads it will say so
        return False


def _truth_roles(roles: Iterable[str]) -> list[str]:
    return [role for role in roles if role in ("depth", "disparity", "scan", "sparse_depth")]


def _is_turned(path: Path) -> bool:
    try:
        return orientation_of(path) != 1
    except InputError:  # whoever reads it will say so
        return False


def _known_whole(path: Path, seen: dict[Path, bool]) -> bool:
    if path not in seen:
        seen[path] = has_its_end(path)
    return seen[path]


def has_its_end(path: Path) -> bool:
    """Whether a file is a regular one, not empty and, if PNG or JPEG, has the end that such a file must have.

    Its last bytes tell, and all of it is read only where they do not: a phone's photo may have a video behind it.
    """
    mark, depth = ENDINGS.get(path.suffix.lower(), (b"", 0))
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - depth))
            if mark in file.read(depth):
                return size > 0
        read_header(read_bytes(path), path)
    except InputError:
        return False
    return True
