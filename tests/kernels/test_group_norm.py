"""The reference of group normalisation, and what the public function refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from adu_kernels import cosine_features, group_norm, reference

pytestmark = pytest.mark.cpu


def _written_out(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, residual: Tensor, relu: bool
) -> Tensor:
    """By the definition, group by group."""
    y = torch.empty_like(x)
    each = x.shape[1] // groups
    for image in range(x.shape[0]):
        for group in range(groups):
            part = slice(group * each, (group + 1) * each)
            values = x[image, part]
            mean = values.mean()
            variance = ((values - mean) ** 2).mean()
            y[image, part] = (values - mean) / (variance + eps) ** 0.5
    wide = (1, -1) + (1,) * (x.ndim - 2)
    y = y * weight.view(wide) + bias.view(wide) + residual
    return y.clamp_min(0) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (2, 6, 2, 3, 5)])
def test_it_is_the_definition(shape: tuple[int, ...], relu: bool) -> None:
    x, residual = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    weight, bias = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    got = reference.group_norm(
        x, 3, weight, bias, 1e-3, activation="relu" if relu else "none", residual=residual
    )  # fmt: skip
    torch.testing.assert_close(got, _written_out(x, 3, weight, bias, 1e-3, residual, relu))


def test_it_is_pytorch_s() -> None:
    x, weight, bias = torch.randn(2, 8, 5, 7), torch.randn(8), torch.randn(8)
    torch.testing.assert_close(group_norm(x, 4, weight, bias), F.group_norm(x, 4, weight, bias))


def test_a_bias_without_a_weight() -> None:
    x, bias = torch.randn(2, 6, 3, 5, requires_grad=True), torch.randn(6, requires_grad=True)
    for graded in ([x, bias], [bias], [x]):
        with_ones = group_norm(x, 2, torch.ones(6), bias)
        plain = group_norm(x, 2, None, bias)
        for got, want in zip(
            torch.autograd.grad(plain.square().sum(), graded),
            torch.autograd.grad(with_ones.square().sum(), graded),
            strict=True,
        ):
            torch.testing.assert_close(got, want)


def test_one_value_per_group_is_the_bias() -> None:
    bias = torch.tensor([1.0, -2.0])
    got = group_norm(torch.randn(3, 2, 1, 1), 2, torch.ones(2), bias)
    torch.testing.assert_close(got, bias.view(1, 2, 1, 1).expand(3, 2, 1, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_and_layout_stay_whatever_autocast_says(dtype: torch.dtype) -> None:
    for shape, layout in (((2, 8, 3, 5), torch.channels_last), ((2, 8, 2, 3, 5), torch.channels_last_3d)):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16):
            y = group_norm(x, 4, torch.ones(8), torch.zeros(8), activation="relu")
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout)


LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3, -3e4])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "contiguous"])
@pytest.mark.parametrize("shape", [(2, 16, 8, 60, 90), (2, 64, 70, 110), (3, 8, 1, 5)], ids=str)
def test_nothing_cancels_on_a_cpu(shape: tuple[int, ...], last: bool, mean: float) -> None:
    """torch's own of channels-last maps is off by 1e-5 of a value at mean 1, and by 1000 at mean 1000; of contiguous
    ones by 1e-4 at mean 1000, and in the weight's gradient by 1e-3 of the largest."""
    torch.manual_seed(0)
    layout = LAST[len(shape)] if last else torch.contiguous_format
    x = (torch.randn(shape) + mean).contiguous(memory_format=layout).requires_grad_()
    parameters = [torch.randn(shape[1], requires_grad=True) for _ in range(2)]
    grad = torch.randn(shape)
    exact = [one.detach().double().contiguous().requires_grad_() for one in (x, *parameters)]
    for got, want in zip(_both(grad, [x, *parameters]), _both(grad.double(), exact), strict=True):
        largest = want.abs().max().item()
        bound = 1e-6 if last else 1e-5  # torch sums up a weight's gradient of contiguous maps
        torch.testing.assert_close(got.double(), want, rtol=0, atol=bound * max(4.0, largest))


