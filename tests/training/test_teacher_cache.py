"""The folder of a teacher's outputs: what is in it, what is computed again, what is refused; and its own command."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.inference.render import write_samples
from adu_depth.models import StereoTeacher
from adu_depth.progress import Progress
from adu_depth.training import runs, teacher_outputs
from adu_depth.training.batches import batches
from adu_depth.training.cache_command import CacheTeacherConfig, cache_teacher
from adu_depth.training.config import DataConfig
from adu_depth.training.kept_targets import KeptTargets, encode, tensors_by_name
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.tasks import OnlineTeacher
from adu_depth.training.teacher_outputs import FORMAT, OutputsInMemory, OutputsOnDisk, teacher_says
from tests.training.tiny import LOOP, SIZE, TEACHER, tiny_scenes, tiny_student, tiny_teacher

CPU = torch.device("cpu")
QUIET = Progress(enabled=False)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_outputs, "CHUNK", 2)


def teacher() -> StereoTeacher:
    torch.manual_seed(0)
    return StereoTeacher(TEACHER).eval()


def cache(folder: Path, count: int = 5, **identity: object) -> OutputsOnDisk:
    return OutputsOnDisk(folder, {"teacher": "a", **identity}, count, TEACHER.feature_channels)


def filled(folder: Path, numbers: Sequence[int] | None = None, batch_size: int = 1) -> OutputsOnDisk:
    """numbers: the chunks that are computed; all that are missing, unless they are given."""
    outputs = cache(folder)
    outputs.claim()
    outputs.fill(teacher(), tiny_scenes(5), CPU, outputs.missing() if numbers is None else numbers, QUIET, batch_size)
    return outputs


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_it_holds_what_the_teacher_says_encoded(tmp_path: Path, small_chunks: None) -> None:
    outputs, scenes, memory = filled(tmp_path), tiny_scenes(5), OutputsInMemory(teacher(), tiny_scenes(5), CPU, QUIET)
    together = OutputsInMemory(teacher(), scenes, CPU, QUIET, at_once=3)
    assert sorted(contents(tmp_path)) == ["cache.json", *(f"chunk-0000{n}.safetensors" for n in range(3))]
    for index in range(5):
        targets = teacher_says(OnlineTeacher(teacher(), CPU), [scenes[index]])
        assert torch.equal(memory[index].depth, targets.depth)
        batched = together[index]
        for one, among in zip((targets.depth, *targets.features), (batched.depth, *batched.features), strict=True):
            torch.testing.assert_close(among, one, rtol=1e-4, atol=1e-4)
        for name, tensor in tensors_by_name(encode(targets, TEACHER.min_depth, TEACHER.max_depth)).items():
            assert torch.equal(tensors_by_name(outputs[index])[name], tensor), name


def test_processes_fill_their_shares_and_damaged_chunks_are_computed_again(tmp_path: Path, small_chunks: None) -> None:
    whole = contents(filled(tmp_path / "whole").folder)
    first = filled(tmp_path / "shares", [0, 2])
    assert sorted(contents(first.folder)) == ["cache.json", "chunk-00000.safetensors", "chunk-00002.safetensors"]
    assert first.missing() == [1]
    assert not filled(tmp_path / "shares", [1]).missing()
    assert contents(tmp_path / "shares") == whole
    damaged = tmp_path / "shares" / "chunk-00001.safetensors"
    os.truncate(damaged, damaged.stat().st_size - 7)
    kept = (tmp_path / "shares" / "chunk-00000.safetensors").stat().st_mtime_ns
    assert cache(tmp_path / "shares").missing() == [1]
    filled(tmp_path / "shares")
    assert contents(tmp_path / "shares") == whole
    assert (tmp_path / "shares" / "chunk-00000.safetensors").stat().st_mtime_ns == kept


def flip_a_byte(path: Path) -> None:
    """Of a frame's depths: any value of it is a depth."""
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)


def cut_and_pad(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size - 300)
    os.truncate(path, size)


@pytest.mark.parametrize("damage", [flip_a_byte, cut_and_pad])
def test_a_chunk_whose_bytes_changed_is_named_and_computed_again(
    damage: Callable[[Path], None], tmp_path: Path, small_chunks: None
) -> None:
    outputs = filled(tmp_path)
    whole, damaged = contents(tmp_path), tmp_path / "chunk-00001.safetensors"
    damage(damaged)
    assert not cache(tmp_path).missing(), "its header is whole: that is all that is looked at before a training"
    with pytest.raises(InputError, match=rf"{damaged}: .* not what was written .*cache-teacher.* computed again"):
        [outputs[index] for index in range(5)]
    assert outputs.missing(comparing=QUIET) == [1]
    damaged.unlink()
    assert contents(filled(tmp_path).folder) == whole


