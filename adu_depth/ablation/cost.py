"""What a network costs: parameters, multiply-adds, and the time of one sample on the CPU."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from adu_depth.checkpoint import load_model
from adu_depth.checkpoint.folder import LoadedModel
from adu_depth.data import StereoSample, collate
from adu_depth.models import takes_pairs

REPEATS = 15


@dataclass(frozen=True)
class Cost:
    """macs: of convolutions and matrix products, on one sample. cpu_ms: median of `REPEATS` calls, fp32, with so many
    threads."""

    parameters: int
    macs: int
    cpu_ms: float
    threads: int
    size: tuple[int, int]


def measured_cost(checkpoint: str, sample: StereoSample) -> Cost:
    """Of the network of a run, on a sample at its own size."""
    loaded: LoadedModel = load_model(checkpoint, torch.device("cpu"))
    network = loaded.model.eval()
    batch = collate([sample]).floats()
    views = (batch.left, batch.require_right("a stereo teacher")) if takes_pairs(network) else (batch.left,)
    times = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(*views, batch.camera)
        for _ in range(REPEATS):
            began = time.perf_counter()
            network(*views, batch.camera)
            times.append(1000 * (time.perf_counter() - began))
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()),
        macs=counter.get_total_flops() // 2,
        cpu_ms=statistics.median(times),
        threads=torch.get_num_threads(),
        size=(int(batch.left.shape[-2]), int(batch.left.shape[-1])),
    )