@pytest.mark.parametrize("part", ["every other column", "crop", "channels"])
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_parts_of_channels_last_maps(part: str, mean: float) -> None:
    """They lie neither way: torch would take its channels-last sums, and crash at the parameters' gradients alone."""
    torch.manual_seed(0)
    whole = (torch.randn(2, 24, 40, 60) + mean).contiguous(memory_format=torch.channels_last)
    x = {"every other column": whole[..., ::2], "crop": whole[:, :, 3:31, 5:50], "channels": whole[:, 4:16]}[part]
    parameters = [torch.randn(x.shape[1], requires_grad=True) for _ in range(2)]
    exact = [one.detach().double().requires_grad_() for one in parameters]
    y, want = (reference.group_norm(at, 4, *of) for at, of in ((x, parameters), (x.double().contiguous(), exact)))
    torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-5)
    grad = torch.randn(x.shape)
    found = torch.autograd.grad(y, parameters, grad)
    for got, of in zip(found, torch.autograd.grad(want, exact, grad.double()), strict=True):
        torch.testing.assert_close(got.double(), of, rtol=0, atol=1e-5 * of.abs().max().item())


@pytest.mark.parametrize(("mean", "bound"), [(0.0, 3e-6), (0.7, 3e-6), (1.0, 3e-6), (1.45, 1e-5), (6.0, 3e-6)])
@pytest.mark.parametrize("shape", [(2, 32, 24, 80), (2, 64, 2048, 1), (2, 8, 8, 16, 16)], ids=str)
def test_what_torch_adds_up_is_exact_enough(shape: tuple[int, ...], mean: float, bound: float) -> None:
    """The most positions whose sums are torch's own, and the largest means that are not taken away, and one that is."""
    torch.manual_seed(0)
    x = (torch.randn(shape) + mean).contiguous(memory_format=LAST[len(shape)]).requires_grad_()
    parameters = [torch.randn(shape[1], requires_grad=True) for _ in range(2)]
    grad = torch.randn(shape)
    exact = [one.detach().double().contiguous().requires_grad_() for one in (x, *parameters)]
    for got, want in zip(_both(grad, [x, *parameters]), _both(grad.double(), exact), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=bound * max(4.0, want.abs().max().item()))


SIZES = pytest.mark.parametrize("size", [(5, 6), (60, 70), (2, 5, 6), (4, 30, 40)], ids=str)
"""Of maps that torch adds up, and of larger ones."""


@SIZES
def test_an_image_has_the_same_bits_in_every_batch(size: tuple[int, ...]) -> None:
    """Also where another image has a mean that is taken away first, and where it lies as a part of its batch."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, *size).contiguous(memory_format=LAST[2 + len(size)])
    x[1] += 50.0
    parameters, grad = [torch.randn(8) for _ in range(2)], torch.randn_like(x)

    def run(part: slice) -> tuple[Tensor, ...]:
        values = x[part].requires_grad_()
        y = reference.group_norm(values, 2, *parameters)
        return y.detach(), *torch.autograd.grad(y, values, grad[part])

    together = run(slice(None))
    for image in range(3):
        for one, among in zip(run(slice(image, image + 1)), together, strict=True):
            assert torch.equal(one[0], among[image])


@SIZES
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_a_bias_alone(size: tuple[int, ...], mean: float) -> None:
    x = (torch.randn(2, 8, *size) + mean).contiguous(memory_format=LAST[2 + len(size)]).requires_grad_()
    bias, grad = torch.randn(8, requires_grad=True), torch.randn_like(x)
    found = torch.autograd.grad(reference.group_norm(x, 2, None, bias), [x, bias], grad)
    want = torch.autograd.grad(reference.group_norm(x, 2, torch.ones(8), bias), [x, bias], grad)
    for one, other in zip(found, want, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(found[1], grad.sum((0, *range(2, x.ndim))), rtol=0, atol=1e-4)


@SIZES
@pytest.mark.parametrize("channels", [1, 8])
def test_parameters_alone_of_any_strides(size: tuple[int, ...], channels: int) -> None:
    """torch's own ends the program where a map is taken as channels-last; axes of one element have any stride."""
    torch.manual_seed(0)
    layout = LAST[2 + len(size)]
    batch = (torch.randn(4, channels, *size) + 3.0).contiguous(memory_format=layout)
    line = torch.randn(2, channels, *size[:-1], 1).contiguous(memory_format=layout)
    for x in (batch, batch[1][None], batch[::2, :, :1], line, batch[:, :, :, :1], batch[:, :, 1:2, 2:]):
        given = x.detach().as_strided(x.shape, x.stride(), x.storage_offset()).requires_grad_()
        weight, bias = (torch.randn(channels, requires_grad=True) for _ in range(2))
        exact = [one.detach().double().requires_grad_() for one in (weight, bias)]
        y = reference.group_norm(given, 1, weight, bias)
        want = torch.group_norm(x.double().contiguous(), 1, *exact, 1e-5)
        lies = [[step for step, length in zip(one.stride(), x.shape, strict=True) if length > 1] for one in (y, x)]
        assert lies[0] == lies[1] or not (x.is_contiguous() or x.is_contiguous(memory_format=layout))
        grad = torch.randn(y.shape)
        found = torch.autograd.grad(y, [weight, bias], grad)
        for got, of in zip(found, torch.autograd.grad(want, exact, grad.double()), strict=True):
            torch.testing.assert_close(got.double(), of, rtol=0, atol=1e-5 * max(4.0, of.abs().max().item()))


