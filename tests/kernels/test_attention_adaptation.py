"""Attention against hand-computed cases, torch's own, closed keys, and fp64 gradcheck; what "auto" takes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adu_kernels import attention_adaptation
from adu_kernels.attention_adaptation import launch, op, table
from adu_kernels.attention_adaptation.table import LibraryFaster

pytestmark = pytest.mark.cpu

INF = float("inf")


def _tokens(dtype: torch.dtype = torch.float64, queries: int = 5, keys: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.randn(2, 3, queries, 2, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, keys, 2, dtype=torch.float64)
    return tuple(t.to(dtype).requires_grad_() for t in (q, k, v))  # type: ignore[return-value]


def test_by_hand() -> None:
    query = torch.tensor([[[[1.0]]]])
    key = torch.tensor([0.0, math.log(3.0)]).view(1, 1, 2, 1)
    value = torch.tensor([0.0, 8.0]).view(1, 1, 2, 1)
    torch.testing.assert_close(attention_adaptation(query, key, value).item(), 6.0)
    torch.testing.assert_close(attention_adaptation(query, key, value, softmax_scale=0.0).item(), 4.0)
    bias = torch.tensor([[math.log(3.0), 0.0]])
    torch.testing.assert_close(attention_adaptation(query, key, value, bias).item(), 4.0)


def test_default_scale_is_one_over_the_root_of_the_width() -> None:
    q, k, v = _tokens()
    assert torch.equal(attention_adaptation(q, k, v), attention_adaptation(q, k, v, softmax_scale=2**-0.5))


@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_torchs_attention(with_bias: bool) -> None:
    q, k, v = _tokens()
    bias = torch.tensor([[0.5, -1.0, 2.0, 0.0], [-INF, 0.0, -INF, 1.0]], dtype=torch.float64) if with_bias else None
    mask = None if bias is None else bias[:, None, None, :].expand(2, 3, 5, 4)
    torch.testing.assert_close(attention_adaptation(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, mask))


def test_gradcheck() -> None:
    q, k, v = _tokens()
    bias = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention_adaptation, (q, k, v))
    assert torch.autograd.gradcheck(lambda *a: attention_adaptation(*a, softmax_scale=0.7), (q, k, v, bias))


def test_gradcheck_with_closed_keys() -> None:
    q, k, v = _tokens()
    bias = torch.tensor([[0.5, -INF, 2.0, 0.0], [-INF] * 4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: attention_adaptation(*a, bias), (q, k, v))


def test_all_keys_closed_gives_zero_and_zero_gradients() -> None:
    q, k, v = _tokens(torch.float32)
    bias = torch.tensor([[0.0] * 4, [-INF] * 4], requires_grad=True)
    out = attention_adaptation(q, k, v, bias)
    assert torch.count_nonzero(out[1]) == 0
    assert torch.equal(out[0], attention_adaptation(q[:1], k[:1], v[:1])[0])
    grads = torch.autograd.grad(out.sum(), (q, k, v, bias))
    for grad in grads:
        assert torch.count_nonzero(grad[1]) == 0
        assert grad[0].isfinite().all()


@pytest.mark.parametrize("garbage", [float("nan"), INF, -INF, 1e30])
def test_garbage_in_a_closed_key_changes_no_bit(garbage: float) -> None:
    bias = torch.tensor([[0.0, -INF, 0.3, 0.0], [-INF] * 4])
    clean = _tokens(torch.float32)
    dirty = tuple(t.detach().clone() for t in clean)
    for t in dirty[1:]:
        t[0, :, 1] = garbage
        t[1] = garbage
    results = []
    for tokens in (clean, dirty):
        leaves = [t.detach().requires_grad_() for t in tokens]
        out = attention_adaptation(*leaves, bias)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_a_bias_of_nan_is_not_hidden() -> None:
    q, k, v = _tokens(torch.float32)
    assert attention_adaptation(q, k, v, torch.tensor([[0.0, INF * 0, 0, 0], [0.0] * 4]))[0].isnan().all()


def test_large_scores_do_not_overflow() -> None:
    q, k, v = (1e4 * t.detach() for t in _tokens(torch.float32))
    assert attention_adaptation(q, k, v).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_rounded_once(dtype: torch.dtype) -> None:
    q, k, v = _tokens(dtype, queries=9, keys=33)
    out = attention_adaptation(q, k, v)
    exact = attention_adaptation(q.double(), k.double(), v.double())
    assert out.dtype == dtype
    assert ((out.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps / 2 * 1.01 + 1e-6).all()


def test_autocast_changes_no_bit() -> None:
    q, k, v = _tokens(torch.float32)
    expected = attention_adaptation(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        got = attention_adaptation(q, k, v)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


X = torch.zeros(2, 3, 5, 4, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "query: expected B×heads×N×d, got 3×5×4", lambda: attention_adaptation(X[0], X, X)),
        (ValueError, "key: expected 2×3×M×4 like query, got 2×2×5×4", lambda: attention_adaptation(X, X[:, 1:], X)),
        (ValueError, "value: .*key, 2×3×5×4, got 2×3×4×4", lambda: attention_adaptation(X, X, X[:, :, 1:])),
        (TypeError, "value: .*torch.float32, got torch.float16", lambda: attention_adaptation(X, X, X.half())),
        (ValueError, "key_bias: expected B×M, 2×5, got 2×4", lambda: attention_adaptation(X, X, X, X[:, 0, 0])),
        (TypeError, "key_bias: .*torch.bool", lambda: attention_adaptation(X, X, X, X[:, 0, :, 0] > 0)),
        (ValueError, "softmax_scale: .*got nan", lambda: attention_adaptation(X, X, X, None, float("nan"))),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()


ROW = LibraryFaster(
    "cpu", torch.float32, 2, queries=(4, 6), keys=(4, 4), gradients=True, ours=20.0, library=10.0, result="a test"
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which implementation "auto" takes on a GPU, per call."""
    seen: list[str] = []

    def named(name: str) -> object:
        return lambda query, *_, **__: (seen.append(name), query.clone())[1]

    monkeypatch.setattr(op, "dispatch", lambda *_, triton_twin, torch_twin: triton_twin or torch_twin)
    monkeypatch.setattr(launch, "attention_adaptation", named("kernel"))
    monkeypatch.setattr(op.reference, "attention_adaptation", named("reference"))
    monkeypatch.setattr(op, "scaled_dot_product_attention", named("library"))
    return seen


