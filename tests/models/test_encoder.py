"""Encoders: strides, families of transformers, weights that are there or not, messages."""

from __future__ import annotations

import logging

import huggingface_hub
import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.models.encoder import STRIDES, BackboneEncoder, SmallEncoder, build_encoder

FAMILIES = {
    "resnet": "config:resnet?depths=1,1,1,1&hidden_sizes=8,16,24,32&embedding_size=8",
    "convnext": "config:convnext?depths=1,1,1,1&hidden_sizes=8,16,24,32",
    "swin": "config:swin?embed_dim=12&depths=1,1,1,1&num_heads=1,1,2,2",
    "dinov2": "config:dinov2?hidden_size=24&num_hidden_layers=4&num_attention_heads=2&patch_size=14",
    "vitdet": "config:vitdet?hidden_size=24&num_hidden_layers=6&num_attention_heads=2",
}


@pytest.mark.parametrize("name", ["small", *FAMILIES.values()], ids=["small", *FAMILIES])
def test_maps_have_the_promised_strides_and_channels(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name)
    maps = encoder(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, STRIDES, strict=True)
    ]


@pytest.mark.parametrize("name", ["small", *FAMILIES.values()], ids=["small", *FAMILIES])
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name)
    sum((m * torch.randn_like(m)).sum() for m in encoder(torch.rand(2, 3, 64, 96))).backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


def test_a_plain_transformer_gives_shallow_layers_to_fine_strides() -> None:
    encoder = build_encoder("config:dinov2?hidden_size=24&num_hidden_layers=8&num_attention_heads=2&patch_size=14")
    assert isinstance(encoder, BackboneEncoder)
    assert encoder.backbone.config.out_features == ["stage2", "stage4", "stage6", "stage8"]


def test_a_map_stands_where_the_image_does() -> None:
    """Patches of 14 pixels do not tile the image: a bright square must still be seen at its own place."""
    torch.manual_seed(0)
    encoder = build_encoder(FAMILIES["dinov2"]).eval()
    dark, lit = torch.zeros(2, 1, 3, 96, 96)
    lit[..., 64:80, 16:32] = 1.0
    with torch.no_grad():
        for stride, a, b in list(zip(STRIDES, encoder(dark), encoder(lit), strict=True))[:3]:
            change = (a - b).abs().sum(1)[0]
            row, column = divmod(int(change.argmax()), change.shape[1])
            assert 64 <= (row + 0.5) * stride <= 80
            assert 16 <= (column + 0.5) * stride <= 32


def test_building_a_backbone_depends_on_the_seed_alone() -> None:
    """Looking at the backbone first draws no random numbers of the caller's."""
    from transformers import AutoBackbone, ResNetConfig

    config = ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], embedding_size=8)
    torch.manual_seed(3)
    expected = AutoBackbone.from_config(config).state_dict()
    after = torch.rand(1)
    torch.manual_seed(3)
    built = build_encoder(FAMILIES["resnet"]).backbone.state_dict()
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(built[k], expected[k]) for k in expected)


def test_pretrained_weights_come_from_a_local_directory(tmp_path, caplog) -> None:
    """Also from a classifier's checkpoint, which is what the hub mostly has."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], embedding_size=8)
    classifier = ResNetForImageClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    image = torch.rand(1, 3, 64, 64)
    with caplog.at_level(logging.INFO, logger="adu_depth"):
        loaded = build_encoder(str(tmp_path), pretrained=True).eval()
    assert "pretrained weights loaded" in caplog.text
    expected = classifier.resnet(loaded.normalised(image)).last_hidden_state
    torch.testing.assert_close(loaded(image)[-1], expected)

    with caplog.at_level(logging.INFO, logger="adu_depth"):
        random = build_encoder(str(tmp_path), pretrained=False)
        random.load_state_dict(random.state_dict())
        random.train()
        assert "random weights" not in caplog.text, "others were loaded, as from a checkpoint"
        random = build_encoder(str(tmp_path), pretrained=False).eval()
        assert "random weights" not in caplog.text, "said when training starts from them"
        random.train().train().eval()
    assert caplog.text.count("random weights") == 1
    assert not torch.allclose(random(image)[-1], expected)


def test_pretrained_weights_that_lack_tensors_are_refused(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    saved = build_encoder(FAMILIES["resnet"])
    saved.backbone.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    dropped = next(iter(weights))
    save_file({k: v for k, v in weights.items() if k != dropped}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lack 1 tensors"):
        build_encoder(str(tmp_path), pretrained=True)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_hub_name_that_cannot_be_reached_is_an_error_that_says_what_to_do(monkeypatch, pretrained: bool) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"(?s)nobody/no-such-backbone.*network.*local.*small"):
        build_encoder("nobody/no-such-backbone", pretrained=pretrained)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("resnet50", False, r"unknown name 'resnet50'.*small.*microsoft/resnet-50.*config:.*convnext"),
        ("config:nothing?depths=1", False, r"unknown backbone family 'nothing'.*resnet"),
        ("config:resnet?depth=1,1", False, r"'depth=1,1'.*resnet"),
        ("config:resnet?depths", False, r"'depths'.*<key>=<value>"),
        ("config:pvt_v2?hidden_sizes=8,16,24,32", False, r"'config:pvt_v2.*cannot be built.*hidden size"),
        ("config:hiera?embed_dim=8&depths=1,1,1,1&num_heads=1,1,2,2", False, r"does not run on a 96×160 image"),
        ("config:resnet", True, r"no pretrained weights"),
        ("small", True, r"no pretrained weights"),
    ],
)
def test_what_cannot_be_built_is_named(name: str, pretrained: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_encoder(name, pretrained=pretrained)


def test_the_small_encoder_is_unchanged_by_its_company() -> None:
    """GroupNorm: what an image gives does not depend on the batch, in training too."""
    torch.manual_seed(0)
    encoder = SmallEncoder().train()
    images = torch.rand(3, 3, 64, 64)
    for together, alone in zip(encoder(images), encoder(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["small", *FAMILIES.values()], ids=["small", *FAMILIES])
def test_convolutions_keep_their_weights_as_their_maps_lie(name: str) -> None:
    weights = [m.weight for m in build_encoder(name).modules() if isinstance(m, torch.nn.Conv2d)]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