@SIZES
@pytest.mark.parametrize("value", [0.0, 1e-3, 2.5, -1e4])
def test_equal_values_are_the_bias(size: tuple[int, ...], value: float) -> None:
    """And not what rounding leaves of them, times 1 / √eps."""
    x = torch.full((2, 8, *size), value).contiguous(memory_format=LAST[2 + len(size)])
    torch.testing.assert_close(reference.group_norm(x, 2), torch.zeros_like(x), rtol=0, atol=1e-6)


@SIZES
def test_spreads_that_eps_rules(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (1e-4 * torch.randn(2, 8, *size) + 0.02).contiguous(memory_format=LAST[2 + len(size)]).requires_grad_()
    exact, grad = x.detach().double().requires_grad_(), torch.randn(x.shape)
    y, want = reference.group_norm(x, 2), reference.group_norm(exact, 2)
    torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-6)
    found, of = torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(want, exact, grad.double())[0]
    torch.testing.assert_close(found.double(), of, rtol=0, atol=1e-6 * of.abs().max().item())


@SIZES
def test_what_hooks_give_back_may_lie_otherwise(size: tuple[int, ...]) -> None:
    """As a copy that was kept elsewhere, or in a file, may."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, *size).contiguous(memory_format=LAST[2 + len(size)]).requires_grad_()
    weight, grad = torch.randn(8, requires_grad=True), torch.randn_like(x)
    want = torch.autograd.grad(reference.group_norm(x, 2, weight), [x, weight], grad)
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept.contiguous(), lambda kept: kept):
        y = reference.group_norm(x, 2, weight)
    for one, other in zip(torch.autograd.grad(y, [x, weight], grad), want, strict=True):
        torch.testing.assert_close(one, other)


def test_a_mean_of_a_million_spreads() -> None:
    """Where torch's own sums lose most: many channels in a group."""
    torch.manual_seed(0)
    x = (torch.randn(2, 64, 31, 33) + 1e6).contiguous(memory_format=torch.channels_last)
    want = reference.group_norm(x.double(), 2)
    torch.testing.assert_close(reference.group_norm(x, 2).double(), want, rtol=0, atol=1e-4)


@SIZES
def test_what_is_recorded_holds_for_other_values(size: tuple[int, ...]) -> None:
    """A trace of values whose mean is small is right for those whose mean is large, to the bit."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, *size).contiguous(memory_format=LAST[2 + len(size)])
    far = x * 0.5 + 100.0

    def run(x: Tensor) -> Tensor:
        return reference.group_norm(x, 2)

    made = (make_fx(run)(x), make_fx(run, tracing_mode="fake")(x), make_fx(run, pre_dispatch=True)(x))
    for recorded in (torch.jit.trace(run, x), *made):
        for values in (x, far):
            assert torch.equal(recorded(values), run(values))
    with FakeTensorMode() as mode:
        shape = run(mode.from_tensor(x))
    assert (shape.shape, shape.stride()) == (x.shape, x.stride())


def test_compiled_for_the_parameters_alone() -> None:
    """torch's own crashes there."""
    x = torch.randn(2, 6, 8, 10).contiguous(memory_format=torch.channels_last)
    parameters = [torch.randn(6, requires_grad=True) for _ in range(2)]

    def run(*parameters: Tensor) -> Tensor:
        return reference.group_norm(x, 2, *parameters)

    y = torch.compile(run, backend="aot_eager")(*parameters)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, run(*parameters))
    torch.testing.assert_close(*(torch.autograd.grad(one.square().sum(), parameters) for one in (y, run(*parameters))))


@pytest.mark.parametrize("mean", [0.0, 1e3, -3e4])
def test_the_gradient_that_is_differentiated_is_the_same(mean: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 16, 70, 110) + mean).contiguous(memory_format=torch.channels_last).requires_grad_()
    given = [x, *(torch.randn(16, requires_grad=True) for _ in range(2))]
    y, grad = reference.group_norm(x, 4, *given[1:]), torch.randn(x.shape)
    once, again = (torch.autograd.grad(y, given, grad, retain_graph=True, create_graph=more) for more in (False, True))
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * max(4.0, one.abs().max().item()))
    _, pull = torch.func.vjp(lambda x: reference.group_norm(x, 4, *given[1:]), x)
    torch.testing.assert_close(pull(grad)[0], again[0])