def test_auto_takes_the_kernel_where_nothing_is_measured(taken: list[str]) -> None:
    assert table.LIBRARY_FASTER == ()
    attention_adaptation(*_tokens(torch.float32))
    assert taken == ["kernel"]


def test_auto_obeys_the_table(taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def auto(row: LibraryFaster = ROW, *, bias: bool = False, backend: str = "auto", **tokens: int) -> str:
        monkeypatch.setattr(table, "LIBRARY_FASTER", (row,))
        inputs = _tokens(torch.float32, **tokens)
        attention_adaptation(*inputs, torch.zeros(2, inputs[1].shape[2]) if bias else None, backend=backend)
        return taken[-1]

    assert auto() == "library"
    assert auto(bias=True) == "kernel"
    assert auto(backend="triton") == "kernel"
    assert [auto(queries=n) for n in (3, 4, 6, 7)] == ["kernel", "library", "library", "kernel"]
    assert [auto(keys=n) for n in (3, 4, 5)] == ["kernel", "library", "kernel"]
    for other in (
        {"device": "another"},
        {"dtype": torch.bfloat16},
        {"width": 4},
        {"gradients": False},
        {"ours": 9.0},
    ):
        assert auto(replace(ROW, **other)) == "kernel", other
    with torch.no_grad():
        assert auto() == "kernel"
        assert auto(replace(ROW, gradients=False)) == "library"
    torch.use_deterministic_algorithms(True)
    try:
        assert auto() == "kernel"
    finally:
        torch.use_deterministic_algorithms(False)


def test_auto_takes_the_reference_for_heads_wider_than_the_kernels(taken: list[str]) -> None:
    wide = torch.zeros(1, 1, 2, launch.WIDEST_HEAD + 1)
    attention_adaptation(wide, wide, wide)
    attention_adaptation(*(t[..., 1:] for t in (wide, wide, wide)))
    assert taken == ["reference", "kernel"]


def test_the_library_gives_the_same_numbers_and_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = _tokens(torch.float32)
    want = attention_adaptation(q, k, v, softmax_scale=0.3)
    monkeypatch.setattr(table, "LIBRARY_FASTER", (ROW,))
    monkeypatch.setattr(op, "dispatch", lambda *_, triton_twin, torch_twin: triton_twin)
    monkeypatch.setattr(launch, "attention_adaptation", None)  # reached by no call below
    torch.testing.assert_close(attention_adaptation(q, k, v, softmax_scale=0.3), want)
    torch._dynamo.reset()
    traced = torch.compile(lambda *t: attention_adaptation(*t, softmax_scale=0.3), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(q, k, v), want)
