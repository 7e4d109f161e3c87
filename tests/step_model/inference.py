"""Prediction on fake CUDA tensors; runs in the fake CUDA process."""

from __future__ import annotations

from typing import Literal

import torch

from adu_depth.data.sample import StereoSample
from adu_depth.geometry import Camera, stack_cameras
from adu_depth.inference.predictor import Flip, Predictor
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_kernels.backend import use_backend
from adu_kernels.testing.fake_cuda.device import DEVICE, fake_cuda, to_fake
from adu_kernels.testing.fake_cuda.recorder import Recorder, Row

CAMERA = Camera(fx=700.0, fy=700.0, cx=310.0, cy=90.0, baseline=0.54)


def predict(
    kind: Literal["teacher", "student"], backend: str, size: tuple[int, int] | None, flip: Flip, bf16: bool
) -> tuple[dict[str, tuple[str, tuple[int, ...]]], list[Row]]:
    """A batch of two 190×630 images through `Predictor`: what came out, by name, and every operation."""
    with torch.device("meta"):
        network = (
            StereoTeacher(TeacherConfig()) if kind == "teacher" else MonoStudent(StudentConfig(reference_focal=7e2))
        )
    recorder, camera = Recorder(), stack_cameras([CAMERA, CAMERA])  # on the host, with its numbers
    with fake_cuda(), use_backend(backend):
        predictor = Predictor(to_fake(network), size=size, device=DEVICE, flip=flip)
        left, right = (torch.empty(2, 3, 190, 630).pin_memory().to(DEVICE, non_blocking=True) for _ in range(2))
        empty = torch.empty(2, 1, 190, 630)
        sample = StereoSample(left, right, empty, empty, empty > 0, camera)
        with recorder, torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            found = predictor(sample)
    maps = {name: getattr(found, name) for name in ("depth", "log_scale", "disparity")}
    return {n: (str(t.dtype), tuple(t.shape)) for n, t in maps.items() if t is not None}, recorder.rows


def render(batch: int, height: int, width: int) -> list[Row]:
    """A batch of the endless built-in scenes, rendered on the device."""
    from adu_depth.data import SyntheticStereo

    recorder = Recorder()
    with fake_cuda(), recorder:
        SyntheticStereo(None, height, width, device=DEVICE).render_batch(range(batch))
    return recorder.rows