def test_a_large_mean_of_features_does_not_cancel() -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, 32, 9, 13) + 1e4).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, want, grad = cosine_features(x), cosine_features(exact), torch.randn(x.shape)
    torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-5)
    found, of = torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(want, exact, grad.double())[0]
    torch.testing.assert_close(found.double(), of, rtol=0, atol=1e-5)


def _both(grad: Tensor, given: list[Tensor]) -> list[Tensor]:
    y = reference.group_norm(given[0], 4, *given[1:])
    return [y, *torch.autograd.grad(y, given, grad)]


@pytest.mark.parametrize("given", ["all", "no weight", "no bias", "neither"])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "contiguous"])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 6, 2, 3, 2)], ids=str)
def test_gradients_of_gradients(shape: tuple[int, ...], last: bool, given: str) -> None:
    torch.manual_seed(0)
    layout = LAST[len(shape)] if last else torch.contiguous_format
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    missing = {"all": (), "no weight": (0,), "no bias": (1,), "neither": (0, 1)}[given]
    kept = [one for n, one in enumerate((weight, bias)) if n not in missing]

    def run(x: Tensor, *rest: Tensor) -> Tensor:
        left = iter(rest)
        scale, shift = (None if n in missing else next(left) for n in range(2))
        return reference.group_norm(x, 2, scale, shift, 1e-2)

    assert x.is_contiguous() != last
    assert torch.autograd.gradcheck(run, (x, *kept))
    assert torch.autograd.gradgradcheck(run, (x, *kept))


def test_what_is_not_asked_for_is_not_made() -> None:
    """Of channels-last maps: the parameters' gradients alone, at which torch 2.13's own crashes; and none at all."""
    x = torch.randn(2, 6, 3, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(6, requires_grad=True) for _ in range(2))
    alone = torch.autograd.grad(group_norm(x, 2, weight, bias).square().sum(), [weight, bias])
    plain = torch.autograd.grad(group_norm(x.contiguous(), 2, weight, bias).square().sum(), [weight, bias])
    torch.testing.assert_close(alone, plain)
    assert not group_norm(x, 2, weight.detach(), bias.detach()).requires_grad


X = torch.randn(2, 6, 3, 5, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cosine_features_are_normalised_by_image_then_by_pixel(dtype: torch.dtype) -> None:
    """As instance norm and unit length make them; dtype and layout stay, so the volume takes its fast layout."""
    torch.manual_seed(0)
    maps = (3 * torch.randn(2, 12, 9, 7) + 1).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    same = maps.detach().double().requires_grad_()
    features = cosine_features(maps)
    expected = F.normalize(F.instance_norm(same), dim=1) * 12**0.5
    assert features.dtype == dtype
    assert features.is_contiguous(memory_format=torch.channels_last)
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(features.double(), expected, **near)
    upstream = torch.randn(2, 12, 9, 7, dtype=torch.float64)
    features.backward(upstream.to(dtype))
    expected.backward(upstream.to(dtype).double())
    torch.testing.assert_close(maps.grad.double(), same.grad, **near)  # type: ignore[union-attr, arg-type]
    assert cosine_features(torch.zeros(1, 4, 3, 3)).eq(0).all()


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (TypeError, "x: expected a tensor B×C×H×W or B×C×D×H×W, got list", ([1.0], 1), {}),
        (ValueError, "x: expected B×C×H×W or B×C×D×H×W, got 6×3×5", (X[0], 1), {}),
        (TypeError, "x: expected a floating-point tensor", (X.int(), 1), {}),
        (ValueError, "x: expected at least one element per dimension", (X[:0], 1), {}),
        (ValueError, "num_groups: expected a divisor of x's 6 channels, got 4", (X, 4), {}),
        (ValueError, "num_groups: expected a whole number ≥ 1, got 0", (X, 0), {}),
        (ValueError, "weight: expected one value per channel of x, 6, got 5", (X, 2, torch.ones(5, device="cpu")), {}),
        (ValueError, "bias: expected C, got 6×1", (X, 2, None, torch.ones(6, 1, device="cpu")), {}),
        (ValueError, r"eps: expected a finite number in \[0.0, inf\], got -1", (X, 2, None, None, -1.0), {}),
        (ValueError, "activation: expected one of 'none', 'relu', got 'gelu'", (X, 2), {"activation": "gelu"}),
        (ValueError, "residual: expected the shape of x, 2×6×3×5, got 2×6×3×4", (X, 2), {"residual": X[..., :4]}),
    ],
)
def test_what_is_refused(error: type[Exception], message: str, arguments: tuple, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        group_norm(*arguments, **options)
