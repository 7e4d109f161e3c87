"""Every rule for a step on a GPU sees the fault that it is there for, and none in a program that keeps them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from adu_kernels.testing.fake_cuda import rules
from adu_kernels.testing.fake_cuda.process import FakeCudaError, FakeCudaProcess
from adu_kernels.testing.fake_cuda.recorder import Row, TensorInfo
from tests.fake_cuda import planted
from tests.fake_cuda.planted import bytes_kept, keeps_every_rule


def fast_path(rows: Sequence[Row]) -> list[Row]:
    return rules.off_the_fast_path(rows, "bfloat16")


RULES: tuple[Callable[[Sequence[Row]], list[Row]], ...] = (
    rules.waits_for_device, rules.pageable_copies, rules.fp64_on_device, rules.adds_in_any_order,
    rules.volumes_copied, fast_path,
)  # fmt: skip


def broken(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Names of the rows that break each rule that is broken."""
    found = {rule.__name__: {row.name for row in rule(rows)} for rule in RULES}
    return {rule: names for rule, names in found.items() if names}


def test_a_good_program_breaks_no_rule(fake_cuda: FakeCudaProcess) -> None:
    rows = fake_cuda.call(keeps_every_rule)
    assert broken(rows) == {}
    assert {"adu_kernels::cost_volume", "convolution", "convolution_backward", "adu_kernels::cost_volume_backward"} <= {
        row.name for row in rows
    }


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("pageable", {"pageable_copies": {"_to_copy"}}),
        ("blocking", {"pageable_copies": {"_to_copy"}}),
        ("copied to the host", {"waits_for_device": {"_to_copy"}}),
        ("double precision", {"fp64_on_device": {"_to_copy", "mul"}}),
        ("reflected border", {"adds_in_any_order": {"reflection_pad1d_backward"}}),
        ("sum of what meets", {"adds_in_any_order": {"scatter_reduce"}}),
        ("largest of what meets", {}),
        ("copied volume", {"volumes_copied": {"clone"}}),
        ("copied gradient", {"volumes_copied": {"clone"}}),
        ("cast volume", {"volumes_copied": {"_to_copy"}}),
        ("contiguous volume", {"volumes_copied": {"clone"}}),
    ],
)
def test_a_planted_fault_is_seen(fake_cuda: FakeCudaProcess, fault: str, expected: dict[str, set[str]]) -> None:
    assert broken(fake_cuda.call(keeps_every_rule, fault)) == expected


@pytest.mark.parametrize("fault", ["contiguous maps", "wide maps"])
def test_maps_that_an_operation_is_slow_with_are_seen(fake_cuda: FakeCudaProcess, fault: str) -> None:
    found = broken(fake_cuda.call(keeps_every_rule, fault))
    assert "adu_kernels::cost_volume" in found["fast_path"]
    assert "volumes_copied" in found, "the volume of such maps fits the convolution neither"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("item", "DataDependentOutputException"),
        ("condition", "DataDependentOutputException"),
        ("boolean index", "DynamicOutputShapeException"),
        ("synchronize", "WaitForDevice"),
    ],
)
def test_what_needs_a_value_of_the_device_ends_the_step(fake_cuda: FakeCudaProcess, fault: str, kind: str) -> None:
    with pytest.raises(FakeCudaError, match=r"planted\.py") as caught:
        fake_cuda.call(keeps_every_rule, fault)
    assert caught.value.kind == kind


@pytest.mark.parametrize("name", planted.HIDDEN)
def test_a_copy_inside_an_operation_is_seen(fake_cuda: FakeCudaProcess, name: str) -> None:
    assert list(broken(fake_cuda.call(planted.inside_an_operation, name))) == ["pageable_copies"]


@pytest.mark.parametrize("name", planted.HIDDEN_WAITS)
def test_a_wait_inside_an_operation_is_seen(fake_cuda: FakeCudaProcess, name: str) -> None:
    assert list(broken(fake_cuda.call(planted.inside_an_operation, name))) == ["waits_for_device"]


@pytest.mark.parametrize("name", planted.NOT_HIDDEN)
def test_operations_that_copy_nothing_from_the_host(fake_cuda: FakeCudaProcess, name: str) -> None:
    rows = fake_cuda.call(planted.inside_an_operation, name)
    assert rows
    assert broken(rows) == {}


def test_a_convolution_over_another_layout_copies(fake_cuda: FakeCudaProcess) -> None:
    rows = fake_cuda.call(keeps_every_rule, "contiguous volume")
    converted = {row.name: [t.layout for t in rules.layout_conversions(row)] for row in rows}
    assert converted["convolution"] == ["contiguous"]


def test_an_unknown_operation_has_no_fast_path() -> None:
    row = Row("adu_kernels::new", "forward", "", "", (), ())
    with pytest.raises(ValueError, match="unknown operation adu_kernels::new"):
        fast_path([row])


@pytest.mark.parametrize(
    ("shape", "stride", "layout"),
    [
        ((2, 3, 4, 5), (60, 20, 5, 1), "contiguous"),
        ((2, 3, 4, 5), (60, 1, 15, 3), "channels-last"),
        ((2, 1, 4, 5), (20, 20, 5, 1), "any"),
        ((2, 3, 4, 5), (60, 20, 1, 4), "strided"),
        ((2, 3), (3, 1), "contiguous"),
        ((2, 3, 2, 2, 2), (24, 1, 12, 6, 3), "channels-last"),
    ],
)
def test_layouts_by_strides(shape: tuple[int, ...], stride: tuple[int, ...], layout: str) -> None:
    assert TensorInfo(shape, stride, "float32", "cuda", 0).layout == layout
    assert (
        TensorInfo(shape, (0, *stride[1:]), "bfloat16", "cuda", 0).bytes
        == 2 * TensorInfo((1, *shape[1:]), stride, "bfloat16", "cuda", 0).count
    )


def test_bytes_for_the_backward_are_those_of_one_forward(fake_cuda: FakeCudaProcess) -> None:
    assert fake_cuda.call(bytes_kept, 1) == fake_cuda.call(bytes_kept, 3) == 3 * 4 * 1000
