"""The teacher's outputs, computed once per sample and kept, in memory or in a folder.

cache.json                     which teacher and which frames they belong to, what the teacher computed in, and whether
                               features are kept beside the depth
chunk-00000.safetensors        those of 16 samples, see `kept_targets`; read by memory map, page by page. Of each
                               sample a CRC-32, compared when a process reads it for the first time

A chunk appears whole or not at all. One whose header is damaged, or of another cache, is computed again by `fill`; one
whose bytes have changed ends whoever reads them, and is computed again by `adu-depth cache-teacher`, which reads all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import StereoSample, collate
from adu_depth.errors import InputError
from adu_depth.files import read_bytes, replacing, write_json
from adu_depth.models.focal import needs_focal
from adu_depth.models.prediction import TeacherTargets
from adu_depth.models.students import depth_range
from adu_depth.progress import Progress
from adu_depth.schema import read_json
from adu_depth.tensor_files import Form, differences, read_forms
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import DataConfig
from adu_depth.training.kept_targets import (
    KeptTargets,
    bytes_of,
    checksum,
    encode,
    require_scales,
    shapes_of,
    tensors_by_name,
    with_names,
)
from adu_depth.training.tasks import OnlineTeacher

NOTE = "cache.json"
FORMAT = "adu-depth teacher cache 4"
CHUNK = 16
"""Samples in one file: of KITTI's frames some 24 MB."""
Precision = Literal["fp32", "bf16"]
AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
UNCOMPARED = {"precision", "features"}
"""Of cache.json: how outputs were computed, which are kept coarser than either type is; and whether there is more of
them than is read."""
SUMS = "crc32"
"""A chunk's checksums, a number for each of its samples. A tensor: safetensors writes metadata in any order."""


def teacher_says(teach: OnlineTeacher, samples: Sequence[StereoSample]) -> TeacherTargets:
    """The teacher's targets for samples of one size, on its device; finite. InputError for one of unknown focal length,
    where the teacher scales depth by it."""
    together = collate(list(samples))
    if needs := needs_focal(teach.network, "the teacher's reference_focal"):
        together.require_focal(needs)
    batch = TrainingBatch(together).to(teach.device)
    with torch.inference_mode():
        taught = teach(batch).teacher
    assert isinstance(taught, TeacherTargets)
    taught.require_finite(f"the teacher on {', '.join(batch.sample.name)}")
    return taught


def _copied(index: int, batch: Tensor) -> Tensor:
    return batch[index : index + 1].clone()


class OutputsInMemory:
    """Outputs of every sample of a small data set, as the teacher gave them. left_right: see `OnlineTeacher`.

    at_once: samples that the teacher is given together, all of one size. On a CPU with 8 it needs half the time; their
    last bits are then those of a batch.
    """

    def __init__(
        self,
        teacher: nn.Module,
        samples: Dataset,
        device: torch.device,
        progress: Progress,
        left_right: bool = False,
        at_once: int = 1,
    ) -> None:
        self.left_right = left_right
        teach = OnlineTeacher(teacher, device, left_right=left_right)
        self._kept: list[TeacherTargets] = []
        for first in progress.track(range(0, len(samples), at_once), "teacher outputs"):
            together = [samples[i] for i in range(first, min(first + at_once, len(samples)))]
            said = teacher_says(teach, together).map(lambda t: t.cpu())
            self._kept += (said.map(partial(_copied, i)) for i in range(len(together)))

    def __getitem__(self, index: int) -> TeacherTargets:
        return self._kept[index]


class _Made(NamedTuple):
    """How the cache that a folder is marked as is made."""

    precision: Precision
    features: bool


