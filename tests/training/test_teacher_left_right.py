"""The teacher's second look: depths that the mirrored pair does not confirm are not taught, from wherever they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adu_depth.checkpoint import load_model
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import StereoSample, collate
from adu_depth.distillation import DistillationConfig
from adu_depth.distillation.left_right import left_right_consistent
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.render import write_samples
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.progress import Progress
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.cache_command import CacheTeacherConfig, cache_teacher
from adu_depth.training.config import DataConfig, StudentTrainingConfig
from adu_depth.training.kept_targets import encode, require_scales
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.tasks import OnlineTeacher
from adu_depth.training.teacher_outputs import OutputsInMemory, OutputsOnDisk, cache_identity, teacher_says
from tests.training.test_resume import Stopping, assert_same_bits, newest
from tests.training.tiny import LOOP, SIZE, STUDENT, TEACHER, tiny_scenes, tiny_student, tiny_teacher

CPU = torch.device("cpu")
QUIET = Progress(enabled=False)
SHORT = replace(LOOP, steps=2)
RED = 16.0
"""Pixels of disparity that the fullest red stands for."""


class SaysItsRed(nn.Module):
    """A teacher whose disparity of a pair is the red of its left view: in the mirror that is the right one's."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, left: Tensor, right: Tensor, camera: Camera) -> DepthPrediction:
        self.passes += 1
        disparity = RED * left[:, :1]
        features = tuple(right[:, :, ::s, ::s] for s in (8, 16, 32))
        return DepthPrediction(100 / disparity, None, features, disparity)


def pair_with(left: Tensor, right: Tensor) -> TrainingBatch:
    """Of these disparities, H×W each."""
    sample = tiny_scenes()[0]
    views = [torch.stack([d / RED, torch.rand(d.shape), torch.rand(d.shape)]) for d in (left, right)]
    maps: dict[str, Any] = {"left": views[0], "right": views[1]}
    return TrainingBatch(collate([replace(sample, **maps)]))


def test_depth_is_0_exactly_where_the_mirrored_pair_does_not_confirm_it() -> None:
    """A wall of 4 pixels, before it a thing of 8 in columns 20 to 39 of the left view, 12 to 31 of the right one: left
    of the thing the left view sees eight columns less the four that the wall moves, which the right one does not."""
    left, right = torch.full(SIZE, 4.0), torch.full(SIZE, 4.0)
    left[:, 20:40], right[:, 12:32] = 8.0, 8.0
    left[5, 50] = 12.0  # a mistake of the left view alone
    batch = pair_with(left, right)
    teach = OnlineTeacher(SaysItsRed(), CPU, left_right=True)
    taught, plain = teach(batch).teacher, OnlineTeacher(SaysItsRed(), CPU)(batch).teacher
    assert isinstance(taught, TeacherTargets)
    assert isinstance(plain, TeacherTargets)
    assert teach.network.passes == 2
    believed = torch.ones(SIZE, dtype=torch.bool)
    believed[:, :4] = False  # of points that lie left of the right view
    believed[:, 16:20] = False  # hidden by the thing
    believed[5, 50] = False
    assert torch.equal(taught.depth[0, 0] == 0, ~believed)
    assert torch.equal(taught.depth[0, 0][believed], plain.depth[0, 0][believed])
    assert all(torch.equal(one, other) for one, other in zip(taught.features, plain.features, strict=True))


def test_a_depth_that_is_nan_is_not_taken_for_one_that_is_unknown() -> None:
    left = torch.full(SIZE, 4.0)
    left[3, 30] = float("nan")
    batch = pair_with(left, torch.full(SIZE, 4.0))
    taught = OnlineTeacher(SaysItsRed(), CPU, left_right=True)(batch).teacher
    assert isinstance(taught, TeacherTargets)
    assert torch.isnan(taught.depth).nonzero().tolist() == [[0, 0, 3, 30]]


def test_its_networks_are_asked_the_pair_in_a_mirror() -> None:
    torch.manual_seed(0)
    teacher = StereoTeacher(TEACHER).eval()
    sample = collate([tiny_scenes()[0], tiny_scenes()[1]])
    assert sample.right is not None
    found = OnlineTeacher(teacher, CPU, left_right=True)(TrainingBatch(sample)).teacher
    assert isinstance(found, TeacherTargets)
    with torch.no_grad():
        own = teacher(sample.left, sample.right, sample.camera)
        mirror = sample.camera.pair_mirrored(SIZE[1])
        other = teacher(sample.right.flip(-1), sample.left.flip(-1), mirror).disparity.flip(-1)
    believed = left_right_consistent(own.disparity, other)
    assert 0.05 < float(believed.float().mean()) < 0.95
    torch.testing.assert_close(found.depth, torch.where(believed, own.depth, 0.0))


