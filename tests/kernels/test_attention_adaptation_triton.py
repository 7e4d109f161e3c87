"""The Triton kernels of attention against the reference: interpreted on a CPU, on a GPU where there is one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.sample import collate
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.models import FeatureAdapter, MonoStudent, StudentConfig
from adu_depth.models.prediction import TeacherTargets
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.tasks import StepContext, StudentTask, step_losses
from adu_kernels import attention_adaptation, reference
from adu_kernels._triton import runtime
from adu_kernels.testing import parity

pytest.importorskip("triton")
from adu_kernels.attention_adaptation import launch, table
from tests.kernels import plans

INF = float("inf")
FACTORS = {torch.float16: 2**-11, torch.bfloat16: 2**-8}
"""Half a unit in the last place of the type the probabilities are multiplied in."""
BUDGETS = Path(__file__).parents[1] / "machine_code" / "budgets.json"


def _operation(**options: object) -> parity.Operation:
    return parity.Operation(attention_adaptation, reference.attention_adaptation, options)


def _inputs(
    queries: int,
    keys: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
    batch: int = 2,
    heads: int = 2,
    spread: float = 1.0,
) -> list[Tensor]:
    """Query, key, value and, if wanted, a bias; scores of about `spread`²."""
    sizes = [(batch, heads, n, width) for n in (queries, keys, keys)] + ([(batch, keys)] if bias else [])
    made = [torch.randn(size) for size in sizes]
    made[:2] = [spread * t for t in made[:2]]
    return [t.to(device=parity.DEVICE, dtype=dtype) for t in made]


def _epsilon(inputs: list[Tensor]) -> float:
    """fp32's ε is 4e-6: where the exact gradient is 0, as with one key, what is left is the difference of two dot
    products. The bias gradient sums that over queries and heads. Half precision rounds factors of products as well."""
    queries, heads = inputs[0].shape[2], inputs[0].shape[1]
    base = {torch.float64: 1e-13}.get(inputs[0].dtype, 4e-6)
    return base * math.sqrt(queries * heads) + FACTORS.get(inputs[0].dtype, 0.0)


def _check(inputs: list[Tensor], epsilon: float | None = None, **options: object) -> None:
    parity.check_parity(_operation(**options), inputs, epsilon=epsilon or _epsilon(inputs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("queries", "keys", "width"), [(1, 1, 1), (1, 37, 16), (67, 1, 32), (35, 67, 64), (131, 70, 24)]
)
def test_parity(queries: int, keys: int, width: int, bias: bool) -> None:
    _check(_inputs(queries, keys, width, bias=bias, batch=2 if queries == 1 else 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("queries", "keys", "width"), [(37, 29, 16), (1, 65, 8), (129, 1, 40)])
def test_parity_in_other_types(dtype: torch.dtype, queries: int, keys: int, width: int) -> None:
    size = (min(queries, 17), min(keys, 19), width) if dtype == torch.float64 else (queries, keys, width)
    _check(_inputs(*size, dtype=dtype, heads=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_widest_head(dtype: torch.dtype) -> None:
    _check(_inputs(20, 35, 128, dtype=dtype, batch=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "queries", "keys"), [(4, 100, 5), (2, 37, 29)])
def test_the_gradient_of_the_bias_in_half_precision(heads: int, queries: int, keys: int, dtype: torch.dtype) -> None:
    """As exact as in fp32, whatever the output and the probabilities were rounded to: a sum over queries and heads of
    small differences, in which a δ from the rounded output is off by 100 times the budget."""
    for seed in range(6):
        torch.manual_seed(seed)
        inputs = _inputs(queries, keys, 16, dtype=dtype, batch=1, heads=heads)
        inputs[3] = inputs[3].float()
        upstream = [torch.randn_like(inputs[0])]  # in the type: rounded on the way it would hide all else
        ours, plain, exact = (
            parity.values_and_gradients(run, parity.leaves(inputs, wide), upstream)[4]
            for run, wide in (
                (_operation().triton, None),
                (_operation().torch, torch.float32),
                (_operation().torch, torch.float64),
            )
        )
        assert ours.dtype == torch.float32
        parity.check_error_budget(ours, plain, exact, 4e-6, f"seed {seed}")


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    queries=st.integers(1, 70),
    keys=st.integers(1, 70),
    width=st.integers(1, 33),
    heads=st.integers(1, 3),
    bias=st.booleans(),
)
def test_parity_at_any_size(queries: int, keys: int, width: int, heads: int, bias: bool) -> None:
    _check(_inputs(queries, keys, width, heads=heads, bias=bias, batch=1))


@pytest.mark.parametrize("scale", [0.0, -0.5, 3.0])
def test_any_scale(scale: float) -> None:
    _check(_inputs(9, 35, 8, batch=1), softmax_scale=scale)
    _check(_inputs(5, 7, 8, dtype=torch.float64, batch=1), softmax_scale=scale)


@pytest.mark.parametrize("spread", [30.0, 100.0])
def test_huge_logits(spread: float) -> None:
    """Scores up to some ±1e4. fp32 sums the same product to different last bits in different orders, and the keys' pass
    takes another order than the forward: a probability is off by as much as its score, 2⁻²³ of Σ|q·k|."""
    inputs = _inputs(35, 41, 16, spread=spread, batch=1)
    assert ((inputs[0] @ inputs[1].mT) / 4).abs().max() > spread**2
    _check(inputs, epsilon=2**-23 * ((inputs[0].abs() @ inputs[1].abs().mT) / 4).max().item())
    _check([t.double() for t in _inputs(17, 18, 16, spread=spread, batch=1, heads=1)], epsilon=1e-10)


def test_bias_of_ten_thousand() -> None:
    """A tile of keys at −1e4 before and after those that count: no overflow, and exactly no weight."""
    inputs = _inputs(9, 200, 16)
    inputs[3][:, :70] = -1e4
    inputs[3][:, 140:] = -1e4
    inputs[3][0, 100] = 1e4
    _check(inputs, epsilon=2e-3)
    out = attention_adaptation(*inputs, backend="triton")
    assert torch.equal(out[0], inputs[2][0, :, 100:101].expand_as(out[0]))


def _with_closed_keys(dtype: torch.dtype = torch.float32, keys: int = 150) -> list[Tensor]:
    """Image 0: whole tiles closed at the start, in the middle and at the end; image 1: all closed; image 2: none."""
    inputs = _inputs(7, keys, 16, batch=3, dtype=dtype)
    bias = inputs[3]
    bias[0, : keys // 2] = -INF
    bias[0, keys // 2 + 3 :: 2] = -INF
    bias[0, keys - keys // 3 :] = -INF
    bias[1] = -INF
    return inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_closed_keys(dtype: torch.dtype) -> None:
    inputs = _with_closed_keys(dtype, keys=40 if dtype == torch.float64 else 150)
    _check(inputs)
    leaves = parity.leaves(inputs)
    out = attention_adaptation(*leaves, backend="triton")
    assert torch.count_nonzero(out[1]) == 0
    for grad in torch.autograd.grad(out.square().sum() + out.sum(), leaves):
        assert torch.count_nonzero(grad[1]) == 0
        assert grad.isfinite().all()
    closed = inputs[3] == -INF
    for grad in torch.autograd.grad(attention_adaptation(*leaves, backend="triton").sum(), leaves[1:3]):
        assert torch.count_nonzero(grad.transpose(1, 2)[closed]) == 0


@pytest.mark.parametrize("garbage", [float("nan"), INF])
def test_garbage_in_a_closed_key_changes_no_bit(garbage: float) -> None:
    inputs = _with_closed_keys()
    closed = (inputs[3] == -INF)[:, None, :, None]
    dirty = [inputs[0], *(t.masked_fill(closed, garbage) for t in inputs[1:3]), inputs[3]]
    upstream = [torch.randn_like(inputs[0])]
    clean, spoilt = (
        parity.values_and_gradients(_operation().triton, parity.leaves(t), upstream) for t in (inputs, dirty)
    )
    for one, two in zip(clean, spoilt, strict=True):
        assert torch.equal(one, two)


def test_a_bias_of_nan_is_not_hidden() -> None:
    inputs = _inputs(5, 70, 8)
    inputs[3][0, 66] = math.nan
    out = attention_adaptation(*inputs, backend="triton")
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, -2.2e38])
def test_the_lowest_numbers(lowest: float) -> None:
    """What is commonly written for −inf closes a key, and what is just above it does not."""
    inputs = _inputs(5, 70, 8)
    inputs[3][0] = lowest
    inputs[3][1, :69] = lowest
    _check(inputs)
    out = attention_adaptation(*inputs, backend="triton")
    assert bool(out[0].any()) == (lowest == -2.2e38)
    assert out[1].any()


def test_gradcheck_of_the_kernels() -> None:
    parity.check_gradients(_operation(), _inputs(3, 4, 2, batch=1, heads=1))
    parity.check_gradients(_operation(softmax_scale=0.7), _inputs(2, 3, 3, batch=1, bias=False), fast=True)


def test_gradcheck_across_tiles() -> None:
    """18 keys and 17 queries: two tiles of either, the last of each nearly empty."""
    parity.check_gradients(_operation(), _inputs(17, 18, 2, batch=1), fast=True)


def test_gradcheck_with_closed_keys() -> None:
    query, key, value, _ = _inputs(3, 4, 2, heads=1)
    bias = torch.tensor([[0.5, -INF, 2.0, 0.0], [-INF] * 4], dtype=torch.float64, device=parity.DEVICE)
    run = parity.Operation(lambda *t, backend: attention_adaptation(*t, bias, backend=backend), reference)  # type: ignore[arg-type]
    parity.check_gradients(run, [query, key, value], fast=True)


@pytest.mark.parametrize("splits", [1, 3])
def test_same_bits_twice(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _split_into(splits, monkeypatch)
    parity.check_same_bits_twice(_operation(), _inputs(131, 35, 16, batch=1))


def _split_into(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def split_queries(programs: int, queries: int, block: int) -> tuple[int, int]:
        chunk = -(-queries // (splits * block)) * block
        return -(-queries // chunk), chunk

    monkeypatch.setattr(table, "split_queries", split_queries)


@pytest.mark.parametrize("bias", [True, False])
def test_the_keys_pass_in_parts(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of queries, the last one short; every part is written, the parts are added."""
    _split_into(3, monkeypatch)
    launches = _Launches(monkeypatch)
    _check(_inputs(131, 35, 20, bias=bias))
    assert launches.names() == ["forward", "backward_queries", "backward_keys", "add_parts"]
    assert launches.seen[2][2] == 2 * 2 * 3 * 3  # images · heads · tiles of 16 keys · chunks


