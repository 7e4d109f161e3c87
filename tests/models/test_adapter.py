"""Adapters: identity at the start, METHOD §3 afterwards, at any size, in place, and never part of a student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from adu_depth.checkpoint import config_dict, load_model, save_checkpoint
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.errors import InputError
from adu_depth.models import FeatureAdapter, FeatureAdapters, MonoStudent, StudentConfig, adapter
from adu_depth.models.adapter import pool_keys
from adu_depth.training.tasks import StudentTask
from tests.training.tiny import DATA


def test_starts_as_the_identity_where_channels_agree() -> None:
    adapter = FeatureAdapter(24, 24)
    feature = torch.randn(2, 24, 5, 7)
    assert torch.equal(adapter(feature), feature)
    assert adapter.project_out.weight.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 40)])
@pytest.mark.parametrize("bias", [False, True])
def test_starts_as_the_identity_at_any_size(size: tuple[int, int], bias: bool) -> None:
    feature = torch.randn(1, 8, *size)
    assert torch.equal(FeatureAdapter(8, 8, uncertainty_bias=bias)(feature, torch.randn(1, 1, 5, 9)), feature)


def test_starts_by_keeping_lengths_where_channels_are_added() -> None:
    feature = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(FeatureAdapter(16, 24)(feature).norm(dim=1), feature.norm(dim=1))


@pytest.mark.parametrize("bias", [False, True])
def test_is_the_formula_of_the_specification(bias: bool) -> None:
    torch.manual_seed(0)
    adapter = FeatureAdapter(12, 16, heads=2, head_channels=8, uncertainty_bias=bias)
    torch.nn.init.constant_(adapter.gamma, 0.7)
    feature, log_scale = torch.randn(2, 12, 3, 4), torch.randn(2, 1, 24, 32)

    def tokens(layer: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, layer.weight).flatten(2).transpose(1, 2)

    x = F.conv2d(feature, adapter.project_in.weight)
    query, key, value = (tokens(layer, x) for layer in (adapter.query, adapter.key, adapter.value))
    key_bias = -F.avg_pool2d(log_scale, 8).flatten(1) if bias else torch.zeros(2, 12)
    heads = []
    for h in (slice(0, 8), slice(8, 16)):
        scores = query[..., h] @ key[..., h].transpose(1, 2) / 8**0.5 + key_bias[:, None]
        heads.append(scores.softmax(-1) @ value[..., h])
    attended = torch.cat(heads, -1) @ adapter.project_out.weight[:, :, 0, 0].T
    expected = x + 0.7 * attended.transpose(1, 2).reshape(2, 16, 3, 4)
    torch.testing.assert_close(adapter(feature, log_scale), expected, rtol=1e-4, atol=1e-5)


def test_without_attention_it_is_one_linear_map() -> None:
    loss = StudentLoss(DistillationConfig(attention=False), (12,), (16,), 0.5, 80.0)
    assert loss.adapters is not None
    assert [name for name, _ in loss.adapters.named_parameters()] == ["levels.0.project_in.weight"]
    feature = torch.randn(2, 12, 3, 4)
    (level,) = loss.adapters.levels
    (found,) = loss.adapters([feature], torch.randn(2, 1, 24, 32))
    torch.testing.assert_close(found, F.conv2d(feature, level.project_in.weight))


def test_every_parameter_moves_after_the_first_step() -> None:
    """The identity is γ = 0, so at step 0 all behind γ has a gradient of exactly 0; at step 1 nothing has."""
    torch.manual_seed(0)
    adapter = FeatureAdapter(12, 16, uncertainty_bias=True)
    feature, log_scale = torch.randn(2, 12, 6, 9), torch.randn(2, 1, 48, 72, requires_grad=True)
    target = torch.randn(2, 16, 6, 9)
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.1)
    moving = []
    for _ in range(2):
        optimiser.zero_grad()
        F.mse_loss(adapter(feature, log_scale), target).backward()
        moving.append({n for n, p in adapter.named_parameters() if p.grad is not None and p.grad.any()})
        optimiser.step()
    assert moving[0] == {"gamma", "project_in.weight"}
    assert moving[1] == {n for n, _ in adapter.named_parameters()}
    assert log_scale.grad is None


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (12, 40), (33, 32), (44, 152), (1, 3000)])
def test_keys_are_averages_and_at_most_1024(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    pooled = pool_keys(x)
    assert pooled[0, 0].numel() <= 1024
    k = -(-size[1] // pooled.shape[-1])
    torch.testing.assert_close(pooled[0, :, 0, 0], x[0, :, :k, :k].mean((1, 2)))
    # Partial cells at the border average what they hold, without zeros.
    assert pooled.amin() >= x.amin() - 1e-12
    if x[0, 0].numel() <= 1024:
        assert pooled is x


def test_a_level_larger_than_the_keys_runs() -> None:
    adapters = FeatureAdapters((8, 8), (8, 12), uncertainty_bias=True)
    features = (torch.randn(1, 8, 40, 41), torch.randn(1, 8, 20, 21))
    out = adapters(features, torch.randn(1, 1, 320, 328))
    assert [tuple(y.shape) for y in out] == [(1, 8, 40, 41), (1, 12, 20, 21)]


def test_what_cannot_be_adapted_is_named() -> None:
    with pytest.raises(InputError, match="heads"):
        FeatureAdapter(8, 8, heads=0)
    with pytest.raises(InputError, match="equally many levels, got 2 and 3"):
        FeatureAdapters((8, 8), (8, 8, 8))
    with pytest.raises(InputError, match="expected 2 levels, got 1"):
        FeatureAdapters((8, 8), (8, 8))([torch.zeros(1, 8, 4, 4)])
    with pytest.raises(InputError, match="log_scale"):
        FeatureAdapter(8, 8, uncertainty_bias=True)(torch.zeros(1, 8, 4, 4))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_nothing_is_copied_between_projections_and_attention(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever layout the student's features have: tokens × channels, read, multiplied and added in place."""
    module = FeatureAdapter(12, 16, heads=2, head_channels=8)
    projected: dict[str, Tensor] = {}
    for name in ("project_in", "query", "key", "value"):
        getattr(module, name).register_forward_hook(lambda _, __, out, name=name: projected.update({name: out}))
    seen: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        seen.extend((query, key, value))
        return torch.randn(2, 5 * 7, 2, 8).transpose(1, 2)  # as the kernel lays it down for such a query

    monkeypatch.setattr(adapter, "attention_adaptation", attend)
    added: list[Tensor] = []
    multiply = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a: (added.extend(a), multiply(*a))[1])
    out = module(torch.randn(2, 12, 5, 7).contiguous(memory_format=layout))
    for tokens, name in zip(seen, ("query", "key", "value"), strict=True):
        assert tokens.data_ptr() == projected[name].data_ptr()
        assert tokens.stride() == (5 * 7 * 16, 8, 16, 1)
    assert added[0].data_ptr() == projected["project_in"].data_ptr()
    assert added[1]._is_view()
    assert added[1].stride() == (16, 1)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_students_checkpoint_holds_no_adapter(tmp_path: Path) -> None:
    """The adapters are kept for training to go on, beside the network that inference loads."""
    config = StudentConfig(feature_channels=(8, 8, 12), head_channels=8)
    loss = StudentLoss(DistillationConfig(), config.feature_channels, (8, 16, 8), 0.5, 80.0)
    task = StudentTask(MonoStudent(config), loss, AugmentationConfig())
    optimizer = torch.optim.AdamW(task.parameters())
    run = {"model": config_dict(config), "data": config_dict(DATA)}
    path = save_checkpoint(tmp_path, 1, kind="student", module=task, optimizer=optimizer, config=run, keep=1)
    network = load_file(path / "model.safetensors")
    assert network.keys() == MonoStudent(config).state_dict().keys()
    kept = {name for name in load_file(path / "training.safetensors") if "adapters" in name}
    assert kept == {f"module.loss.adapters.{name}" for name in loss.adapters.state_dict()}  # type: ignore[union-attr]
    assert not any(isinstance(part, FeatureAdapter) for part in load_model(path).model.modules())
