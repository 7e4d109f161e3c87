"""The frozen copy of a network: what it gives, what is gone from it, and that the network itself is as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import collate
from adu_depth.models import LightStudent, LightTeacher, StereoTeacher
from adu_depth.models.inference_copy import inference_copy
from adu_depth.models.light import LightNetwork
from adu_depth.models.prediction import DepthPrediction
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.tasks import OnlineTeacher
from tests.training.tiny import SIZE, TEACHER

Network = TypeVar("Network", bound=nn.Module)
RESNET = "config:resnet?depths=1,1,1,1&hidden_sizes=16,24,32,40&embedding_size=8"
BATCH = collate([SyntheticStereo(2, *SIZE)[i] for i in range(2)])


def teacher(**changes: object) -> StereoTeacher:
    torch.manual_seed(0)
    return with_statistics(StereoTeacher(replace(TEACHER, **changes)))  # type: ignore[arg-type]


def with_statistics(network: Network) -> Network:
    """Statistics and weights of norms that are not those it begins with."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


@torch.no_grad()
def predicted(network: nn.Module, dtype: torch.dtype | None = None) -> DepthPrediction:
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        found: DepthPrediction = network(BATCH.left, BATCH.require_right(""), BATCH.camera)
    return found


@pytest.mark.parametrize("concat_free", [False, True])
@pytest.mark.parametrize("encoder", ["small", RESNET])
def test_batch_norms_go_into_the_convolutions(encoder: str, concat_free: bool) -> None:
    network = teacher(encoder=encoder, norm="batch", concat_free=concat_free)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy = inference_copy(network)
    assert [m for m in copy.modules() if isinstance(m, _BatchNorm)] == []
    expected, found = predicted(network), predicted(copy)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-4, atol=1e-4)
    for one, other in zip(found.features, expected.features, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", [LightStudent, LightTeacher])
@torch.no_grad()
def test_a_light_network_has_none_left_and_gives_the_same(kind: type[LightNetwork]) -> None:
    """To within 1e-12 in fp64, which leaves no room for a norm that is folded into another convolution."""
    torch.manual_seed(0)
    network = with_statistics(kind()).double()
    copy = inference_copy(network)
    assert sum(isinstance(m, _BatchNorm) for m in network.modules()) > 36
    assert not any(isinstance(m, _BatchNorm) for m in copy.modules())
    image = torch.rand(1, 3, 44, 60, dtype=torch.float64)
    for one, other in zip(network.encoder(image), copy.encoder(image), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(copy(image).depth, network(image).depth, rtol=1e-6, atol=1e-6)  # depth is fp32


def test_a_norm_of_another_result_stays() -> None:
    """Beside a convolution, but not behind it: seen in what it is given."""
    network = teacher(encoder=RESNET)
    layer = next(m for m in network.encoder.modules() if type(m).__name__ == "ResNetConvLayer")
    layer.forward = lambda x: layer.activation(layer.normalization(layer.convolution(x) * 2))
    copy = inference_copy(network)
    assert sum(isinstance(m, _BatchNorm) for m in copy.modules()) == 1


def test_weights_in_the_type_they_are_read_in_change_no_bit() -> None:
    network = teacher()
    copy = inference_copy(network, torch.bfloat16)
    kept = {m.weight.dtype for m in copy.modules() if isinstance(m, _ConvNd | nn.Linear)}
    assert kept == {torch.bfloat16}
    expected, found = (predicted(one, torch.bfloat16) for one in (network, copy))
    assert torch.equal(found.depth, expected.depth)
    assert all(torch.equal(a, b) for a, b in zip(found.features, expected.features, strict=True))


def test_a_teacher_computes_in_the_type_it_was_given_whatever_is_around_it() -> None:
    network, batch = teacher(), TrainingBatch(BATCH)
    for dtype in (None, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is None):
            found = OnlineTeacher(network, torch.device("cpu"), dtype)(batch).teacher
        assert found is not None
        assert torch.equal(found.depth, predicted(network, dtype).depth)


def test_outside_training_nothing_computes_the_map_that_only_training_reads() -> None:
    network, ran = teacher(), []
    for name in ("decoder.level4", "decoder_head"):
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    predicted(network)
    assert ran == []
    predicted(network.train())
    assert ran == ["decoder.level4", "decoder_head"]