def test_frames_go_through_the_teacher_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, says = [], teacher_says
    monkeypatch.setattr(
        teacher_outputs, "teacher_says", lambda t, samples: sizes.append(len(samples)) or says(t, samples)
    )
    together, alone = filled(tmp_path / "together", batch_size=4), filled(tmp_path / "alone")
    assert sizes == [4, 1, 1, 1, 1, 1, 1]
    for index in range(5):
        torch.testing.assert_close(together[index].decoded().depth, alone[index].decoded().depth, rtol=0.01, atol=0)


def test_a_chunk_of_another_cache_is_none_of_this_one(tmp_path: Path) -> None:
    filled(tmp_path / "one")
    other = cache(tmp_path / "other", teacher="b")
    other.claim()
    os.replace(tmp_path / "one" / "chunk-00000.safetensors", tmp_path / "other" / "chunk-00000.safetensors")
    assert other.missing() == [0]
    with pytest.raises(InputError, match=r"chunk-00000.safetensors is of another cache than cache.json"):
        other[0]


def test_an_older_cache_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({"teacher": "a", "samples": 1}))
    (tmp_path / "00000000.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"of another version .*remove it, or name another folder.*cache-teacher"):
        cache(tmp_path)
    assert FORMAT.endswith(" 4")


def test_windows_of_batches_are_those_of_the_frames(tmp_path: Path) -> None:
    scenes = SyntheticStereo(3, 96, 128, seed=0)
    outputs = OutputsOnDisk(tmp_path, {"teacher": "a"}, 3, TEACHER.feature_channels)
    outputs.claim()
    outputs.fill(teacher(), scenes, CPU, [0], QUIET)
    for workers in (0, 1):
        loop = replace(LOOP, steps=2, workers=workers)
        for batch in batches(scenes, DataConfig(size=SIZE), loop, 0, ProcessGroup(), CPU, outputs):
            assert isinstance(batch.teacher, KeptTargets)
            found = batch.teacher.decoded()
            for place, name in enumerate(batch.sample.name):
                index = [scenes[i].name for i in range(3)].index(name)
                frame, windows = outputs[index].decoded(), []
                for top in range(0, 96 - SIZE[0] + 1, 32):
                    for left in range(0, 128 - SIZE[1] + 1, 32):
                        window = frame.crop(top, left, *SIZE)
                        same = torch.equal(window.depth[0], found.depth[place])
                        view = scenes[index].crop(top, left, *SIZE).left
                        if same and torch.equal(view, batch.sample.left[place]):
                            windows.append(window)
                assert len(windows) == 1
                for one, other in zip(windows[0].features, found.features, strict=True):
                    assert torch.equal(one[0], other[place])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=replace(LOOP, steps=1)))
    write_samples(SyntheticStereo(3, *SIZE, seed=0), tmp_path / "pairs", 3, lambda _: None)
    return tmp_path


