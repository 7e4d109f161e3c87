"""A checkpoint says all that its network is rebuilt from: neither the hub nor the encoder's folder is asked again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.models.encoder import BackboneEncoder, backbone_settings, build_encoder
from adu_depth.training.runs import train_student, train_teacher
from tests.training.test_resume import Stopping, assert_same_bits
from tests.training.tiny import LOOP, STUDENT, TEACHER, tiny_student, tiny_teacher

CAMERA = Camera(*(torch.tensor([v]) for v in (60.0, 60.0, 32.0, 16.0, 0.5, 0.0)))


def save_backbone(folder: Path) -> Path:
    """A trained classifier's folder, as the hub keeps them, unlike its family's defaults in every size."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 24, 32], embedding_size=8, layer_type="basic", num_labels=3
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_a_checkpoint_loads_without_hub_and_without_the_encoders_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = save_backbone(tmp_path / "encoder")
    run, short = tmp_path / "run", replace(LOOP, steps=1)
    if kind == "teacher":
        train_teacher(tiny_teacher(run, model=replace(TEACHER, encoder=str(encoder), pretrained=True), loop=short))
    else:
        train_student(tiny_student(run, model=replace(STUDENT, encoder=str(encoder), pretrained=True), loop=short))
    before = load_model(run)
    shutil.rmtree(encoder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    after = load_model(run)
    assert after.model.config.encoder == str(encoder), "the name stays what it was"
    view = torch.rand(1, 3, 32, 64)
    inputs = (view, view.roll(-3, -1), CAMERA) if kind == "teacher" else (view, CAMERA)
    with torch.no_grad():
        assert torch.equal(before.model(*inputs).depth, after.model(*inputs).depth)
    kept = json.loads((list_checkpoints(run)[-1] / "config.json").read_text())["backbone"]
    assert kept["depths"] == [1, 2, 1, 1]
    assert not {"id2label", "label2id"} & kept.keys(), "class names are no part of a backbone"


def test_a_run_goes_on_without_the_encoders_folder_to_the_same_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = save_backbone(tmp_path / "encoder")
    model = replace(STUDENT, encoder=str(encoder), pretrained=True)
    train_student(tiny_student(tmp_path / "whole", model=model))
    with pytest.raises(KeyboardInterrupt):
        train_student(tiny_student(tmp_path / "broken", model=model), samples=Stopping(reads=7))
    shutil.rmtree(encoder)
    caplog.clear()
    train_student(tiny_student(tmp_path / "broken", model=model, loop=replace(LOOP, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert "random weights" not in caplog.text, "they come from the checkpoint"


def test_a_checkpoint_from_before_goes_nowhere_for_its_encoder_and_says_what_it_lacks(tmp_path: Path) -> None:
    encoder = save_backbone(tmp_path / "encoder")
    run = tmp_path / "run"
    model = replace(STUDENT, encoder=str(encoder))
    train_student(tiny_student(run, model=model, loop=replace(LOOP, steps=1)))
    path = list_checkpoints(run)[-1] / "config.json"
    settings = json.loads(path.read_text())
    del settings["backbone"]
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"put the encoder's own config\.json there"):
        load_model(run)
    path.write_text(json.dumps(settings | {"backbone": json.loads((encoder / "config.json").read_text())}))
    shutil.rmtree(encoder)
    assert load_model(run).kind == "student"


@pytest.mark.parametrize(
    "name",
    [
        "config:swin?embed_dim=12&depths=1,1,1,1&num_heads=1,1,2,2&window_size=4",
        "config:convnextv2?depths=1,1,1,1&hidden_sizes=8,16,24,32",
        "config:dinov2?hidden_size=24&num_hidden_layers=4&num_attention_heads=2&patch_size=14",
        "config:vitdet?hidden_size=24&num_hidden_layers=6&num_attention_heads=2",
    ],
)
def test_kept_settings_rebuild_the_same_encoder(name: str) -> None:
    first = build_encoder(name).eval()
    settings = json.loads(json.dumps(backbone_settings(torch.nn.ModuleDict({"encoder": first}))))
    again = build_encoder("nobody/at-all", backbone=settings).eval()
    assert isinstance(again, BackboneEncoder)
    again.load_state_dict(first.state_dict())
    image = torch.rand(1, 3, 64, 96)
    for one, other in zip(first(image), again(image), strict=True):
        assert torch.equal(one, other)
    frozen = [[n for n, p in encoder.named_parameters() if not p.requires_grad] for encoder in (first, again)]
    assert frozen[0] == frozen[1]


def test_settings_that_describe_no_backbone_are_named() -> None:
    with pytest.raises(InputError, match=r"encoder 'a/b': the kept configuration is of a 'bert'"):
        build_encoder("a/b", backbone={"model_type": "bert"})
    with pytest.raises(InputError, match=r"encoder 'a/b': resnet refuses the kept configuration"):
        build_encoder("a/b", backbone={"model_type": "resnet", "layer_type": "wide"})


def test_the_built_in_encoder_has_nothing_to_keep(tmp_path: Path) -> None:
    train_student(tiny_student(tmp_path, loop=replace(LOOP, steps=1)))
    assert json.loads((list_checkpoints(tmp_path)[-1] / "config.json").read_text())["backbone"] is None
    assert load_model(tmp_path).kind == "student"
