"""A checkpoint that anybody made, or a disk damaged: refused by name, never half taken, never in silence."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.errors import InputError
from adu_depth.inference import Predictor
from adu_depth.training.runs import train_student
from tests.training.tiny import LOOP, tiny_student

SHORT = replace(LOOP, steps=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train_student(tiny_student(run, loop=SHORT))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def newest(run: Path) -> Path:
    return list_checkpoints(run)[-1]


def resume(run: Path) -> None:
    train_student(tiny_student(run, loop=replace(SHORT, resume=True)))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    forget_sums(path.parent)


def forget_sums(checkpoint: Path) -> None:
    """Whoever changes a file knows how to change what is noted of it."""
    state = json.loads((checkpoint / "state.json").read_text())
    state.pop("files", None)
    (checkpoint / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("step", [-3, 0, 2.5, 3.0, "4", True, None, 10**9, [4]])
def test_a_step_that_is_none_is_refused(step: object, run: Path) -> None:
    edit(newest(run) / "state.json", step=step)
    with pytest.raises(InputError, match=r"state\.json: step: expected a whole number( from 1 to 99,999,999)?, got "):
        resume(run)


@pytest.mark.parametrize("step", [1, 3, 5, 99_999_999])
def test_a_step_that_is_not_the_optimisers_is_refused(step: int, run: Path) -> None:
    """A huge one would have made the run count as done."""
    edit(newest(run) / "state.json", step=step)
    with pytest.raises(InputError, match=rf"the optimiser's state is of step 4, expected {step}"):
        resume(run)


def test_more_steps_than_the_run_has_are_no_finished_run(run: Path) -> None:
    def count(tensors: dict[str, Tensor]) -> None:
        tensors.update({n: torch.tensor(9.0) for n in tensors if n.endswith(".step")})

    edit(newest(run) / "state.json", step=9)
    edit_tensors(newest(run) / "training.safetensors", count)
    with pytest.raises(InputError, match=r"has done 9 steps, more than the run's loop\.steps of 4"):
        resume(run)


def drop(part: str) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if part in n]:
            del tensors[name]

    return change


def poison(name: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        next(t for n, t in tensors.items() if name in n and t.numel()).view(-1)[0] = value

    return change


def retype(dtype: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()})


def doubled(name: str) -> Callable[[dict[str, Tensor]], object]:
    """As float64, with a number that is finite there alone."""

    def change(tensors: dict[str, Tensor]) -> None:
        retype(torch.float64)(tensors)
        poison(name, 1e300)(tensors)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("optimizer."), r"training\.safetensors does not fit .*: lacks \d+ tensors \(optimizer\.0\.exp_avg, "),
        (drop("optimizer.3."), r"lacks 3 tensors \(optimizer\.3\.exp_avg, optimizer\.3\.exp_avg_sq, optimizer\.3\.step\)"),  # noqa: E501
        (drop("optimizer.3.exp_avg_sq"), r"lacks 1 tensors \(optimizer\.3\.exp_avg_sq\)"),
        (lambda t: t.update({"optimizer.999.step": torch.tensor(4.0)}), r"has 1 tensors that do not belong there"),
        (lambda t: t.update({"optimizer.0.exp_avg": torch.zeros(3)}), r"optimizer\.0\.exp_avg: expected F32 of .*got F32 of \[3\]"),  # noqa: E501
        (poison("exp_avg", torch.nan), r"state is NaN or infinite, or .*, in 1 tensors \(exp_avg of network\.encoder"),
        (poison("exp_avg", torch.inf), r"state is NaN or infinite, or .*, in 1 tensors \(exp_avg of network\.encoder"),
        (poison("optimizer.0.step", torch.nan), r"the optimiser's state is of step 4, nan, expected 4"),
        (poison("optimizer.0.step", torch.inf), r"the optimiser's state is of step 4, inf, expected 4"),
        (poison("optimizer.0.step", 4.5), r"the optimiser's state is of step 4, 4\.5, expected 4"),
        (doubled("exp_avg"), r"state is NaN or infinite, or .*, in 1 tensors"),
        (poison("exp_avg_sq", -1.0), r"a mean of squares below 0, in 1 tensors \(exp_avg_sq of network\.encoder"),
        (retype(torch.int32), r"expected F32 of .*, got I32 of "),
        (lambda t: t.clear(), r"lacks \d+ tensors"),
    ],
)  # fmt: skip
def test_what_the_optimiser_remembers_is_there_whole(
    change: Callable[[dict[str, Tensor]], object], message: str, run: Path
) -> None:
    edit_tensors(newest(run) / "training.safetensors", change)
    before = (newest(run) / "training.safetensors").read_bytes()
    with pytest.raises(InputError, match=message):
        resume(run)
    assert (newest(run) / "training.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (poison("encoder", torch.nan), r"model\.safetensors cannot be used: weights are NaN or infinite in 1 of \d+ tensors \(encoder"),  # noqa: E501
        (poison("head", torch.inf), r"NaN or infinite in 1 of \d+ tensors \(head"),
        (doubled("head"), r"NaN or infinite in 1 of \d+ tensors \(head"),
        (drop("head.predict.bias"), r"does not fit the model .*: lacks 1 tensors \(head\.predict\.bias\)"),
        (lambda t: t.update(extra=torch.zeros(2)), r"has 1 tensors that do not belong there \(extra\)"),
        (retype(torch.int64), r"expected F32 of .*, got I64 of .*; … \d+ more"),
        (lambda t: t.update({"head.predict.bias": torch.zeros(32, 1)}), r"head\.predict\.bias: expected F32 of \[32\], got F32 of \[32, 1\]"),  # noqa: E501
        (lambda t: t.update({"head.predict.bias": torch.zeros(0)}), r"got F32 of \[0\]"),
    ],
)  # fmt: skip
def test_weights_that_are_not_the_networks_are_named(
    change: Callable[[dict[str, Tensor]], object], message: str, run: Path
) -> None:
    edit_tensors(newest(run) / "model.safetensors", change)
    for use in (load_model, resume, Predictor.from_checkpoint):
        with pytest.raises(InputError, match=message):
            use(run)


def test_half_precision_is_read_as_well(run: Path) -> None:
    edit_tensors(newest(run) / "model.safetensors", retype(torch.bfloat16))
    assert all(p.dtype == torch.float32 for p in load_model(run).model.parameters())


@pytest.mark.parametrize("encoder", ["theirs/model", "/tmp", "../run", "C:\\weights"])
def test_a_checkpoint_sends_nobody_to_a_hub_or_a_folder(
    encoder: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("it was looked for"))
    path = newest(run) / "config.json"
    for kept in ({}, {"backbone": None}):
        edit(path, model={**json.loads(path.read_text())["model"], "encoder": encoder}, **kept)
        with pytest.raises(InputError, match=r"config\.json: backbone: expected the configuration of the encoder '"):
            load_model(run)


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "pupil"}, r"does not describe a teacher or a student: kind: expected 'teacher' or 'student', got 'pupil'"),  # noqa: E501
        ({"kind": "teacher"}, r"config\.json: model\.[a-z_]+: expected no such name"),
        ({"data": {}}, r"data\.(size|fit): expected .*, got nothing"),
        ({"data": {"size": [32]}}, r"data\.size: expected a list of 2, got a list of 1"),
        ({"data": {"size": [32, 33]}}, r"data\.size must be two positive multiples of 32"),
        ({"data": {"size": [10**6, 10**6]}}, r"data\.size\[0\]: expected a whole number from 32 to 16,384"),
        ({"data": {"size": [4096, 4096]}}, r"at most 4,194,304 pixels"),
        ({"data": {"size": [32, 64], "fit": "stretch"}}, r"data\.fit: expected 'resize' or 'crop' or 'centre', got "),
        ({"model": {"head_channels": 10**9}}, r"model\.head_channels: expected a whole number from 1 to 4,096"),
        ({"model": {"head_channels": 4096, "feature_channels": [4096] * 3}}, r"model\.safetensors does not fit"),
        ({"model": {"head_channels": 8.5}}, r"model\.head_channels: expected a whole number, got 8\.5"),
        ({"model": {"head_channels": "8"}}, r"model\.head_channels: expected a whole number, got '8'"),
        ({"model": {"feature_channels": [8] * 10**6}}, r"model\.feature_channels: expected a list of 3, got a list of 1000000"),  # noqa: E501
        ({"model": {"max_depth": 1e308}}, r"model\.max_depth: expected a number above 0, at most 1,000,000"),
        ({"model": {"norm": ["group"]}}, r"model\.norm: expected 'group' or 'batch', got list of 1"),
        ({"model": {"widths": 3}}, r"model\.widths: expected no such name; known are network"),
        ({"model": {"encoder": "config:resnet?depths=9999999"}}, r"depths: expected at most 100,000"),
        ({"model": {"encoder": "small\0"}}, r"model\.encoder: expected text of whole characters"),
        ({"model": {}}, r"model\.(min|max)_depth: expected a number, got nothing"),
        ({"model": []}, r"model: expected a JSON object, got list"),
        ({"backbone": 3}, r"backbone: expected a JSON object, got int"),
        ({"model": {"encoder": "a/b"}, "backbone": {"model_type": "resnet", "auto_map": {"AutoConfig": "a.B"}}}, "never loaded or run"),  # noqa: E501
        ({"model": {"encoder": "a/b"}, "backbone": {"model_type": "resnet", "depths": [9_999_999]}}, "depths"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_configuration_that_describes_no_network_here(change: dict[str, Any], message: str, run: Path) -> None:
    path = newest(run) / "config.json"
    whole = json.loads(path.read_text())
    edit(
        path,
        **{part: {**whole[part], **new} if part in ("data", "model") and new else new for part, new in change.items()},
    )
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        load_model(run)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("file", ["config.json", "state.json"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        nested(100_000),
        '{"step": NaN}',
        '{"step": ' + "9" * 30 + "}",
        '{"step": 4, "step": 4}',
        "\xff",
    ],
)
def test_files_that_are_no_json_object(file: str, text: str, run: Path) -> None:
    (newest(run) / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        resume(run)


@pytest.mark.parametrize("file", ["config.json", "state.json", "model.safetensors", "training.safetensors"])
def test_pipes_are_refused_at_once(file: str, run: Path) -> None:
    (newest(run) / file).unlink()
    os.mkfifo(newest(run) / file)
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"{file}: expected a regular file, got a named pipe"):
        resume(run)
    assert time.monotonic() - started < 5


def test_a_run_of_another_length_is_no_reason_to_stop(run: Path) -> None:
    """What every one of these tests changes is all that was wrong."""
    resume(run)
