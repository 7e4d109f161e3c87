"""A student on frames that only its teacher labels: what they count in the loss, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.mixed import Mixed, Source
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.errors import InputError
from adu_depth.inference import write_samples
from adu_depth.models.prediction import DepthPrediction
from adu_depth.progress import Progress
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.supervision import require_supervision
from tests.data.pack_files import pack
from tests.training.tiny import LOOP, SIZE, tiny_student, tiny_teacher

ONCE = replace(LOOP, steps=1)


@pytest.mark.parametrize("features", [0.0, 1.0])
def test_such_frames_count_in_what_the_teacher_teaches_and_nowhere_else(features: float) -> None:
    generator = torch.Generator("cpu").manual_seed(0)

    def maps(channels: int, scale: int = 1) -> torch.Tensor:
        return torch.rand(2, channels, 32 // scale, 64 // scale, generator=generator) + 0.5

    levels = tuple(maps(8, stride) for stride in (8, 16, 32))
    student = DepthPrediction((10 * maps(1)).requires_grad_(), maps(1).requires_grad_(), levels)
    teacher = DepthPrediction(10 * maps(1), maps(1), tuple(maps(8, stride) for stride in (8, 16, 32)))
    target = 10 * maps(1)
    target[1] = 0
    config = DistillationConfig(features=features, guide="none")
    loss = StudentLoss(config, (8, 8, 8), (8, 8, 8), 0.1, 80.0)
    both = loss(student, teacher, target, 0.5)
    first, second = (
        loss(
            *(DepthPrediction(p.depth[i : i + 1], p.log_scale[i : i + 1], tuple(f[i : i + 1] for f in p.features))
              for p in (student, teacher)),
            target[i : i + 1],
            0.5,
        )
        for i in (0, 1)
    )  # fmt: skip
    for term in ("silog", "uncertainty"):
        torch.testing.assert_close(both[term], first[term])
        assert second[term] == 0
    torch.testing.assert_close(both["response"], (first["response"] + second["response"]) / 2)
    assert second["response"] > 0
    both["total"].backward()
    assert student.depth.grad is not None
    assert bool(student.depth.grad[1].any()), "the teacher's depth teaches where there is none"
    assert student.log_scale.grad is not None
    assert bool(student.log_scale.grad[0].any())
    assert not bool(student.log_scale.grad[1].any())


@pytest.mark.parametrize("packed", [False, True])
def test_how_many_they_are_is_said_and_what_teaches_there(
    packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs"
    write_samples(SyntheticStereo(4, *SIZE, seed=0), pairs, 4)
    for role in ("depth", "disparity", "sparse_depth"):
        for index in (1, 2, 3):
            (pairs / role / f"{index:06d}.png").unlink()
    if packed:
        pack(pairs, tmp_path / "pack")
        pairs = tmp_path / "pack"
    data = DataConfig(root=str(pairs), size=SIZE)
    train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=ONCE))
    told = "3 of 4 frames have no ground truth: "
    assert f"{told}the pair alone teaches there (loss.photometric)\n" in capsys.readouterr().out
    (row,) = train_student(tiny_student(tmp_path / "run", teacher=tmp_path / "teacher", data=data, loop=ONCE))
    assert f"{told}the teacher alone labels them\n" in capsys.readouterr().out
    assert row["gradient_norm"] > 0
    train_student(tiny_student(tmp_path / "alone", data=data, loop=ONCE))
    assert f"{told}they teach nothing\n" in capsys.readouterr().out


def test_single_images_in_a_mixture_are_no_pairs_for_a_teacher(tmp_path: Path) -> None:
    scene = SyntheticStereo(1, *SIZE, seed=0)[0]
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").touch()
    (tmp_path / "teacher" / "config.json").write_text('{"kind": "teacher"}')
    mixed = Mixed([Source("data.root a", [scene], 900), Source("data.mix b", [replace(scene, right=None)], 100)])
    for config in (tiny_teacher(tmp_path / "run"), tiny_student(tmp_path / "run", teacher=tmp_path / "teacher")):
        with pytest.raises(InputError, match=r"data\.mix b: a stereo teacher needs pairs, but .* no right images"):
            require_supervision(config, mixed, Progress(enabled=False))
    require_supervision(tiny_student(tmp_path / "run"), mixed, Progress(enabled=False))


def test_real_streets_without_a_lidar_beside_labelled_ones(
    real_stereo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs; what it learns in two steps is nothing to speak of."""
    streets = real_stereo.parent / "unlabelled_pairs"
    if not streets.is_dir():
        pytest.skip(f"{streets} is not there")
    data = DataConfig(root=str(real_stereo / "kitti2015"), mix=(SourceConfig(str(streets), 0.5),), size=SIZE)
    train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=ONCE))
    settings = {"data": data, "teacher": tmp_path / "teacher", "loop": replace(ONCE, steps=2, log_every=1)}
    rows = train_student(tiny_student(tmp_path / "run", **settings))
    told = f"data.mix {streets}: none of the 52 frames has ground truth: "
    said = capsys.readouterr().out
    assert told + "the pair alone teaches there" in said
    assert told + "the teacher alone labels them" in said
    assert all(row["response"] > 0 and row["gradient_norm"] > 0 for row in rows)
