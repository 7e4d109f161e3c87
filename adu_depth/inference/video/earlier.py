"""What earlier runs of a clip have left under the names that this one writes, and what of that may be replaced.

A file is of an earlier run if the summary beside it, or what a run noted before it gave the file its name, says so by
its checksum. Anything else is the user's, who may call a video of their own NAME_depth.mp4: it is never replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

from adu_depth.errors import InputError
from adu_depth.files import checksum, remove_folder, write_json
from adu_depth.inference.video.unfinished import RECORD, require_frames_are_ours
from adu_depth.inference.video.writing import CODECS
from adu_depth.schema import read_json

NAMED = "named.json"
"""In the folder of unfinished frames: checksums of the videos that runs give their names, by these names."""


class _Summary(TypedDict, total=False):
    """What is looked at of a summary: of which clip it is, which files are of its run, the video's checksum."""

    source: Any
    written: list[str]
    sha256: str


class EarlierRuns:
    """Those of one clip in one output: NAME_depth.mp4 or .avi, NAME_depth.json, NAME_frames/."""

    def __init__(self, output: Path, name: str, identity: dict[str, Any]) -> None:
        self.identity = identity
        self.videos = [output / f"{name}_depth.{suffix}" for suffix in CODECS]
        self.summary = output / f"{name}_depth.json"
        self.frames = output / f"{name}_frames"
        self._named = output / f"{name}_unfinished" / NAMED

    def require_replaceable(self, video: Path, frames: bool) -> None:
        """InputError where `video`, the summary or, where there are to be some, the frames would replace what is of no
        earlier run, or of another clip: drive.mp4 would be written over what was made of drive.avi."""
        self._require_summary_is_of_this_clip()
        if frames:
            require_frames_are_ours(self.frames)
        if os.path.lexists(video) and not self._is_ours(video):
            raise InputError(
                f"{video} would be replaced, and is of no earlier run of this clip, or was changed since: name another "
                "--output, or move it"
            )

    def about_to_name(self, video: Path, digest: str) -> None:
        """Notes, before it is there, that `video` will be of this run: it may be killed before its summary is."""
        named = self._named_before()
        write_json(self._named, named | {video.name: [*named.get(video.name, ()), digest]})

    def remove_stale(self, video: Path, record: dict[str, Any] | None) -> list[Path]:
        """Removes what earlier runs wrote and this one does not write anew: the video of another format, and files of
        frames, unless they are what this run would have written. Returns what was removed.

        record: of this run's frames; None where it wrote some.
        """
        stale = [other for other in self.videos if other != video and self._is_ours(other)]
        if record is not None and self._frames_are_of_this_clip() and read_json(self.frames / RECORD) != record:
            stale.append(self.frames)
        for path in stale:
            remove_folder(path)
        return stale

    def _require_summary_is_of_this_clip(self) -> None:
        if not os.path.lexists(self.summary):
            return
        found = read_json(self.summary, _Summary).get("source")
        if found == self.identity:
            return
        told = "it does not say of which"
        if isinstance(found, dict):
            told = ", ".join(
                f"{name} was {found.get(name)}, now it is {self.identity.get(name)}"
                for name in {**found, **self.identity}
                if found.get(name) != self.identity.get(name)
            )
        raise InputError(f"{self.summary} is of another clip: {told}; name another --output, or remove it")

    def _is_ours(self, video: Path) -> bool:
        """Whether a regular file is there that an earlier run of this clip wrote so."""
        known = self._named_before().get(video.name, [])
        if self.summary.is_file():
            facts: _Summary = read_json(self.summary, _Summary)
            known += [facts.get("sha256", "")] if video.name in facts.get("written", ()) else []
        return bool(known) and video.is_file() and not video.is_symlink() and checksum(video) in known

    def _named_before(self) -> dict[str, list[str]]:
        return read_json(self._named, dict[str, list[str]]) if self._named.is_file() else {}

    def _frames_are_of_this_clip(self) -> bool:
        if not (self.frames / RECORD).is_file():
            return False
        try:
            require_frames_are_ours(self.frames)
        except InputError:  # somebody's files are among them
            return False
        found = read_json(self.frames / RECORD)
        return all(found.get(name) == value for name, value in self.identity.items())
