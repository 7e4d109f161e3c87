"""The pictures of preset light-indoor: lists of a folder, by the part that each has in the comparison."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from adu_depth.ablation.config import IndoorConfig
from adu_depth.ablation.rows import LABELLED, PLACE, U, X
from adu_depth.data import Rgbd
from adu_depth.data.identity import frames_digest
from adu_depth.data.splits import use_split
from adu_depth.errors import InputError
from adu_depth.files import checksum, read_text

TEST, VAL = "test", "val"
LISTS = {X: "train.csv", U: "unlabelled.csv", PLACE: "unlabelled.csv", LABELLED: "labelled.csv"}
LISTS |= {TEST: "test.csv", VAL: "val.csv"}


class IndoorLists:
    """frames: by part, those that are there."""

    def __init__(self, config: IndoorConfig) -> None:
        self.config = config
        self._digests: dict[str, str] = {}
        found = {part: self._frames(part) for part in LISTS}
        self.frames = {part: frames for part, frames in found.items() if frames is not None}
        for part in (X, TEST):
            if part not in self.frames:
                raise InputError(f"data.root {config.root}: expected a list {LISTS[part]} of image,depth, found none")
        self._refuse_measured()

    def has(self, part: str) -> bool:
        return part in self.frames

    def path(self, part: str) -> Path:
        return Path(self.config.root) / LISTS[part]

    def _frames(self, part: str) -> Rgbd | None:
        root = Path(self.config.root)
        if not root.is_dir():
            raise InputError(f"data.root {root}: no such folder, expected one of train.csv and test.csv")
        if not self.path(part).is_file():
            return None
        if part in (U, PLACE) and not read_text(self.path(part)).strip():
            return None
        frames = Rgbd(root, self.config.depth_scale)
        frames.truth = part not in (U, PLACE)  # its list may name depth maps: nobody looks at them, nor needs them
        use_split(frames, self.path(part))
        if part in (U, PLACE):
            place = self.config.test_place
            shows = [bool(place) and PurePosixPath(name).is_relative_to(place) for name in frames.names]
            chosen = [name for name, shown in zip(frames.names, shows, strict=True) if shown == (part == PLACE)]
            if part == PLACE and not chosen and place not in ("", IndoorConfig.test_place):
                raise InputError(
                    f"data.test-place {place}: expected a folder of pictures of {LISTS[part]}, as it names them below "
                    f"{root}, found none there"
                )
            frames.select(chosen)
        return frames if len(frames) else None

    def lacks(self, part: str) -> str:
        """Why a part is not there; "" where it is."""
        if part in self.frames:
            return ""
        if not self.path(part).is_file():
            return f"there is no {LISTS[part]}"
        if not read_text(self.path(part)).strip():
            return f"{LISTS[part]} is empty"
        if part == PLACE and not self.config.test_place:
            return "data.test-place names no folder of it"
        which = "no picture" if part == PLACE else "every picture"
        return f"{which} of {LISTS[part]} is below {self.config.test_place} (data.test-place)"

    def digests(self, parts: tuple[str, ...]) -> dict[str, str]:
        """By part, which frames they are, wherever they lie."""
        for part in parts:
            if part not in self._digests:
                frames = self.frames[part]
                self._digests[part] = frames_digest(frames, frames.truth)[:16]
        return {part: self._digests[part] for part in parts}

    def _refuse_measured(self) -> None:
        """InputError for a picture that is learned from and measured on: the same file, by whatever name. That test's
        own may be among the unlabelled ones of its place is what those rows are for; no row is for val's."""
        for tested in (part for part in (TEST, VAL) if self.has(part)):
            measured = self._pictures(tested)
            sizes = {path.stat().st_size for path in measured.values() if path.is_file()}
            contents = {checksum(path): name for name, path in measured.items() if path.is_file()}
            for part in (X, LABELLED, U, *([PLACE] if tested == VAL else [])):
                for name, path in self._pictures(part).items() if self.has(part) else ():
                    if not path.is_file() or path.stat().st_size not in sizes:
                        continue
                    if (twin := contents.get(checksum(path))) is not None:
                        raise InputError(self._told_of_twin(part, name, tested, twin))

    def _pictures(self, part: str) -> dict[str, Path]:
        frames = self.frames[part]
        return {name: frames.frames[name].image for name in dict.fromkeys(frames.names)}

    def _told_of_twin(self, part: str, name: str, tested: str, twin: str) -> str:
        same = "it" if name == twin else f"the same picture ({twin})"
        advice = f"take it out of one of the two under {self.config.root}"
        if part == U and tested == TEST:
            advice += ", or name its folder with --data.test-place: rows then say which of them saw it"
        return f"{LISTS[part]} has {name}, and {LISTS[tested]}, which is measured on, has {same} too: {advice}"
