"""How a call walks through the files of its operation, watched as it runs: down once, and back once.

A way leads from the public function, or from the end of a kernel, to the start of the next kernel, or home. On it the
operation's own files are few, and it seldom turns back, which is to enter one that it has left for another. Files that
operations share are leaves: any of them may ask there, and nothing there asks back but through three doors. PyTorch's
dispatcher runs an operator, what is remembered of a layout is worked out the first time, a kernel is started.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import adu_kernels
from adu_kernels import checks
from adu_kernels._triton import runtime
from adu_kernels.cost_volume import launch, reference, table
from tests.kernels import plans
from tests.kernels.test_public_face import OPERATIONS, arguments_of

HOUSE = Path(adu_kernels.__file__).parent
MOST_FILES, MOST_TURNS = 5, 2
DOORS = {
    ("_triton/operators.py", "__call__"),  # of an operator without a gradient
    ("_triton/operators.py", "kernel"),  # of one with, where none is asked for
    ("_triton/operators.py", "forward"),  # and where one is
    ("_triton/layout.py", "remembered"),
}
"""Shared functions that call an operation's own; the third, `runtime.run`, ends a way."""


class Walk(NamedTuple):
    ways: list[list[str]]
    """The operation's own files in the order they are entered, the kernel's last; neighbours differ."""
    callers: set[tuple[str, str]]
    """Files and functions from which the operation's own were called, but for those of its own."""


def walk(operation: str, call: Callable[[], Any]) -> Walk:
    """operation: its folder. What it remembers of earlier calls is forgotten first."""
    plans.forget(operation)  # and its files are loaded: none is entered for that
    found = Walk([[]], set())
    started: list[FrameType] = []  # `runtime.run`, while it runs

    def enter(name: str) -> None:
        way = found.ways[-1]
        if way[-1:] != [name]:
            way.append(name)

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and started and frame is started[0]:
            started.clear()
            found.ways.append([_asking(frame)[0]])
        if event != "call" or started or frame.f_code.co_name.startswith("<"):
            return
        name = _file(frame.f_code)
        if frame.f_code is runtime.run.__code__:
            started.append(frame)
            enter(_file(frame.f_locals["kernel"].fn.__code__))
        elif name.startswith(f"{operation}/"):
            enter(name)
            before = _asking(frame)
            if not before[0].startswith((f"{operation}/", "outside")):
                found.callers.add(before)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def turns(way: list[str]) -> int:
    return len(way) - len(set(way))


def _asking(frame: FrameType) -> tuple[str, str]:
    """The nearest of adu_kernels' functions that it was called from, and its file."""
    above = frame.f_back
    while above is not None:
        if name := _file(above.f_code):
            return name, above.f_code.co_name
        above = above.f_back
    return "outside", ""


def _file(code: CodeType) -> str:
    """Within adu_kernels; empty for files elsewhere and for what kernels are verified with."""
    path = Path(code.co_filename)
    name = path.relative_to(HOUSE).as_posix() if path.is_relative_to(HOUSE) else ""
    return "" if name.startswith("testing/") else name


def _walk(name: str, graded: bool = False, **options: Any) -> Walk:
    """graded: whether a gradient is asked for in whatever can have one."""
    function, given = getattr(adu_kernels, name), arguments_of(name)
    for one in tree_leaves((given, options)):
        if isinstance(one, Tensor) and one.is_floating_point():
            one.requires_grad_(graded)
    return walk(function.__module__.split(".")[1], lambda: function(*given, **options, backend="triton"))


def _options(name: str) -> dict[str, Any]:
    """That lead to the longest walk."""
    return {"group_norm": {"activation": "relu", "residual": torch.rand(2, 4, 3, 5)}}.get(name, {})


@pytest.mark.parametrize("graded", [False, True], ids=["alone", "graded"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_call_goes_down_once(name: str, graded: bool) -> None:
    found = _walk(name, graded, **_options(name))
    assert len(found.ways) > 1, "no kernel was started"
    for way in found.ways:
        assert len(set(way)) <= MOST_FILES, way
        assert turns(way) <= MOST_TURNS, way
    assert found.callers <= DOORS, found.callers


def test_the_longest_is_seen_whole() -> None:
    """Of a volume from the public function to its kernel, and home."""
    assert _walk("groupwise_correlation_volume").ways == [
        ["cost_volume/op.py", "cost_volume/launch.py", "cost_volume/table.py", "cost_volume/kernels.py"],
        ["cost_volume/launch.py"],
    ]


def test_a_turn_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = table.slide_plan

    def asked_thrice(*arguments: Any) -> Any:
        for _ in range(2):
            planned(*arguments)
            launch._base_first(None, None, arguments[3])
        return planned(*arguments)

    before = _walk("groupwise_correlation_volume").ways[0]
    monkeypatch.setattr(launch, "slide_plan", asked_thrice)
    after = _walk("groupwise_correlation_volume").ways[0]
    assert turns(before) == 0
    assert turns(after) == 4 > MOST_TURNS


def test_another_file_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = table.slide_plan

    def with_the_reference(correlated: Any, *others: Any) -> Any:
        reference.concatenation_volume(*correlated, 1)
        return planned(correlated, *others)

    monkeypatch.setattr(launch, "slide_plan", with_the_reference)
    assert "cost_volume/reference.py" in _walk("groupwise_correlation_volume").ways[0]


def test_a_shared_file_that_calls_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that checks would ask the operation whose arguments it checks."""
    written = "def check_pair(*names_and_maps):\n    volume_of(names_and_maps[1], None, options)\n"
    names = {"volume_of": launch.new_volume, "options": launch.VolumeOptions(3, 2)}
    exec(compile(written, checks.__file__, "exec"), names)
    monkeypatch.setattr(checks, "check_pair", names["check_pair"])
    assert ("checks.py", "check_pair") in _walk("groupwise_correlation_volume").callers - DOORS
