"""What launches remember of how tensors lie."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from adu_kernels._triton import layout

pytestmark = pytest.mark.cpu


def test_a_plan_is_made_once_for_tensors_that_lie_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []

    @layout.by_layout
    def plan(maps: Sequence[Tensor | None], tile: int, *, backward: bool = False) -> tuple[int, ...]:
        made.append(tuple(maps[0].shape) if maps[0] is not None else ())
        return (*made[-1], tile, backward)

    x = torch.zeros(2, 4, 6)
    expected = plan([x, None], 8)
    assert plan([torch.ones(2, 4, 6), None], 8) == expected
    assert plan((x.clone(), None), 8) == expected  # a tuple or a list: what a launch makes of either is one
    assert len(made) == 1
    others = [
        ([x.double(), None], 8),
        ([x.transpose(0, 1), None], 8),
        ([x.transpose(0, 1).contiguous().transpose(0, 1), None], 8),
        ([x[:, :, :3], None], 8),
        ([x, x], 8),
        ([x, None], 16),
    ]
    for arguments in others:
        plan(*arguments)
    plan([x, None], 8, backward=True)
    assert len(made) == 1 + len(others) + 1
    monkeypatch.setattr(layout, "MOST_LAYOUTS", 1)
    plan([None], 8)
    assert plan([x, None], 8) == expected
    assert len(made) == 1 + len(others) + 3  # forgotten in between
