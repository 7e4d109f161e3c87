"""The teacher's outputs, computed once per sample and kept, in memory or in a folder.

In a folder each sample has `NNNNNNNN.safetensors`, and `cache.json` says which teacher and which data set they belong
to: outputs of another teacher are refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import collate
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.files import read_bytes, replacing, write_json
from adu_depth.models.prediction import FEATURE_STRIDES, DepthPrediction
from adu_depth.progress import Progress
from adu_depth.schema import read_json
from adu_depth.tensor_files import Form, differences, read_forms, read_tensors
from adu_depth.training.config import DataConfig

NOTE = "cache.json"


@torch.no_grad()
def teacher_predicts(teacher: nn.Module, samples: Dataset, index: int, device: torch.device) -> DepthPrediction:
    """The teacher's output for one sample, batch dimension 1, on the CPU. The teacher must be in eval mode."""
    sample = collate([samples[index]]).to(device)
    prediction: DepthPrediction = teacher(sample.left, sample.require_right("a stereo teacher"), sample.camera)
    kept = DepthPrediction(prediction.depth, prediction.log_scale, prediction.features).map(lambda t: t.cpu())
    kept.require_finite(f"the teacher on {sample.name[0]}")
    return kept


class OutputsInMemory:
    """Outputs of every sample of a small data set."""

    def __init__(self, teacher: nn.Module, samples: Dataset, device: torch.device, progress: Progress) -> None:
        self._kept = [
            teacher_predicts(teacher, samples, i, device)
            for i in progress.track(range(len(samples)), "teacher outputs")
        ]

    def __getitem__(self, index: int) -> DepthPrediction:
        return self._kept[index]


class OutputsOnDisk:
    """Outputs kept in a folder; features in float16, maps in float32. What is missing is computed by `fill`."""

    def __init__(
        self, folder: Path, identity: dict[str, Any], count: int, channels: Sequence[int] | None = None
    ) -> None:
        """identity: what the outputs of `count` samples depend on (see `cache_identity`). channels: of the teacher's
        features per level; where they are not given, those of each file. InputError where the folder holds something
        else."""
        self.folder, self.identity, self.count, self.channels = folder, identity, count, channels
        self._check()

    def _check(self) -> bool:
        """Whether the folder is marked as this cache."""
        folder, identity = self.folder, self.identity
        note = folder / NOTE
        if note.is_file():
            found = read_json(note)
            differing = sorted(k for k in identity.keys() | found.keys() if identity.get(k) != found.get(k))
            if differing:
                raise InputError(
                    f"teacher cache {folder} belongs to another run (it differs in {', '.join(differing)}): "
                    "name another folder, or remove this one"
                )
            return True
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"teacher cache {folder} is not empty and has no {NOTE}: name another folder")
        return False

    def claim(self) -> None:
        """Marks the folder as this cache."""
        if not self._check():
            write_json(self.folder / NOTE, self.identity)

    def is_whole(self) -> bool:
        return self._check() and all(self._file(i).is_file() for i in range(self.count))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:08d}.safetensors"

    def fill(
        self, teacher: nn.Module, samples: Dataset, device: torch.device, group: ProcessGroup, progress: Progress
    ) -> None:
        """Computes this process's share of what is missing."""
        mine = range(group.rank, len(samples), group.world_size)
        missing = [i for i in mine if not self._file(i).is_file()]
        for index in progress.track(missing, "teacher outputs"):
            prediction = teacher_predicts(teacher, samples, index, device)
            features = tuple(feature.half() for feature in prediction.features)
            replace(prediction, features=features).require_finite(f"the teacher on sample {index}, in half precision")
            tensors = {
                "depth": prediction.depth.contiguous(),
                "log_scale": prediction.require_log_scale("a teacher cache").contiguous(),
            }
            for level, feature in enumerate(features):
                tensors[f"features.{level}"] = feature.contiguous()
            with replacing(self._file(index)) as temporary:
                save_file(tensors, temporary)

    def __getitem__(self, index: int) -> DepthPrediction:
        path = self._file(index)
        try:
            found = read_forms(path)
            wrong = differences(found, self._expected(found))
            if wrong:
                raise InputError(f"{path}: {wrong}")
            tensors = read_tensors(path)
            levels = [name for name in sorted(tensors) if name.startswith("features.")]
            kept = DepthPrediction(tensors["depth"], tensors["log_scale"], tuple(tensors[name] for name in levels))
            kept.require_finite(path)
        except InputError as error:
            raise InputError(f"teacher cache file {error}; remove it") from error
        return kept

    def _expected(self, found: Mapping[str, Form]) -> dict[str, Form]:
        """What a file must hold whose depth has the shape that is found."""
        height, width = (0, 0, *found["depth"].shape)[-2:] if "depth" in found else (0, 0)
        expected = {name: Form((1, 1, height, width), "F32") for name in ("depth", "log_scale")}
        for level, stride in enumerate(FEATURE_STRIDES):
            name = f"features.{level}"
            own = found[name].shape[1:2] if name in found else ()
            channels = (self.channels[level],) if self.channels else own
            expected[name] = Form((1, *channels, -(-height // stride), -(-width // stride)), "F16")
        return expected


def cache_identity(teacher: nn.Module, data: DataConfig, count: int, frames: dict[str, str]) -> dict[str, Any]:
    """What cached outputs depend on: the teacher's weights, the frames (by digest, where there are files), and how
    samples are sized. Where the frames lie, and how they are supervised, does not reach the outputs."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(data)))
    described.pop("dense")
    mixed = described.pop("mix")
    for source in mixed:
        source.pop("share")
    if frames:
        for source in (described, *mixed):
            for place in ("root", "layout", "split", "ground_truth", "skip_missing"):
                source.pop(place)
    elif data.split:  # the same path may hold other frames another day
        described["split"] = hashlib.sha256(read_bytes(data.split)).hexdigest()
    if mixed:
        described["mix"] = mixed
    return {"teacher": weights_digest(teacher), "samples": count, **frames, **described}


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