def test_what_is_unknown_is_kept_as_unknown_and_nothing_else_changes() -> None:
    """Of three frames: some unknown and some beyond the range, none unknown, all unknown."""
    torch.manual_seed(0)
    depth = 1 + 50 * torch.rand(3, 1, 32, 64)
    depth[0, 0, 0, :2] = torch.tensor([79.0, 200.0])
    plain = depth.clone()
    depth[0, 0, 4:9, 3:50] = 0
    depth[2] = 0
    kept = encode(TeacherTargets(depth, ()), 0.5, 80.0)
    found = kept.decoded().depth
    assert torch.equal(found == 0, depth == 0)
    known = depth > 0
    assert bool(((found / depth - 1).abs()[known & (depth < 80)] < 0.003).all())
    assert found[0, 0, 0, 1].item() == pytest.approx(80 * 1.001)
    before = encode(TeacherTargets(plain, ()), 0.5, 80.0)
    for name in ("depth_high", "depth_low", "depth_scale"):
        assert torch.equal(getattr(kept, name)[1], getattr(before, name)[1]), name
    for frame in range(3):
        require_scales(kept.map(lambda tensor, n=frame: tensor[n : n + 1]), checked=True)  # type: ignore[misc]
    with pytest.raises(InputError, match=r"depth_scale: expected ln depths, got .* -inf and"):
        require_scales(kept)
    window = kept.crop(0, 32, 32, 32).decoded().depth
    assert torch.equal(window, found[..., 32:])


def test_beside_unknown_depths_what_is_nearer_than_the_range_counts_as_its_nearest() -> None:
    depth = torch.linspace(1, 30, 64).repeat(1, 1, 32, 1)
    depth[0, 0, 0, :3] = torch.tensor([0.0, 0.1, -3.0])
    found = encode(TeacherTargets(depth, ()), 0.5, 80.0).decoded().depth[0, 0, 0]
    assert found[0].item() == 0
    assert found[1:3].tolist() == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    train_teacher(tiny_teacher(run, loop=SHORT))
    return run


