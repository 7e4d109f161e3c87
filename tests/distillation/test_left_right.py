"""The left–right check by hand, on rendered scenes with the truth of both views, and the pair in a mirror."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_depth.data import SyntheticStereo
from adu_depth.data.pair_augmentation import mirror_pair
from adu_depth.data.sample import collate
from adu_depth.data.synthetic.render import Renderer
from adu_depth.distillation.left_right import left_right_consistent, mirrored_views
from adu_depth.errors import InputError
from adu_depth.geometry import Camera

NAN, INF = float("nan"), float("inf")


def row(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def checked(left: Tensor, right: Tensor, **tolerance: float) -> list[bool]:
    return left_right_consistent(left, right, **tolerance).flatten().tolist()


def test_by_hand() -> None:
    """Columns 2 to 5 look at 0, 1, 2.4 → 2 and 1.4 → 1 of the right view."""
    left = row(1.0, 2.0, 2.0, 2.0, 1.6, 3.6)
    assert checked(left, row(3.0, 3.1, 2.7, 9.0, 9.0, 9.0)) == [False, False, True, False, False, True]
    assert checked(left, row(3.0, 3.1, 2.6, 9.0, 9.0, 9.0)) == [False, False, True, False, True, True]


def test_a_far_and_a_near_surface_are_held_to_their_own_tolerances() -> None:
    """One pixel up to a disparity of 20, a twentieth of it beyond."""
    left = torch.zeros(1, 1, 1, 64)
    left[..., 60:] = torch.tensor([10.0, 10.0, 40.0, 40.0])
    right = torch.zeros(1, 1, 1, 64)
    right[..., [50, 51, 22, 23]] = torch.tensor([11.0, 11.1, 42.0, 38.0 - 0.1])
    assert checked(left, right)[60:] == [True, False, True, False]
    assert checked(left, right, pixels=2.0, share=0.1)[60:] == [True, True, True, True]
    assert checked(left, right, pixels=0.0, share=0.0)[60:] == [False, False, False, False]


def test_what_is_no_number_fails_and_nothing_else_with_it() -> None:
    right = row(1.0, NAN, INF, 1.0, 1.0, 1.0)
    assert checked(row(NAN, 1.0, 1.0, 1.0, INF, -INF), right) == [False, True, False, False, False, False]
    assert checked(row(0.0, 0.0, 1.0, INF, 1.0, 1.0), right) == [True, False, False, False, True, True]


def test_a_point_outside_the_right_view_fails_at_either_end() -> None:
    """Where a rig's principal points differ, a disparity may be negative."""
    assert checked(row(0.4, -0.4, -0.4), row(0.4, -0.4, -0.4)) == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same_column(dtype: torch.dtype) -> None:
    """Column 1001 − 2 is not a number that bf16 has."""
    left, right = torch.full((1, 1, 1, 1024), 2.0), torch.full((1, 1, 1, 1024), 9.0)
    right[..., 999] = 2.0
    assert checked(left.to(dtype), right.to(dtype)) == [column == 1001 for column in range(1024)]


def test_it_carries_no_gradient() -> None:
    left, right = (torch.rand(1, 1, 2, 8, requires_grad=True) for _ in range(2))
    assert not left_right_consistent(left, right).requires_grad


def truth_of_both(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Disparities of the left and right view of a rendered street, which left pixels the right view cannot see, and
    which right pixels' columns the left view shows."""
    scenes = SyntheticStereo(1, 96, 192, seed)
    sample = collate([scenes[0]])
    street = scenes._street(0)
    renderer = Renderer([street], 96, 192, torch.device("cpu"))
    inverse, _ = renderer.nearest(np.array([[float(street.rig.camera.baseline), 0.0, 0.0]]))
    right = renderer.grid.to_image(inverse * renderer.facts["baseline"] * renderer.facts["fx"]).unsqueeze(1)
    assert sample.occluded is not None
    return sample.disparity, right, sample.occluded, sample.valid


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_a_rendered_street_the_occluded_fails_and_the_rest_passes(seed: int) -> None:
    """With the true disparities of both views; thin things and edges, where the nearest column may be the neighbour's,
    are the few exceptions. What hides a point by less than the tolerance, as a kerb its road, cannot be told."""
    left, right, occluded, valid = truth_of_both(seed)
    passes = left_right_consistent(left, right)
    assert passes[valid & ~occluded].float().mean() > 0.97
    columns = torch.arange(192) - left
    nearer = right.gather(-1, columns.round().clamp(0, 191).long()) - left
    hidden = occluded & ((columns < 0) | (nearer > 2))
    assert int(hidden.sum()) > 300
    assert not passes[hidden].any()
    assert passes[occluded].float().mean() < 0.15


def test_the_pair_in_a_mirror_is_the_flipped_pair() -> None:
    sample = collate([SyntheticStereo(1, 32, 64)[0]])
    assert sample.right is not None
    flipped = mirror_pair(sample, torch.tensor([True]))
    left, right = mirrored_views(sample.left, sample.right)
    assert torch.equal(left, flipped.left)
    assert torch.equal(right, flipped.right)  # type: ignore[arg-type]
    assert torch.equal(sample.camera.pair_mirrored(64).cx, flipped.camera.cx)  # type: ignore[arg-type]
    again = mirrored_views(left, right)
    assert torch.equal(again[0], sample.left)
    assert torch.equal(again[1], sample.right)


def test_the_mirrored_pairs_camera_is_the_right_one() -> None:
    """Its principal point is the right view's, mirrored; the offset between the two stays."""
    camera = Camera(fx=100.0, fy=90.0, cx=30.0, cy=20.0, baseline=0.5, disparity_offset=4.0)
    assert camera.pair_mirrored(96) == Camera(100.0, 90.0, 61.0, 20.0, 0.5, 4.0)
    assert camera.pair_mirrored(96).pair_mirrored(96) == camera


def test_what_is_given_wrong_is_named() -> None:
    maps, views = torch.zeros(2, 1, 4, 8), torch.zeros(2, 3, 4, 8)
    with pytest.raises(InputError, match=r"disparity: expected a B×1×H×W floating-point tensor, got \(2, 3, 4, 8\)"):
        left_right_consistent(views, maps)
    with pytest.raises(InputError, match=r"right_disparity: expected a B×1×H×W floating-point tensor.*int64"):
        left_right_consistent(maps, maps.long())
    with pytest.raises(InputError, match=r"right_disparity: expected the shape of disparity"):
        left_right_consistent(maps, maps[:1])
    with pytest.raises(InputError, match="pixels: expected a number of at least 0, got -1"):
        left_right_consistent(maps, maps, pixels=-1)
    with pytest.raises(InputError, match="share: expected a number of at least 0, got nan"):
        left_right_consistent(maps, maps, share=NAN)
    with pytest.raises(InputError, match=r"right: expected the left view's shape"):
        mirrored_views(views, views[..., 1:])
    with pytest.raises(InputError, match=r"left: expected a B×3×H×W"):
        mirrored_views(maps, views)
