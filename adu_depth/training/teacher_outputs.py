"""The teacher's outputs, computed once per sample and kept, in memory or in a folder.

In a folder each sample has `NNNNNNNN.safetensors`, and `cache.json` says which teacher and which data set they belong
to: outputs of another teacher are refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adu_depth.data.dataset import Dataset
from adu_depth.data.sample import collate
from adu_depth.errors import InputError
from adu_depth.files import replacing, write_json
from adu_depth.models.prediction import DepthPrediction
from adu_depth.schema import read_json
from adu_depth.training.batches import Place
from adu_depth.training.config import DataConfig
from adu_depth.training.progress import Progress

NOTE = "cache.json"


@torch.no_grad()
def teacher_predicts(teacher: nn.Module, samples: Dataset, index: int, device: torch.device) -> DepthPrediction:
    """The teacher's output for one sample, batch dimension 1, on the CPU. The teacher must be in eval mode."""
    sample = collate([samples[index]]).to(device)
    prediction: DepthPrediction = teacher(sample.left, sample.require_right("a stereo teacher"), sample.camera)
    return DepthPrediction(prediction.depth, prediction.log_scale, prediction.features).map(lambda t: t.cpu())


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

    def __init__(self, folder: Path, identity: dict[str, Any], count: int) -> None:
        """identity: what the outputs of `count` samples depend on (see `cache_identity`). InputError where the folder
        holds something else."""
        self.folder, self.identity, self.count = folder, identity, count
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
        self, teacher: nn.Module, samples: Dataset, device: torch.device, place: Place, progress: Progress
    ) -> None:
        """Computes this process's share of what is missing."""
        mine = range(place.rank, len(samples), place.processes)
        missing = [i for i in mine if not self._file(i).is_file()]
        for index in progress.track(missing, "teacher outputs"):
            prediction = teacher_predicts(teacher, samples, index, device)
            tensors = {"depth": prediction.depth.contiguous(), "log_scale": prediction.log_scale.contiguous()}
            for level, feature in enumerate(prediction.features):
                tensors[f"features.{level}"] = feature.half().contiguous()
            with replacing(self._file(index)) as temporary:
                save_file(tensors, temporary)

    def __getitem__(self, index: int) -> DepthPrediction:
        try:
            tensors = load_file(self._file(index))
        except (SafetensorError, OSError) as error:
            raise InputError(f"teacher cache file {self._file(index)} cannot be read: {error}; remove it") from error
        levels = sorted(name for name in tensors if name.startswith("features."))
        return DepthPrediction(tensors["depth"], tensors["log_scale"], tuple(tensors[name] for name in levels))


def cache_identity(teacher: nn.Module, data: DataConfig, count: int) -> dict[str, Any]:
    """What cached outputs depend on: the teacher's weights, and how samples are read and sized."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(data)))
    described.pop("dense")  # supervision does not reach the teacher's outputs
    if data.split:  # the same path may hold other frames another day
        described["split"] = hashlib.sha256(Path(data.split).read_bytes()).hexdigest()
    return {"teacher": weights_digest(teacher), "samples": count, **described}


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
