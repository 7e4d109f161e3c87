"""The light-weight pair of arXiv 2105.06143: sizes, shapes and names as published, weights of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adu_depth.errors import InputError
from adu_depth.inference import Predictor
from adu_depth.models import DepthPrediction, LightConfig, LightStudent, LightTeacher, load_encoder, load_published
from adu_depth.models.light import NEAREST, LightNetwork
from adu_depth.models.mono_student import StudentConfig
from adu_depth.models.students import build_student

IMAGENET = Path(__file__).parents[3] / "shared" / "data" / "weights" / "mobilenet_v2_imagenet_torch.safetensors"
STAGES = {
    LightStudent: [(24, 57, 76), (32, 29, 38), (96, 15, 19), (160, 8, 10)],
    LightTeacher: [(64, 57, 76), (128, 29, 38), (256, 15, 19), (512, 8, 10)],
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_as_many_parameters_and_operations_as_published() -> None:
    student, teacher = LightStudent().eval(), LightTeacher()
    assert (parameters(student.encoder), parameters(student.decoder)) == (1_337_792, 336_113)
    assert parameters(student) == 1_673_905
    assert parameters(teacher) == 21_918_977
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(torch.rand(1, 3, 228, 304))
    assert counter.get_total_flops() / 2 == pytest.approx(4.02e9, rel=1e-3), "multiply-adds"


@pytest.mark.parametrize("kind", STAGES)
def test_every_stage_has_the_published_shape(kind: type[LightNetwork]) -> None:
    network = kind().eval()
    with torch.no_grad():
        maps = network.encoder(torch.rand(1, 3, 228, 304))
        assert [tuple(m.shape[1:]) for m in maps] == STAGES[kind]
        assert network.decoder(maps).shape == (1, 1, 114, 152)


def test_the_decoders_layers_by_their_parameters() -> None:
    decoder = LightStudent().decoder
    assert [parameters(gate) for gate in decoder.gates] == [2 * 24 * 1, 2 * 32 * 2, 2 * 96 * 6, 2 * 160 * 10]
    assert [parameters(branch) for branch in decoder.branches] == [25 * c * 16 + 32 for c in (24, 32, 96, 160)]
    assert [parameters(part) for part in (decoder.fuse, decoder.refine)] == [25 * 64 * 64 + 128] * 2
    assert parameters(decoder.head) == 25 * 64 + 1


@pytest.mark.parametrize("size", [(33, 47), (64, 96)])
def test_any_size(size: tuple[int, int]) -> None:
    prediction = LightStudent().eval()(torch.rand(2, 3, *size))
    assert prediction.depth.shape == (2, 1, *size)
    assert prediction.log_scale is None
    cells = [tuple(-(-side // stride) for side in size) for stride in (8, 16, 32)]
    assert [tuple(f.shape[-2:]) for f in prediction.features] == cells


def test_depth_is_bounded_in_eval_mode_and_free_in_training() -> None:
    """A depth that is clamped while it is trained would have no gradient to leave its bound by."""
    network = LightStudent()
    with torch.no_grad():
        network.decoder.head.weight.zero_()
        network.decoder.head.bias.fill_(-1.0)
    image = torch.rand(2, 3, 64, 64)
    trained = network(image).depth
    torch.testing.assert_close(trained, torch.full_like(trained, -1.0))
    trained.sum().backward()
    assert network.decoder.head.bias.grad.item() == pytest.approx(2 * 64 * 64, rel=1e-4)
    assert bool((network.eval()(image).depth == NEAREST).all())


def test_a_longer_lens_sees_the_same_picture_farther_away(make_camera: Any) -> None:
    torch.manual_seed(0)
    config = StudentConfig(network="light", reference_focal=100.0)
    student = build_student(config)
    with torch.no_grad():
        student.decoder.head.bias.fill_(2.0)  # above what eval mode clamps
    student.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        near, far = student(image, make_camera(1, fx=100.0)).depth, student(image, make_camera(1, fx=150.0)).depth
    assert float(near.min()) > NEAREST
    torch.testing.assert_close(far, near * 1.5)
    assert Predictor(student, size=None).needs_camera
    with pytest.raises(InputError, match="camera: a student with reference_focal needs"):
        student(image)


def test_a_log_scale_is_an_option_and_missed_by_name() -> None:
    prediction = LightStudent(LightConfig(log_scale=True)).eval()(torch.rand(1, 3, 32, 64))
    assert prediction.require_log_scale("a loss").shape == prediction.depth.shape
    bare: DepthPrediction = LightStudent().eval()(torch.rand(1, 3, 32, 64))
    with pytest.raises(InputError, match="a loss: expected a network that predicts its uncertainty"):
        bare.require_log_scale("a loss")


def as_published(network: LightNetwork) -> dict[str, Tensor]:
    """Weights under the names of the authors' modules: E (its mv2 for MobileNetV2), MFF, R."""
    student = isinstance(network, LightStudent)
    found = {
        ("E.mv2." + name.removeprefix("features.") if student else f"E.{name}"): tensor
        for name, tensor in network.encoder.state_dict().items()
    }
    decoder = network.decoder
    parts: list[tuple[str, nn.Module]] = [
        ("MFF.conv", decoder.fuse.conv),
        ("MFF.bn", decoder.fuse.norm),
        ("R.conv0", decoder.refine.conv),
        ("R.bn0", decoder.refine.norm),
        ("R.conv2", decoder.head),
    ]
    for stage in range(4):
        gate, branch = decoder.gates[stage], decoder.branches[stage]
        parts += [(f"MFF.att{stage + 1}.1", gate.reduce), (f"MFF.att{stage + 1}.3", gate.expand)]
        parts += [(f"MFF.up{stage + 1}.conv1", branch.conv), (f"MFF.up{stage + 1}.bn1", branch.norm)]
    return found | {f"{part}.{name}": t for part, module in parts for name, t in module.state_dict().items()}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_weights_load(kind: type[LightNetwork], prefix: str) -> None:
    source, network = kind().eval(), kind().eval()
    with torch.no_grad():
        for tensor in source.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.0)
    load_published(network, {prefix + name: tensor for name, tensor in as_published(source).items()})
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_weights_that_do_not_fit_are_named() -> None:
    student = LightStudent()
    weights = as_published(student)
    del weights["MFF.att2.3.weight"]
    with pytest.raises(InputError, match=r"lacks 1 tensors \(decoder.gates.1.expand.weight\)"):
        load_published(student, weights)
    with pytest.raises(InputError, match="not the weights of a LightTeacher: lacks"):
        load_published(LightTeacher(), as_published(student))
    broken = as_published(student) | {"R.conv2.bias": torch.tensor([float("nan")])}
    with pytest.raises(InputError, match=r"NaN or infinite in 1 of \d+ tensors \(decoder.head.bias\)"):
        load_published(student, broken)


