"""The model's arithmetic, and the command that prints it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adu_depth.errors import InputError
from adu_depth.models import TeacherConfig
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_kernels.testing.fake_cuda import rules
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from adu_kernels.testing.fake_cuda.recorder import Row, TensorInfo
from adu_kernels.testing.gpu_specs import GPUS
from bench.step_model import budgets
from bench.step_model.command import StepModelReport
from bench.step_model.cost import launches_of
from bench.step_model.launch import Launch
from bench.step_model.steps import StepCase, trace_replay
from bench.step_model.summary import Counts, group_of, host_with_graph_ms
from tests.step_model.test_teacher_steps import EVERY_CHANGE

H200 = GPUS["H200"]


def tensor(
    *shape: int, dtype: str = "bfloat16", last: bool = True, device: str = "cuda", number: int = 0
) -> TensorInfo:
    order = [1, *range(len(shape) - 1, 1, -1), 0] if last and len(shape) > 3 else range(len(shape) - 1, -1, -1)
    stride, run = [0] * len(shape), 1
    for axis in order:
        stride[axis], run = run, run * shape[axis]
    return TensorInfo(shape, tuple(stride), dtype, device, number)


def row(name: str, inputs: list[TensorInfo], outputs: list[TensorInfo], **facts: Any) -> Row:
    return Row(name, "forward", "", "", tuple(inputs), tuple(outputs), facts)


def test_a_launch_takes_the_longer_of_bytes_and_operations() -> None:
    assert Launch("", bytes=0.9 * 4.8e12).least(H200) == pytest.approx(1.0)
    assert Launch("", bytes=8, flops=0.8 * 989e12, unit="matrix").least(H200) == pytest.approx(1.0)
    assert Launch("", flops=0.4 * 989e12, unit="tf32").least(H200) == pytest.approx(1.0)
    assert Launch("", bytes=0.9 * 4.8e12, share=0.5).likely(H200) == pytest.approx(2.0)
    assert Launch("", flops=67e12, reached=0.5).likely(H200) == pytest.approx(2.0)
    assert Launch("", cycles=1.98e9).likely(H200) == pytest.approx(1.0)


def test_a_convolution_costs_its_products_and_the_copies_to_its_layout() -> None:
    x, weight, out = tensor(2, 16, 8, 8), tensor(32, 16, 3, 3), tensor(2, 32, 8, 8)
    facts = {"transposed": False, "groups": 1}
    (launch,) = launches_of(row("convolution", [x, weight], [out], **facts))
    assert launch.flops == 2 * (2 * 8 * 8) * 16 * 32 * 9
    assert launch.bytes == 2 * (2 * 16 * 64 + 32 * 16 * 9 + 2 * 32 * 64)
    copy, same = launches_of(row("convolution", [tensor(2, 16, 8, 8, last=False), weight], [out], **facts))
    assert (copy.kind, copy.bytes, same) == ("layout", 2 * x.bytes, launch)


def test_a_convolutions_backward_is_two_products_of_the_same_size() -> None:
    x, weight, gradient = tensor(2, 16, 8, 8), tensor(32, 16, 3, 3), tensor(2, 32, 8, 8)
    found = launches_of(
        row("convolution_backward", [gradient, x, weight], [x, weight], transposed=False, groups=1,
            wanted=(True, True, False))
    )  # fmt: skip
    assert [launch.flops for launch in found] == [2 * 128 * 16 * 32 * 9] * 2


def test_a_transposed_convolution_counts_what_it_reads() -> None:
    x, weight, out = tensor(2, 16, 8, 8), tensor(16, 32, 4, 4), tensor(2, 32, 16, 16)
    (launch,) = launches_of(row("convolution", [x, weight], [out], transposed=True, groups=1))
    assert launch.flops == 2 * (2 * 8 * 8) * 16 * 32 * 16


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        (tensor(2, 8, 4, 4), tensor(2, 8, 4, 4, number=1), "copy"),
        (tensor(2, 8, 4, 4), tensor(2, 8, 4, 4, dtype="float32"), "cast"),
        (tensor(2, 8, 4, 4), tensor(2, 8, 4, 4, last=False), "layout"),
        (tensor(8, dtype="float32", device="cpu"), tensor(8, dtype="float32"), "from host"),
        (tensor(8, dtype="float32"), tensor(8, dtype="float32", device="cpu"), "to host"),
    ],
)
def test_copies_are_told_apart(source: TensorInfo, target: TensorInfo, kind: str) -> None:
    assert [launch.kind for launch in launches_of(row("_to_copy", [source], [target]))] == [kind]


def test_a_group_norm_reads_its_map_twice_and_its_gradient_too() -> None:
    x, bits = tensor(2, 32, 8, 8), tensor(2 * 4 * 64, dtype="uint8")
    numbers, parameter = tensor(2, 8, dtype="float32"), tensor(32, dtype="float32")
    none, few = tensor(0, dtype="uint8"), 1000
    plain = launches_of(row("adu_kernels::group_norm", [x, parameter, parameter], [x, numbers, numbers, none]))
    assert [round(launch.bytes / x.bytes, 1) for launch in plain] == [1, 2.0]
    summed = launches_of(row("adu_kernels::group_norm", [x, parameter, parameter, x], [x, numbers, numbers, bits]))
    assert summed[1].bytes == plain[1].bytes + x.bytes + bits.bytes
    given = [x, x, parameter, parameter, numbers, numbers]
    outputs = [x, parameter, parameter]
    sums, totals, last = launches_of(row("adu_kernels::group_norm_backward", [*given, none], [*outputs, none]))
    assert (sums.bytes, last.bytes) == (2 * x.bytes, 3 * x.bytes)
    assert totals.bytes < few
    sums, _, last = launches_of(row("adu_kernels::group_norm_backward", [*given, bits], [*outputs, x]))
    assert (sums.bytes, last.bytes) == (3 * x.bytes + bits.bytes, 3 * x.bytes)


def test_the_scores_of_a_volume_are_made_from_the_maps_and_those_of_wide_types_from_it() -> None:
    for dtype in ("bfloat16", "float32"):
        maps = [tensor(2, 32, 8, 16, dtype=dtype), tensor(2, 32, 8, 16, dtype=dtype)]
        volume, none = tensor(2, 8, 6, 8, 16, dtype=dtype), tensor(0, dtype=dtype)
        scores = tensor(2, 6, 8, 16, dtype=dtype)
        (alone,) = launches_of(row("adu_kernels::cost_volume", maps, [volume, none]))
        first, second = launches_of(row("adu_kernels::cost_volume", maps, [volume, scores]))
        assert first == alone
        assert second.bytes == scores.bytes + (2 * maps[0].bytes if dtype == "bfloat16" else volume.bytes)
    thin = [tensor(2, 4, 8, 16), tensor(2, 4, 8, 16)]
    combined = tensor(2, 16, 6, 8, 16)
    for concatenated, given in ((thin, combined), ([], volume)):
        backward = "adu_kernels::cost_volume_backward"
        (without,) = launches_of(row(backward, [given, *maps, *concatenated], maps))
        (with_them,) = launches_of(row(backward, [given, *maps, *concatenated, scores], maps))
        assert with_them.bytes == without.bytes + scores.bytes
        assert with_them.flops == without.flops


def test_multi_tensor_kernels_take_so_many_tensors_at_a_time() -> None:
    tensors = [tensor(10, dtype="float32", number=n) for n in range(200)]
    (launch,) = launches_of(row("_foreach_mul_", tensors, [], tensors=200))
    assert (launch.count, launch.bytes) == (2, 2 * 200 * 40)


LISTS = [tensor(2, 8, 4, 4, dtype="float32", number=n) for n in range(70)]
ROUNDED = [replace(t, dtype="bfloat16") for t in LISTS]


def copied(targets: list[TensorInfo], sources: list[TensorInfo]) -> list[tuple[str, int]]:
    launches = launches_of(row("_foreach_copy_", [*targets, *sources], [], tensors=len(targets)))
    assert sum(launch.bytes for launch in launches) == sum(t.bytes for t in targets + sources)
    return [(launch.kind, launch.count) for launch in launches]


def test_lists_are_copied_together_from_type_to_type_too() -> None:
    assert copied(LISTS, LISTS) == [("multi-tensor", 2)]
    assert copied(ROUNDED, LISTS) == [("cast", 2)]
    assert copied(LISTS, ROUNDED) == [("cast", 2)]
    large = [tensor(300 * 65536, dtype="float32") for _ in range(2)]
    assert copied(large, large) == [("multi-tensor", 2)], "by blocks"


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (tensor(2, 8, 4, 4, dtype="float32", last=False), "layout"),
        (tensor(2, 8, 4, 4, dtype="float16"), "cast"),
        (replace(LISTS[0], stride=(256, 1, 64, 16)), "layout"),
    ],
    ids=["another layout", "another type", "gaps"],
)
def test_a_tensor_that_is_not_like_the_others_has_all_of_a_list_copied_one_by_one(odd: TensorInfo, kind: str) -> None:
    """As ATen does it."""
    assert copied(ROUNDED, [*LISTS[1:], odd]) == [*([("cast", 1)] * 69), (kind, 1)]


def test_lists_with_gaps_are_copied_one_by_one() -> None:
    gaps = [replace(t, stride=(256, 1, 64, 16)) for t in LISTS]
    assert copied(gaps, gaps) == [("copy", 1)] * 70


def test_what_runs_on_the_host_launches_nothing() -> None:
    host = tensor(8, device="cpu")
    assert launches_of(row("mul", [host], [host])) == []


@pytest.mark.parametrize(
    ("name", "phase", "region", "group"),
    [
        ("convolution", "forward", "network/network.encoder/network.encoder.stem.conv", "encoder"),
        ("convolution", "teacher", "teacher/teacher.decoder_head", "teacher decoder head"),
        ("adu_kernels::cost_volume_backward", "backward", "network", "cost volume"),
        ("mul", "backward", "network", "between its modules"),
        ("mul", "forward", "loss/loss.adapters/loss.adapters.levels.0", "adapters"),
        ("mul", "backward", "loss", "losses"),
        ("where", "forward", "", "augmentation"),
        ("add", "backward", "accumulate", "gradients into parameters"),
        ("_foreach_mul_", "clip", "", "clip"),
        ("_foreach_copy_", "forward", "", "rounded weights"),
        ("_foreach_copy_", "backward", "", "rounded weights"),
    ],
)
def test_operations_belong_to_a_part_of_the_step(name: str, phase: str, region: str, group: str) -> None:
    assert group_of(Row(name, phase, region, "", (), ())) == group


def test_a_budget_says_in_words_what_changed() -> None:
    before = {"launches": 10, "layouts": 1, "copies": 2, "casts": 0, "saved_bytes": 5, "by_group": {"a": 8, "b": 2}}
    assert budgets.changes(before, Counts(**before)) == []  # type: ignore[arg-type]
    now = Counts(11, 1, 2, 1, 5, {"a": 8, "c": 3})
    assert budgets.changes(before, now) == [
        "launches: 11, the budget says 10 (+1)",
        "casts: 1, the budget says 0 (+1)",
        "launches of b: 2 → 0",
        "launches of c: 0 → 3",
    ]


def test_an_update_says_what_changed_and_writes_it(
    fake_cuda: FakeCudaProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(budgets, "PATH", tmp_path / "budgets.json")
    monkeypatch.setattr(budgets, "CASES", ("student alone 256×512",))
    assert budgets.update(fake_cuda)[0].startswith("student alone 256×512: new, ")
    assert budgets.update(fake_cuda)[0] == "no budget changed"
    kept = budgets.read()
    kept["steps"]["student alone 256×512"]["launches"] += 1
    budgets.PATH.write_text(json.dumps(kept))
    assert budgets.update(fake_cuda)[1].endswith("(-1)")
    assert budgets.read()["counted_with"] == budgets.versions()


def test_the_command_says_that_it_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model.json"
    StepModelReport(case=("student alone",), implementation=("kernels",), output=output).main()
    printed = capsys.readouterr().out
    assert "H200, modelled; 7.5 µs" in printed
    assert "Modelled, not measured" in printed
    kept = json.loads(output.read_text())
    (step,) = kept["steps"]
    assert kept["modelled"] is True
    assert 0 < step["least_ms"] < step["likely_ms"]
    assert step["host_ms"] == pytest.approx(step["counts"]["launches"] * 7.5e-3)
    assert sum(part["launches"] for part in step["groups"].values()) == step["counts"]["launches"]


STUDENT, TAUGHT = StudentTrainingConfig(), TeacherConfig()
REPLAYED = [
    StepCase("teacher", TeacherTrainingConfig(augmentation=EVERY_CHANGE)),
    StepCase("teacher, averages", TeacherTrainingConfig(loop=replace(TeacherTrainingConfig().loop, ema=0.999))),
    StepCase("student", STUDENT, TAUGHT),
    StepCase("student, cached outputs", STUDENT, TAUGHT, cached=True),
]


@pytest.mark.parametrize("case", REPLAYED, ids=lambda case: case.name)
def test_a_replayed_step_takes_the_host_a_millisecond_at_most(fake_cuda: FakeCudaProcess, case: StepCase) -> None:
    """Modelled. What is left are copies of the batch and the draws into their place, the rate, and the losses out."""
    rows = fake_cuda.call(trace_replay, case, "bf16")
    assert host_with_graph_ms(rows, 7.5) <= 1.0
    assert not rules.waits_for_device(rows) + rules.pageable_copies(rows)
    names = Counter(row.name for row in rows if rules.on_device(row.inputs + row.outputs))
    assert names.keys() <= {"_to_copy", "fill_", "_foreach_copy_", "copy_", "clone"}, names
    assert names["_foreach_copy_"] <= 4, "one for each type: cached outputs come in two of their own"


def test_an_unknown_case_is_refused(fake_cuda: FakeCudaProcess) -> None:
    with pytest.raises(InputError, match=r"--case: expected part of one of teacher 96×320, .*; got nothing such"):
        StepModelReport(case=("nothing such",)).run(fake_cuda)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"compiler|GPU build"):
        StepModelReport().main()
