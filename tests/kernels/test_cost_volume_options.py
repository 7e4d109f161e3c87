"""The options of the cost volumes: each row of what published networks compute, against its own few-line definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adu_kernels import combined_volume, concatenation_volume, correlation_volume, groupwise_correlation_volume

pytestmark = pytest.mark.cpu

SHAPE = (2, 6, 3, 7)
D = 5


def _pair(*shape: int) -> tuple[Tensor, Tensor]:
    left, right = (torch.randn(shape or SHAPE, dtype=torch.float64).requires_grad_() for _ in range(2))
    return left, right


def _every_disparity(pixelwise: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """pixelwise(left, right moved d columns to the right), 0 where w < d, stacked as dimension 2."""
    slabs = []
    for d in range(D):
        moved = torch.zeros_like(right)
        moved[..., d:] = right[..., : max(right.shape[-1] - d, 0)]
        partner = (torch.arange(right.shape[-1]) >= d).to(right.dtype)
        slabs.append(pixelwise(left, moved) * partner)
    return torch.stack(slabs, 2)


def _groups(x: Tensor) -> Tensor:
    return x.unflatten(1, (3, 2))


def _gwcnet(a: Tensor, b: Tensor) -> Tensor:
    return (_groups(a) * _groups(b)).mean(2)


def _foundation_stereo(a: Tensor, b: Tensor) -> Tensor:
    return (F.normalize(_groups(a), dim=2) * F.normalize(_groups(b), dim=2)).sum(2)


def _acvnet(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x / (torch.linalg.vector_norm(x, dim=2, keepdim=True) + 1e-5) for x in (_groups(a), _groups(b)))
    return (a * b).mean(2)


def _whole_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (_groups(F.normalize(a, dim=1)) * _groups(F.normalize(b, dim=1))).sum(2)


def _raft(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bchw,bchw->bhw", a, b)[:, None] / SHAPE[1] ** 0.5


FIELD = {
    "GwcNet": (_gwcnet, lambda a, b: groupwise_correlation_volume(a, b, D, 3)),
    "FoundationStereo": (
        _foundation_stereo,
        lambda a, b: groupwise_correlation_volume(a, b, D, 3, normalize="group", reduction="sum"),
    ),
    "ACVNet": (
        _acvnet,
        lambda a, b: groupwise_correlation_volume(a, b, D, 3, normalize="group", eps=1e-5, eps_rule="add"),
    ),
    "cosine over all channels": (
        _whole_cosine,
        lambda a, b: groupwise_correlation_volume(a, b, D, 3, normalize="all", reduction="sum"),
    ),
    "AANet": (lambda a, b: (a * b).mean(1, keepdim=True), lambda a, b: correlation_volume(a, b, D)),
    "IGEV": (lambda a, b: (a * b).sum(1, keepdim=True), lambda a, b: correlation_volume(a, b, D, reduction="sum")),
    "RAFT and unimatch": (_raft, lambda a, b: correlation_volume(a, b, D, reduction="sqrt")),
    "cosine": (
        lambda a, b: F.cosine_similarity(a, b, dim=1)[:, None],
        lambda a, b: correlation_volume(a, b, D, normalize="all", reduction="sum"),
    ),
    "PSMNet, GwcNet, CFNet, OpenStereo": (
        lambda a, b: torch.cat((a, b), 1),
        lambda a, b: concatenation_volume(a, b, D),
    ),
}


@pytest.mark.parametrize("name", FIELD)
def test_a_published_volume_and_its_gradients(name: str) -> None:
    pixelwise, ours = FIELD[name]
    left, right = _pair()
    expected = _every_disparity(pixelwise, left, right)
    got = ours(left, right)
    got = got.unsqueeze(1) if got.dim() == 4 else got
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    upstream = torch.randn_like(expected)
    want = torch.autograd.grad(expected, (left, right), upstream)
    have = torch.autograd.grad(got, (left, right), upstream)
    torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-11)


def test_left_half_kept() -> None:
    """IGEV, ACVNet, FoundationStereo: the left features stand at every disparity, the right ones are 0 where w < d."""
    left, right = _pair()
    volume = concatenation_volume(left, right, D, mask_left=False)
    assert torch.equal(volume[:, :6], left.unsqueeze(2).expand(-1, -1, D, -1, -1))
    assert torch.equal(volume[:, 6:], concatenation_volume(left, right, D)[:, 6:])
    (gradient,) = torch.autograd.grad(volume[:, :6].sum(), left)
    assert gradient.unique().tolist() == [D]


CORRELATION_OPTIONS = [
    {},
    {"normalize": "group", "reduction": "sum"},
    {"normalize": "all", "eps_rule": "add", "eps": 1e-3, "reduction": "sqrt"},
]


@pytest.mark.parametrize("options", CORRELATION_OPTIONS)
def test_right_view_is_the_sheared_left_one(options: dict) -> None:
    left, right = _pair()
    both = [combined_volume(left, right, left, right, D, 3, view=view, **options) for view in ("left", "right")]
    for d in range(D):
        kept = SHAPE[-1] - d
        torch.testing.assert_close(both[1][:, :, d, :, :kept], both[0][:, :, d, :, d:])
        assert not both[1][:, :, d, :, kept:].any()


def test_right_view_keeps_its_own_half() -> None:
    left, right = _pair()
    volume = concatenation_volume(left, right, D, mask_left=False, view="right")
    assert torch.equal(volume[:, 6:], right.unsqueeze(2).expand(-1, -1, D, -1, -1))
    assert torch.equal(volume[:, :6], concatenation_volume(left, right, D, view="right")[:, :6])


@pytest.mark.parametrize("view", ["left", "right"])
@pytest.mark.parametrize("options", CORRELATION_OPTIONS)
def test_gradcheck(options: dict, view: str) -> None:
    left, right = _pair(1, 4, 1, 3)

    def volume(a: Tensor, b: Tensor) -> Tensor:
        return combined_volume(a, b, a[:, :1], b[:, :1], 4, 2, view=view, mask_left=False, **options)

    assert torch.autograd.gradcheck(volume, (left, right))


@pytest.mark.parametrize("normalize", ["group", "all"])
def test_a_zero_vector_correlates_with_nothing(normalize: str) -> None:
    left, right = torch.ones(1, 4, 1, 2), torch.ones(1, 4, 1, 2)
    left[..., 0] = 0
    left.requires_grad_()
    volume = groupwise_correlation_volume(left, right, 1, 2, normalize=normalize)
    assert volume[..., 0].flatten().tolist() == [0.0, 0.0]
    volume.sum().backward()
    assert left.grad is not None
    assert left.grad[..., 0].flatten().tolist() == [0.0] * 4


def test_a_zero_vector_under_the_added_eps_has_the_slope_one_over_eps() -> None:
    left, right = torch.zeros(1, 2, 1, 1, requires_grad=True), torch.ones(1, 2, 1, 1)
    correlation_volume(left, right, 1, normalize="all", reduction="sum", eps=0.5, eps_rule="add").sum().backward()
    assert left.grad is not None
    torch.testing.assert_close(left.grad, torch.full_like(left, 2 / (2**0.5 + 0.5)))


X = torch.zeros(1, 4, 2, 3, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "normalize: expected one of 'none', 'group', 'all', got 'l2'", {"normalize": "l2"}),
        (ValueError, "reduction: expected one of 'mean', 'sum', 'sqrt', got 'max'", {"reduction": "max"}),
        (ValueError, "view: expected one of 'left', 'right', got 'top'", {"view": "top"}),
        (ValueError, "eps_rule: expected one of 'max', 'add', got 'clamp'", {"eps_rule": "clamp"}),
        (ValueError, "eps: expected a finite number .*, got 0", {"eps": 0.0}),
        (TypeError, "eps: expected a finite number .*, got '1'", {"eps": "1"}),
        (TypeError, "mask_left: expected True or False, got 1", {"mask_left": 1}),
    ],
)
def test_bad_options_are_named(error: type[Exception], message: str, options: dict) -> None:
    with pytest.raises(error, match=message):
        combined_volume(X, X, X, X, 2, 2, **options)