def test_the_command_fills_what_a_student_then_reads(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--teacher", str(folder / "teacher"), "--teacher-cache", str(folder / "cache")]
    data = ["--data.root", str(folder / "pairs"), "--data.size", *map(str, SIZE)]

    def run() -> dict[str, bytes]:
        with pytest.raises(SystemExit) as ended:
            main(["cache-teacher", *places, *data, "--device", "cpu"])
        assert ended.value.code == 0
        return contents(folder / "cache")

    before = run()
    run()
    said = capsys.readouterr().out
    assert said.count("0.003 MB for a frame of 32×64, 3 of 3 frames to compute") == 1, "the second had nothing to do"
    flip_a_byte(folder / "cache" / "chunk-00000.safetensors")
    assert run() == before, "what has changed is found, and computed again"
    assert f"outputs of 3 frames in {folder / 'cache'}" in said
    assert json.loads((folder / "cache" / "cache.json").read_text())["precision"] == "bf16"
    monkeypatch.setattr(OutputsOnDisk, "fill", None)
    config = tiny_student(folder / "run", teacher=folder / "teacher", teacher_cache=folder / "cache")
    train_student(replace(config, data=DataConfig(root=str(folder / "pairs"), size=SIZE)))
    assert contents(folder / "cache") == before


def test_the_command_keeps_depth_alone_where_it_is_told_to(folder: Path) -> None:
    """As safe as a whole one: what is killed, damaged or of another size."""
    data = DataConfig(root=str(folder / "pairs"), size=SIZE)
    config = CacheTeacherConfig(folder / "teacher", folder / "cache", data=data, features=False, device="cpu")
    cache_teacher(config, QUIET)
    whole = contents(folder / "cache")
    both = cache_teacher(replace(config, teacher_cache=folder / "both", features=True), QUIET)
    alone = OutputsOnDisk(folder / "cache", both.identity, 3, TEACHER.feature_channels, features=False)
    for index in range(3):
        assert alone[index].features_high == ()
        assert torch.equal(alone[index].decoded().depth, both[index].decoded().depth)
    os.replace(folder / "both" / "chunk-00000.safetensors", folder / "cache" / "chunk-00000.safetensors")
    assert alone.missing() == [0], "a chunk of a whole cache is none of this one"
    cache_teacher(config, QUIET)
    assert contents(folder / "cache") == whole
    flip_a_byte(folder / "cache" / "chunk-00000.safetensors")
    cache_teacher(config, QUIET)
    assert contents(folder / "cache") == whole
    with pytest.raises(InputError, match=r"holds depth alone, .*cache-teacher: --no-features"):
        cache_teacher(replace(config, features=True), QUIET)
    with pytest.raises(InputError, match=r"belongs to another run \(it differs in size\)"):
        cache_teacher(replace(config, data=replace(data, size=(64, 64))), QUIET)
    (folder / "cache" / "cache.json").write_text(json.dumps({**json.loads(whole["cache.json"]), "features": 1}))
    with pytest.raises(InputError, match=r"cache\.json: features: expected true or false, got 1"):
        cache_teacher(config, QUIET)
    assert not list((folder / "cache").glob("*.safetensors.*"))


def test_what_is_missing_is_looked_for_once(folder: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None) -> None:
    data = DataConfig(root=str(folder / "pairs"), size=SIZE)
    config = CacheTeacherConfig(folder / "teacher", folder / "cache", data=data, device="cpu")
    cache_teacher(config, QUIET)
    (folder / "cache" / "chunk-00001.safetensors").unlink()
    opened, read_forms = [], teacher_outputs.read_forms
    monkeypatch.setattr(teacher_outputs, "read_forms", lambda path: opened.append(path.name) or read_forms(path))
    assert not cache_teacher(config, QUIET).missing()
    assert opened == ["chunk-00000.safetensors", *(f"chunk-0000{n}.safetensors" for n in range(2))]


def test_what_another_writer_has_computed_meanwhile_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    """It ends after this one has looked what is missing, and before the folder is locked for this one."""
    data = DataConfig(root=str(folder / "pairs"), size=SIZE)
    config = CacheTeacherConfig(folder / "teacher", folder / "other", data=data, device="cpu")
    cache_teacher(config, QUIET)
    (folder / "other" / "chunk-00001.safetensors").unlink()
    computed, fill, only_writer = [], OutputsOnDisk.fill, runs.only_writer

    @contextmanager
    def late(accelerator: Accelerator, place: Path, what: str) -> Iterator[None]:
        shutil.copytree(folder / "other", place)
        with only_writer(accelerator, place, what):
            yield

    def watched(self: OutputsOnDisk, *arguments: Any) -> None:
        computed.append(arguments[3])
        fill(self, *arguments)

    monkeypatch.setattr(runs, "only_writer", late)
    monkeypatch.setattr(OutputsOnDisk, "fill", watched)
    assert not cache_teacher(replace(config, teacher_cache=folder / "cache"), QUIET).missing()
    assert computed == [[1]]


def test_what_cannot_be_cached_is_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CacheTeacherConfig(folder / "teacher", folder / "cache", device="cpu")
    with pytest.raises(InputError, match="needs a finite data set"):
        cache_teacher(config, QUIET)
    usage = namedtuple("usage", "total used free")(10, 0, 7000)
    monkeypatch.setattr(teacher_outputs.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"3 of 3 frames to compute, 0.00 GB; 0.00 GB are free: they do not fit"):
        cache_teacher(replace(config, data=DataConfig(root=str(folder / "pairs"), size=SIZE)), QUIET)
    assert not (folder / "cache").exists()
    with pytest.raises(InputError, match="batch_size"):
        CacheTeacherConfig(folder / "teacher", folder / "cache", batch_size=0)
