"""The pictures of preset light-indoor: lists of a folder, by the part that each has in the comparison."""

from __future__ import annotations

from pathlib import Path

from adu_depth.ablation.config import IndoorConfig
from adu_depth.ablation.rows import LABELLED, PLACE, U, X
from adu_depth.data import Rgbd
from adu_depth.data.identity import frames_digest
from adu_depth.data.splits import use_split
from adu_depth.errors import InputError

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

    def path(self, part: str) -> Path:
        return Path(self.config.root) / LISTS[part]

    def _frames(self, part: str) -> Rgbd | None:
        root = Path(self.config.root)
        if not root.is_dir():
            raise InputError(f"data.root {root}: no such folder, expected one of train.csv and test.csv")
        if not self.path(part).is_file():
            return None
        frames = Rgbd(root, self.config.depth_scale)
        use_split(frames, self.path(part))
        if part in (U, PLACE):
            there = bool(self.config.test_place)
            shows = [there and name.startswith(self.config.test_place) for name in frames.names]
            chosen = [name for name, place in zip(frames.names, shows, strict=True) if place == (part == PLACE)]
            frames.select(chosen)
        return frames if len(frames) else None

    def lacks(self, part: str) -> str:
        """Why a part is not there; "" where it is."""
        if part in self.frames:
            return ""
        if not self.path(part).is_file():
            return f"there is no {LISTS[part]}"
        which = "no picture" if part == PLACE else "every picture"
        return f"{which} of {LISTS[part]} is below {self.config.test_place} (data.test-place)"

    def digests(self, parts: tuple[str, ...]) -> dict[str, str]:
        """By part, which frames they are, wherever they lie."""
        for part in parts:
            if part not in self._digests:
                self._digests[part] = frames_digest(self.frames[part])[:16]
        return {part: self._digests[part] for part in parts}