def checked(run: Path, teacher: Path, **changes: Any) -> StudentTrainingConfig:
    return tiny_student(run, **{"teacher": teacher, "teacher_left_right": True, "loop": SHORT, **changes})


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_online_in_memory_and_from_a_cache_the_same_pixels_teach(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One frame a step, as those that are computed beforehand go through the teacher: else bits differ anyway."""
    scenes, network, one = tiny_scenes(), load_model(teacher).model, replace(SHORT, batch_size=1)
    memory = OutputsInMemory(network, scenes, CPU, QUIET, left_right=True)
    train_student(checked(tmp_path / "online", teacher, loop=one))
    train_student(checked(tmp_path / "memory", teacher, loop=one), samples=scenes, outputs=memory)
    assert_same_bits(tmp_path / "online", tmp_path / "memory")
    capsys.readouterr()
    train_student(checked(tmp_path / "kept", teacher, teacher_cache=tmp_path / "cache", loop=one))
    said = capsys.readouterr().out
    shares = [row["consistent"] for row in rows_of(tmp_path / "online")]
    assert shares == [row["consistent"] for row in rows_of(tmp_path / "memory")]
    assert shares == [row["consistent"] for row in rows_of(tmp_path / "kept")]
    assert 0 < min(shares) <= max(shares) < 1
    identity = json.loads((tmp_path / "cache" / "cache.json").read_text())
    assert identity.pop("left_right") is True
    told = {name: value for name, value in identity.items() if name not in ("format", "precision", "features")}
    outputs = OutputsOnDisk(tmp_path / "cache", {**told, "left_right": True}, 5, TEACHER.feature_channels)
    of_all = []
    for index in range(5):
        unknown = memory[index].depth == 0
        assert torch.equal(outputs[index].decoded().depth == 0, unknown)
        of_all.append(1 - float(unknown.float().mean()))
    assert f"confirms {100 * sum(of_all) / 5:.1f} % of the pixels of these 5 frames" in " ".join(said.split())
    train_student(tiny_student(tmp_path / "plain", teacher=teacher, loop=one))
    assert "consistent" not in rows_of(tmp_path / "plain")[-1]
    assert rows_of(tmp_path / "plain")[0]["response"] != rows_of(tmp_path / "online")[0]["response"]


def test_a_cache_with_the_check_and_one_without_are_not_taken_for_one_another(teacher: Path, tmp_path: Path) -> None:
    plain, with_it = tmp_path / "plain", tmp_path / "checked"
    train_student(tiny_student(tmp_path / "one", teacher=teacher, teacher_cache=plain, loop=SHORT))
    train_student(checked(tmp_path / "two", teacher, teacher_cache=with_it))
    assert "left_right" not in json.loads((plain / "cache.json").read_text()), "as caches were before"
    with pytest.raises(InputError, match=r"cache .* belongs to another run \(it differs in left_right\)"):
        train_student(checked(tmp_path / "three", teacher, teacher_cache=plain))
    with pytest.raises(InputError, match=r"cache .* belongs to another run \(it differs in left_right\)"):
        train_student(tiny_student(tmp_path / "four", teacher=teacher, teacher_cache=with_it, loop=SHORT))
    network = StereoTeacher(TEACHER)
    without = cache_identity(network, DataConfig(), 5, {})
    assert cache_identity(network, DataConfig(), 5, {}, left_right=True) == {**without, "left_right": True}


@pytest.mark.parametrize("cached", [False, True])
def test_a_student_taught_so_resumes_to_the_same_bits(cached: bool, teacher: Path, tmp_path: Path) -> None:
    changes = {"loop": LOOP, "teacher_cache": tmp_path / "cache" if cached else None}
    train_student(checked(tmp_path / "whole", teacher, **changes))
    with pytest.raises(KeyboardInterrupt):
        train_student(checked(tmp_path / "broken", teacher, **changes), samples=Stopping(reads=7))
    train_student(checked(tmp_path / "broken", teacher, **changes | {"loop": replace(LOOP, resume=True)}))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")


def test_a_run_from_before_there_was_a_check_goes_on_without_one(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_student(tiny_student(run, teacher=teacher, loop=SHORT))
    for file in (run / "config.json", newest(run) / "config.json"):
        told = json.loads(file.read_text())
        assert told.pop("teacher_left_right") is False
        file.write_text(json.dumps(told))
    more = replace(LOOP, steps=3, resume=True)
    with pytest.raises(InputError, match=r"differ: .*teacher_left_right: False → True"):
        train_student(checked(run, teacher, loop=more))
    assert train_student(tiny_student(run, teacher=teacher, loop=more))[-1]["step"] == 3


def test_it_is_refused_without_a_stereo_teacher(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher_left_right True: there is no teacher: expected --teacher RUN"):
        train_student(tiny_student(tmp_path / "run", teacher_left_right=True))
    mono = tmp_path / "mono"
    train_student(tiny_student(mono, loop=SHORT))
    with pytest.raises(InputError, match=r"^teacher_left_right: teacher .*mono is a network for single images"):
        train_student(checked(tmp_path / "run", mono))
    with pytest.raises(InputError, match=r"^left_right: teacher .*mono is a network for single images"):
        cache_teacher(
            CacheTeacherConfig(mono, tmp_path / "cache", data=DataConfig(pairs=2), left_right=True, device="cpu"), QUIET
        )
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InputError, match=r"left_right: expected a stereo teacher.* got MonoStudent"):
        OnlineTeacher(MonoStudent(STUDENT), CPU, left_right=True)


@pytest.mark.parametrize("given", [True, False])
def test_outputs_made_otherwise_than_the_configuration_says_are_refused(
    given: bool, teacher: Path, tmp_path: Path
) -> None:
    outputs = OutputsInMemory(StereoTeacher(TEACHER), tiny_scenes(2), CPU, QUIET, left_right=given)
    config = checked(tmp_path / "run", teacher, teacher_left_right=not given)
    made = "with" if given else "without"
    with pytest.raises(InputError, match=rf"teacher_left_right {not given}: .* were made {made} the check"):
        train_student(config, samples=tiny_scenes(2), outputs=outputs)


def test_a_check_of_what_nothing_reads_is_refused(teacher: Path) -> None:
    silent = DistillationConfig(response=0, guide="none")
    with pytest.raises(InputError, match=r"teacher_left_right leaves out depths .* nothing reads them"):
        StudentTrainingConfig(teacher=teacher, teacher_left_right=True, distillation=silent)
    for read in ({"guide": "emphasise"}, {"response": 1.0}, {"selective": 1.0}, {"learned_scale": 1.0}):
        StudentTrainingConfig(teacher=teacher, teacher_left_right=True, distillation=replace(silent, **read))


def test_the_command_fills_what_a_checked_student_then_reads(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(SyntheticStereo(3, *SIZE, seed=0), tmp_path / "pairs", 3, lambda _: None)
    places = ["--teacher", str(teacher), "--teacher-cache", str(tmp_path / "cache"), "--left-right"]
    data = ["--data.root", str(tmp_path / "pairs"), "--data.size", *map(str, SIZE)]
    with pytest.raises(SystemExit) as ended:
        main(["cache-teacher", *places, *data, "--device", "cpu"])
    assert ended.value.code == 0
    assert "% of the pixels of these 3 frames" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(OutputsOnDisk, "fill", None)
    config = checked(tmp_path / "run", teacher, teacher_cache=tmp_path / "cache")
    train_student(replace(config, data=DataConfig(root=str(tmp_path / "pairs"), size=SIZE)))
    assert 0 < rows_of(tmp_path / "run")[-1]["consistent"] < 1


def test_a_teacher_whose_first_outputs_are_nan_is_still_found(teacher: Path) -> None:
    broken = StereoTeacher(TEACHER)
    nn.init.constant_(broken.log_sharpness, float("nan"))
    sample: StereoSample = tiny_scenes()[0]
    with pytest.raises(InputError, match="the predicted depth is NaN"):
        teacher_says(OnlineTeacher(broken, CPU, left_right=True), [sample])