@pytest.mark.cpu
def test_queries_are_split_where_keys_are_too_few_for_the_card() -> None:
    """N = 14080, M = 1024, 4 heads of one image: 32 programs of 128 keys for 132 multiprocessors."""
    assert table.split_queries(32, 14080, 64) == (17, 832)
    assert table.split_queries(528, 14080, 64) == (1, 14080)
    assert table.split_queries(1, 968, 64) == (1, 1024 - 48 - 16 + 64)
    for programs, queries in ((1, 1), (3, 5000), (40, 3872), (264, 10**6)):
        splits, chunk = table.split_queries(programs, queries, 64)
        assert chunk % 64 == 0
        assert (splits - 1) * chunk < queries <= splits * chunk


class _Launches:
    """What is started, in order: kernel, options, number of programs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, really: bool = True) -> None:
        self.seen: list[tuple[str, dict[str, Any], int]] = []
        started = runtime.run

        def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
            self.seen.append((kernel.__name__, options, programs))
            if really:
                started(kernel, programs, *arguments, **options)

        monkeypatch.setattr(runtime, "run", run)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]


def test_any_layout() -> None:
    inputs = _inputs(35, 33, 12, bias=False)
    parity.check_layouts(_operation(), inputs, epsilon=_epsilon(inputs))


def _as_map(tokens: Tensor, channels_last: bool) -> Tensor:
    """The same tokens as a view of B×N×(heads·d) memory, or of B×(heads·d)×N."""
    if channels_last:
        return tokens.transpose(1, 2).contiguous().transpose(1, 2)
    return tokens.transpose(2, 3).contiguous().transpose(2, 3)


@pytest.mark.parametrize("channels_last", [True, False])
def test_maps_are_read_and_written_in_place(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output and gradients have the strides of the maps, and but for rounding the numbers of the plain layout."""
    inputs = _inputs(35, 33, 16)
    maps = [_as_map(t, channels_last) for t in inputs[:3]]
    upstream = [torch.randn_like(inputs[0])]
    want = parity.values_and_gradients(_operation().triton, parity.leaves(inputs), upstream)
    launches = _Launches(monkeypatch)
    got = parity.values_and_gradients(_operation().triton, parity.leaves([*maps, inputs[3]]), upstream)
    for one, two in zip(got, want, strict=True):
        parity.same_but_for_rounding(one, two)
    for result, source in zip(got, [maps[0], *maps], strict=False):
        assert result.stride() == source.stride()
    divisor = launches.seen[0][1]["config"].Q_DIVISOR
    assert divisor == (4 if channels_last else -1), "fp32: 16-byte loads along 16 channels; 35 tokens divide by nothing"