def test_an_encoders_weights_from_a_file(tmp_path: Path) -> None:
    student, file = LightStudent(), tmp_path / "weights.safetensors"
    state = LightStudent().encoder.state_dict()
    source = {n: t.contiguous() for n, t in state.items() if not n.endswith("num_batches_tracked")}
    unread = {"features.17.conv.0.0.weight": torch.ones(1), "classifier.1.bias": torch.ones(1)}
    save_file(source | unread, file)
    load_encoder(student, file)
    assert all(torch.equal(student.encoder.state_dict()[name], tensor) for name, tensor in source.items())
    with pytest.raises(InputError, match=r"weights.safetensors: not the weights of a ResNet34Encoder: lacks"):
        load_encoder(LightTeacher(), file)
    with pytest.raises(InputError, match=r"encoder weights: .*missing.safetensors is not a file"):
        load_encoder(student, tmp_path / "missing.safetensors")


@pytest.mark.skipif(not IMAGENET.is_file(), reason=f"no trained weights at {IMAGENET.name} beside the checkout")
def test_imagenets_weights_are_the_ones_it_was_trained_with() -> None:
    """Their norms' stored statistics must be those of real pictures' maps; by a layer out of place they are not."""
    student = LightStudent().eval()
    load_encoder(student, IMAGENET)
    first = student.encoder.features[0]
    with torch.no_grad():
        grey = torch.full((1, 3, 64, 64), 0.45)
        response = first[0](student.encoder.normalised(grey)).mean((0, 2, 3))
    spread = first[1].running_var.sqrt() + 1e-3
    assert bool(((response - first[1].running_mean).abs() < 4 * spread).all()), "a grey picture is an ordinary one"