class OutputsOnDisk:
    """Outputs kept in a folder. What is missing is computed by `fill`."""

    def __init__(
        self, folder: Path, identity: dict[str, Any], count: int, channels: Sequence[int], features: bool = True
    ) -> None:
        """identity: what the outputs of `count` samples depend on (see `cache_identity`). channels: of the teacher's
        features per level. features: whether they are read; those of a cache that has them are left where they are,
        unless. InputError where the folder holds something else, or less."""
        self.folder, self.identity, self.count, self.channels = folder, identity, count, tuple(channels)
        self.features = features
        self._open: dict[int, _Chunk] = {}
        self._check()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a mapped file cannot be sent to another process, its name can

    def _check(self) -> _Made | None:
        """How this cache is made; None where the folder is not marked as it yet."""
        folder, note = self.folder, self.folder / NOTE
        if note.is_file():
            found = read_json(note)
            if found.get("format") != FORMAT:
                raise InputError(
                    f"teacher cache {folder} is of another version ({found.get('format', 'one file a frame')!r:.80}, "
                    f"expected {FORMAT!r}): remove it, or name another folder; it is computed again when a student is "
                    "trained, or by `adu-depth cache-teacher`"
                )
            compared = (self.identity.keys() | found.keys()) - UNCOMPARED - {"format"}
            differing = sorted(k for k in compared if self.identity.get(k) != found.get(k))
            if differing:
                raise InputError(
                    f"teacher cache {folder} belongs to another run (it differs in {', '.join(differing)}): "
                    "name another folder, or remove this one"
                )
            precision, features = found.get("precision"), found.get("features")
            if precision not in AUTOCAST:
                raise InputError(f"{note}: precision: expected one of {', '.join(AUTOCAST)}, got {precision!r:.80}")
            if not isinstance(features, bool):
                raise InputError(f"{note}: features: expected true or false, got {features!r:.80}")
            if self.features and not features:
                raise InputError(
                    f"teacher cache {folder} holds depth alone, the teacher's features are asked for too: name another "
                    "folder, or read depth alone (cache-teacher: --no-features; distill: --model.network light, or "
                    "--distillation.features 0 without --distillation.structure)"
                )
            return _Made(precision, features)
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"teacher cache {folder} is not empty and has no {NOTE}: name another folder")
        return None

    @property
    def left_right(self) -> bool:
        """Whether depths that the left–right check does not confirm are left out."""
        return bool(self.identity.get("left_right", False))

    @property
    def made(self) -> _Made:
        """InputError where the folder is not marked."""
        made = self._check()
        if made is None:
            raise InputError(f"teacher cache {self.folder} has no {NOTE}")
        return made

    def claim(self, precision: Precision = "fp32") -> None:
        """Marks the folder as this cache, which the teacher computes in `precision`, of what is read of it; one that is
        marked stays so."""
        if self._check() is None:
            made = _Made(precision, self.features)
            write_json(self.folder / NOTE, {"format": FORMAT, **made._asdict(), **self.identity})

    def missing(self, comparing: Progress | None = None, among: Sequence[int] | None = None) -> list[int]:
        """Numbers of the chunks (of all, or `among` these) that are to be computed, by their headers; with `comparing`,
        which shows how far it is, by all of their bytes."""
        asked = range(self.chunks) if among is None else among
        made = self._check()
        if made is None:
            return list(asked)
        numbers = asked if comparing is None else comparing.track(asked, "comparing outputs")
        return [number for number in numbers if not self._is_there(number, made, comparing is not None)]

    @property
    def chunks(self) -> int:
        return -(-self.count // CHUNK)

    def _file(self, number: int) -> Path:
        return self.folder / f"chunk-{number:05d}.safetensors"

    def _members(self, number: int) -> range:
        return range(number * CHUNK, min((number + 1) * CHUNK, self.count))

    def _is_there(self, number: int, made: _Made, compare: bool) -> bool:
        if not self._file(number).exists():
            return False
        try:
            chunk = self._chunk(number, made)
            for place in range(len(self._members(number)) if compare else 0):
                chunk.targets(place)
        except InputError:
            return False
        return True

    def _chunk(self, number: int, made: _Made) -> _Chunk:
        channels = self.channels if made.features else ()
        return _Chunk(self._file(number), self._mark(made), self._members(number), channels, self.left_right)

    def _mark(self, made: _Made) -> str:
        """What the chunks of this cache are known by."""
        known = json.dumps([FORMAT, made.features, self.identity], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()

    def require_room(self, samples: Dataset, missing: Sequence[int], progress: Progress) -> None:
        """Says what the outputs take, and raises InputError where the disk has less than those of `missing` chunks."""
        size = samples[0].left.shape[-2:]
        made = self._check()
        kept = self.features if made is None else made.features
        each = bytes_of(size[0], size[1], self.channels if kept else ())
        frames = sum(len(self._members(number)) for number in missing)
        place = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        told = (
            f"teacher cache {self.folder}: {each / 1e6:.3f} MB for a frame of {size[0]}×{size[1]}, "
            f"{frames} of {self.count} frames to compute, {frames * each / 1e9:.2f} GB; {free / 1e9:.2f} GB are free"
        )
        if frames * each > free:
            raise InputError(f"{told}: they do not fit; name a folder on another disk")
        progress.say(told)

    def fill(
        self,
        teacher: nn.Module,
        samples: Dataset,
        device: torch.device,
        missing: Sequence[int],
        progress: Progress,
        batch_size: int = 1,
    ) -> None:
        """Computes the chunks of these numbers, `batch_size` samples at a time. Claim the folder first. Of a cache that
        is checked it says what share of the pixels was confirmed."""
        made = self.made
        teach = OnlineTeacher(teacher, device, AUTOCAST[made.precision], self.left_right)
        depths, shares = depth_range(teacher), list[float]()
        with progress.task("teacher outputs", sum(len(self._members(number)) for number in missing)) as task:
            for number in missing:
                tensors: dict[str, Tensor] = {}
                found = _encoded(teach, samples, self._members(number), batch_size, depths, made.features)
                for place, kept in enumerate(found):
                    tensors |= {f"{place}.{name}": t.contiguous() for name, t in tensors_by_name(kept).items()}
                    if self.left_right:
                        shares.append(float((kept.depth_alone().decoded().depth > 0).float().mean()))
                    task.advance()
                tensors[SUMS] = torch.tensor(list(map(checksum, found)))
                with replacing(self._file(number)) as temporary:
                    save_file(tensors, temporary, {"cache": self._mark(made)})
        if shares:
            confirmed = 100 * sum(shares) / len(shares)
            progress.say(
                f"the left–right check confirms {confirmed:.1f} % of the pixels of these {len(shares)} frames: of the "
                "others the teacher's depth is left out"
            )

    def __getitem__(self, index: int) -> KeptTargets:
        number, place = divmod(index, CHUNK)
        made = None if number in self._open else self.made
        try:
            if made is not None:
                self._open[number] = self._chunk(number, made)
            kept = self._open[number].targets(place)
        except InputError as error:
            raise InputError(
                f"teacher cache file {error}; remove it, or give `adu-depth cache-teacher`, which compares all files: "
                "it is computed again"
            ) from error
        return kept if self.features else kept.depth_alone()


class _Chunk:
    """An open chunk. InputError, naming the file, unless it is whole, of this cache, and holds its samples alone."""

    def __init__(self, path: Path, mark: str, members: range, channels: tuple[int, ...], checked: bool) -> None:
        """checked: depths may be unknown."""
        self.path, self._levels, self._checked = path, len(channels), checked
        self._compared: set[int] = set()
        forms = read_forms(path)
        try:
            self._file = safe_open(path, framework="pt")
            found = (self._file.metadata() or {}).get("cache")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if found != mark:
            raise InputError(f"{path} is of another cache than {NOTE} beside it")
        expected = {SUMS: Form((len(members),), "I64")}
        for place in range(len(members)):
            depth = forms.get(f"{place}.depth_high")
            height, width = (0, 0, *(depth.shape if depth else ()))[-2:]
            for name, (shape, dtype) in shapes_of(height, width, channels).items():
                expected[f"{place}.{name}"] = Form(shape, {torch.uint8: "U8", torch.float32: "F32"}.get(dtype, "BF16"))
        wrong = differences(forms, expected) or next(
            (f"{name}: expected {form}" for name, form in expected.items() if forms[name] != form), ""
        )
        if wrong:
            raise InputError(f"{path}: {wrong}")

    def targets(self, place: int) -> KeptTargets:
        """Views of the mapped file. The first time all of their bytes are read, and compared with what was written."""
        try:
            kept = with_names(lambda name: self._file.get_tensor(f"{place}.{name}"), self._levels)
            require_scales(kept, self._checked)
        except InputError as error:
            raise InputError(f"{self.path}: {place}.{error}") from error
        if place not in self._compared:
            expected, found = int(self._file.get_tensor(SUMS)[place]), checksum(kept)
            if found != expected:
                raise InputError(
                    f"{self.path}: frame {place} is not what was written (CRC-32 {found:08x}, expected {expected:08x})"
                )
            self._compared.add(place)
        return kept


def _encoded(
    teach: OnlineTeacher,
    samples: Dataset,
    members: range,
    batch_size: int,
    depths: tuple[float, float],
    features: bool,
) -> list[KeptTargets]:
    """Neighbours of one size go through the teacher together, where they have the same maps (in a mixture)."""

    def form(sample: StereoSample) -> tuple[object, ...]:
        return sample.left.shape, sample.occluded is None, sample.sparse_depth is None

    found: list[KeptTargets] = []
    for _, alike in groupby((samples[index] for index in members), form):
        waiting = list(alike)
        for first in range(0, len(waiting), batch_size):
            said = teacher_says(teach, waiting[first : first + batch_size])
            kept = encode(said if features else said.depth_alone(), *depths).map(lambda t: t.cpu())
            count = kept.depth_high.shape[0]
            found += [kept.map(lambda t, at=place: t[at : at + 1]) for place in range(count)]  # type: ignore[misc]
    return found


def cache_identity(
    teacher: nn.Module, data: DataConfig, count: int, frames: dict[str, str], left_right: bool = False
) -> dict[str, Any]:
    """What cached outputs depend on: the teacher's weights and its range of depth (outside of which no two depths are
    told apart), the frames (by digest, where there are files), how samples are sized, and whether depths were checked
    (left_right, named where they were). Where the frames lie, and how they are supervised, does not reach the
    outputs."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(data)))
    for name in ("dense", "proxies", "crop_scale"):  # the last is refused with a cache
        described.pop(name)
    mixed = described.pop("mix")
    if not data.short_side:
        described.pop("short_side")
    for source in (described, *mixed):  # caches from before there was another kind have no such name
        if source["scenery"] == "usual":
            source.pop("scenery")
    for source in mixed:
        source.pop("share")
        source.pop("labels")
        source.pop("proxies")
    if data.fit == "crop" and not mixed:  # windows are cut from what is kept
        described.pop("size")
    if frames:
        for source in (described, *mixed):
            for place in ("root", "layout", "split", "ground_truth", "skip_missing"):
                source.pop(place)
    elif data.split:  # the same path may hold other frames another day
        described["split"] = hashlib.sha256(read_bytes(data.split)).hexdigest()
    if mixed:
        described["mix"] = mixed
    depths = [float(depth) for depth in depth_range(teacher)]
    checked = {"left_right": True} if left_right else {}  # caches from before there was a check have no such name
    return {"teacher": weights_digest(teacher), "depths": depths, "samples": count, **frames, **described, **checked}


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