def test_a_slice_of_one_projection_is_read_in_place() -> None:
    """Query, key and value as parts of one map: their strides are the whole map's, and results are dense."""
    whole = torch.randn(2, 21, 3 * 32, device=parity.DEVICE)
    parts = [part.reshape(2, 21, 2, 16).transpose(1, 2) for part in whole.chunk(3, dim=-1)]
    assert parts[1].untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    out = attention_adaptation(*parts, backend="triton")
    assert out.stride() == (21 * 32, 16, 32, 1)
    torch.testing.assert_close(out, reference.attention_adaptation(*parts))


def test_upstream_gradients_of_any_strides() -> None:
    inputs = _inputs(9, 35, 16)
    strided = torch.randn(2, 2, 9, 48, device=parity.DEVICE)[..., ::3]
    for upstream in (strided, torch.ones((), device=parity.DEVICE).expand(2, 2, 9, 16)):
        grads = []
        for run in (_operation().triton, _operation().torch):
            leaves = parity.leaves(inputs)
            grads.append(torch.autograd.grad(run(*leaves)[0], leaves, upstream))
        for got, want in zip(*grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("needed", [0, 1, 2, 3])
def test_a_gradient_alone(needed: int) -> None:
    inputs = _inputs(9, 35, 16)
    inputs[needed].requires_grad_()
    upstream = torch.randn_like(inputs[0])
    got, want = (
        torch.autograd.grad(run(*inputs)[0], inputs[needed], upstream)[0]
        for run in (_operation().triton, _operation().torch)
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_bias_of_another_type_and_strides() -> None:
    query, key, value, bias = _inputs(9, 35, 16, dtype=torch.float16)
    wide = torch.full((2, 70), math.nan, device=parity.DEVICE)
    wide[:, ::2] = bias.float()
    upstream = [torch.randn_like(query)]
    narrow, spaced = (
        parity.values_and_gradients(_operation().triton, [*parity.leaves([query, key, value]), b], upstream)
        for b in (bias.requires_grad_(), wide[:, ::2].detach().requires_grad_())
    )
    assert spaced[4].dtype == torch.float32
    for one, two in zip(narrow[:4], spaced[:4], strict=True):
        parity.same_but_for_rounding(one, two)
    torch.testing.assert_close(narrow[4].float(), spaced[4], rtol=2**-10, atol=1e-6)


def test_one_launch_forward_and_nothing_of_n_times_m_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between forward and backward: the output and two fp32 numbers per query. The reference keeps N·M."""
    inputs = [t.requires_grad_() for t in _inputs(64, 64, 8)]
    launches = _Launches(monkeypatch)
    kept = parity.saved_bytes(lambda: _operation().triton(*inputs), inputs)
    assert launches.names() == ["forward"]
    assert kept == 4 * 2 * 2 * 64 * (8 + 2)
    assert parity.saved_bytes(lambda: _operation().torch(*inputs), inputs) >= 4 * 2 * 2 * 64 * 64


def test_opcheck() -> None:
    for last in (True, False):
        inputs = _inputs(5, 7, 4)
        leaves = parity.leaves([*(_as_map(t, last) for t in inputs[:3]), inputs[3]])
        torch.library.opcheck(torch.ops.adu_kernels.attention_adaptation.default, (*leaves, 0.5))
        plain = [t.detach() for t in leaves]
        saved = torch.ops.adu_kernels.attention_adaptation(*plain, 0.5)
        for needed in ([True] * 4, [False, True, False, False], [True, False, False, False]):
            arguments = (torch.randn_like(saved[0]), *plain, *saved, 0.5, needed)
            torch.library.opcheck(torch.ops.adu_kernels.attention_adaptation_backward.default, arguments)
    without = (*parity.leaves(_inputs(5, 7, 4, bias=False)), None, 0.5)
    torch.library.opcheck(torch.ops.adu_kernels.attention_adaptation.default, without)


@pytest.mark.parametrize("bias", [True, False])
def test_traced_whole(bias: bool) -> None:
    parity.check_whole_graph(_operation(), _inputs(5, 7, 4, bias=bias))


def test_autocast_changes_no_bit() -> None:
    inputs = _inputs(9, 35, 16)
    expected = attention_adaptation(*inputs, backend="triton")
    with torch.autocast(parity.DEVICE, torch.bfloat16):
        got = attention_adaptation(*inputs, backend="triton")
    assert torch.equal(got, expected)


@pytest.mark.cpu
def test_int64_only_where_a_tile_reaches_beyond_int32() -> None:
    near = torch.empty(2, 2, 4, 16)
    far = torch.empty(1, device="meta").as_strided((1, 1, 300, 16), (0, 0, 2**24, 1))
    assert not launch.tile_needs_int64([near, far], 128)
    assert launch.tile_needs_int64([near, far], 129)
    assert launch.tile_needs_int64([far.as_strided((1, 1, 2, 16), (0, 0, 1, 2**28))], 128)


def test_int64_gives_the_same_numbers() -> None:
    inputs, upstream = _inputs(35, 33, 16), [torch.randn(2, 2, 35, 16)]
    narrow = parity.values_and_gradients(_operation().triton, parity.leaves(inputs), upstream)
    with plans.offsets_of_64_bits(launch, "tile_needs_int64"):
        wide = parity.values_and_gradients(_operation().triton, parity.leaves(inputs), upstream)
    for one, two in zip(narrow, wide, strict=True):
        parity.same_but_for_rounding(one, two)


def test_tokens_that_lie_beyond_int32() -> None:
    """The third token starts 2³¹ elements after the first; the memory between them is never touched."""
    near = _inputs(3, 3, 2, dtype=torch.float16, batch=1, heads=1, bias=False)
    storage = parity.memory_beyond_int32(64)
    far = [storage[first:].as_strided((1, 1, 3, 2), (1, 1, 2**30, 1)) for first in (0, 16, 32)]
    for apart, together in zip(far, near, strict=True):
        apart.copy_(together)
    parity.same_but_for_rounding(_operation().triton(*far)[0], _operation().triton(*near)[0])


def test_a_wider_head_than_the_kernels_take() -> None:
    inputs = _inputs(3, 4, 129)
    with pytest.raises(ValueError, match=r"query: expected at most 128 channels per head .*'triton', got 129"):
        attention_adaptation(*inputs, backend="triton")


@pytest.mark.cpu
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "sm_120", "gfx942"])
def test_half_precision_multiplies_on_matrix_units_and_nothing_spills(target: str) -> None:
    """As the machine-code gate measured it: the budgets are compared with fresh compilations there."""
    rows = {
        name.split(" | ")[1:3][0] + " " + name.split(" | ")[2]: figures
        for name, figures in json.loads(BUDGETS.read_text())["kernels"].items()
        if name.startswith("attention_adaptation | ") and name.endswith(target)
    }
    half = {n: f for n, f in rows.items() if "float16" in n and "add_parts" not in n}
    assert len(half) == 8 * 3
    for name, figures in half.items():
        assert figures["tensor_core"] > 0, name
        assert figures["spills"] <= (48 if target == "sm_120" else 0), name
        assert figures["shared"] <= {"gfx942": 64, "sm_120": 99, "sm_80": 163}.get(target, 227) * 1024, name


def _stage_rule(masked: bool, wavefront: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(runtime, "WARP_SIZE", wavefront)
    return table.Tile(128, 64, 256, 3).options(masked)["num_stages"]


@pytest.mark.cpu
def test_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _stage_rule(False, 32, monkeypatch) == 3
    assert _stage_rule(True, 32, monkeypatch) == 5
    assert _stage_rule(True, 64, monkeypatch) == 2


@pytest.mark.parametrize("size", [(3, 5), (33, 32)])
def test_an_adapter_by_kernel_and_by_reference(size: tuple[int, int]) -> None:
    """33×32 tokens are pooled to 272 keys."""
    with torch.device("cpu"):  # the same weights on every machine
        module = FeatureAdapter(6, 8, heads=1, head_channels=16, uncertainty_bias=True)
    torch.nn.init.constant_(module.to(parity.DEVICE).gamma, 0.7)
    feature = torch.randn(1, 6, *size, device=parity.DEVICE)
    log_scale, upstream = torch.randn(1, 1, 40, 40, device=parity.DEVICE), torch.randn(1, 8, *size).to(parity.DEVICE)
    results = []
    for backend in ("triton", "torch"):
        module.backend = backend  # type: ignore[assignment]
        leaf = feature.clone().requires_grad_()
        out = module(leaf, log_scale)
        results.append([out, *torch.autograd.grad(out, [leaf, *module.parameters()], upstream)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_student_trains_through_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of a taught student, three levels: losses and weights as by the reference, nine launches a step."""
    launches = _Launches(monkeypatch)

    def trained(backend: str) -> tuple[list[float], dict[str, Tensor]]:
        torch.manual_seed(0)
        with torch.device("cpu"):  # the same first weights on every machine
            config = StudentConfig(feature_channels=(8, 8, 12), head_channels=8)
            loss = StudentLoss(DistillationConfig(), config.feature_channels, (8, 8, 8), 0.5, 80.0)
            task = StudentTask(MonoStudent(config), loss, AugmentationConfig()).train()
            sample = collate([SyntheticStereo(1, 32, 64, seed=0)[0]])
            features = tuple(torch.randn(1, 8, 32 // s, 64 // s) for s in (8, 16, 32))
            taught = TeacherTargets(sample.depth.clamp(0.5, 80.0), features)
        for level in loss.adapters.levels:  # type: ignore[union-attr]
            level.backend = backend
        task = task.to(parity.DEVICE)
        batch = TrainingBatch(sample, taught).to(torch.device(parity.DEVICE))
        optimiser = torch.optim.SGD(task.parameters(), lr=1e-3)
        losses = []
        for step in range(2):
            context = StepContext(seed=0, step=step, rank=0, progress=step / 2, dense=True)
            total = step_losses(task, batch, context)["total"]
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            losses.append(total.item())
        return losses, {name: value.detach() for name, value in task.named_parameters()}

    losses, weights = trained("triton")
    attention = [name for name in launches.names() if name in ("forward", "backward_queries", "backward_keys")]
    assert attention == 2 * (3 * ["forward"] + 3 * ["backward_queries", "backward_keys"])
    expected, their_weights = trained("torch")
    assert losses == pytest.approx(expected, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(value, their_weights[name], rtol=1e-4, atol=1e-6, msg=name)
