"""A network of each kind, and a file of each in every format whose library is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adu_depth.data import SyntheticStereo
from adu_depth.inference import write_samples
from adu_depth.models import StudentConfig
from adu_depth.training.runs import train_student, train_teacher
from tests.export.making import HAS, run
from tests.training.tiny import LOOP, SIZE, STUDENT, tiny_student, tiny_teacher


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher, student that needs a focal length, light student; pairs of the size they learned at, and others."""
    folder = tmp_path_factory.mktemp("export")
    short = replace(LOOP, steps=1)
    train_teacher(tiny_teacher(folder / "teacher", loop=short))
    train_student(tiny_student(folder / "student", loop=short, model=replace(STUDENT, reference_focal=80.0)))
    light = StudentConfig(network="light", log_scale=True)
    train_student(tiny_student(folder / "light", loop=short, model=light))
    write_samples(SyntheticStereo(2, *SIZE, seed=0), folder / "same", 2)
    write_samples(SyntheticStereo(2, 48, 88, seed=1), folder / "other", 2)
    return folder


@pytest.fixture(scope="session")
def made(trained: Path) -> Path:
    """The same, and files of the networks."""
    folder, images = trained, ("--images", trained / "same")
    for suffix, name in ((".onnx", "onnx"), (".xml", "openvino")):
        if HAS[suffix]:
            to = ("--format", name, "--output")
            assert run("export", folder / "teacher", *to, folder / f"teacher{suffix}", *images) == 0
            assert run("export", folder / "student", "--dynamic", *to, folder / f"student{suffix}", *images) == 0
            assert run("export", folder / "light", "--precision", "fp16", *to, folder / f"light{suffix}") == 0
    student = ("export", folder / "student", "--format", "torch-export", "--uint8", "--batch-size", 2)
    assert run(*student, "--output", folder / "student.pt2", *images) == 0
    return folder
