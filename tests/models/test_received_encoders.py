"""An encoder's folder that anybody made: no code of it runs, no pickle is loaded, no number of it is believed."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PretrainedConfig

from adu_depth.errors import InputError
from adu_depth.models.encoder import build_encoder

SMALL = "config:resnet?depths=1,1,1,1&hidden_sizes=8,16,24,32&embedding_size=8&layer_type=basic"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_encoder(SMALL).backbone.save_pretrained(tmp_path / "encoder")  # type: ignore[operator, union-attr]
    return tmp_path / "encoder"


def change(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_the_folder_as_it_is_opens(folder: Path) -> None:
    assert build_encoder(str(folder), pretrained=True).channels == (8, 16, 24, 32)


@pytest.mark.parametrize("family", ["resnet", "their-own"])
def test_code_of_a_folder_is_never_run_nor_asked_about(
    family: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "theirs.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass Theirs: pass\n")
    classes = dict.fromkeys(("AutoConfig", "AutoBackbone", "AutoModel"), "theirs.Theirs")
    change(folder, model_type=family, auto_map=classes)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a terminal was asked"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with pytest.raises(InputError, match=r"encoder/?'?.*classes of its own \(auto_map\), which is never loaded or run"):
        build_encoder(str(folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attn_implementation": "somebody/kernel"}, "attn_implementation names outside code"),
        ({"_attn_implementation": "flash_attention_2"}, "_attn_implementation names outside code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "names a quantisation library"),
        ({"depths": [1, 1, 1, 9_999_999]}, "depths: expected at most 100,000, got 9999999"),
        ({"depths": [1, 1, 1, 99_999]}, "expected at most 10,000 layers"),
        ({"hidden_sizes": [8, 16, 24, 90_000]}, "expected at most 2,147,483,648 parameters"),
        ({"depths": [1] * 300}, "depths: expected at most 256 members, got 300"),
        ({"embedding_size": -8}, "encoder"),
        ({"hidden_sizes": "wide"}, "encoder"),
        ({"embedding_size": 1e308}, "embedding_size: expected at most 100,000"),
        ({"model_type": ["resnet"]}, "encoder"),
        ({"model_type": "timm_backbone"}, "encoder"),
        ({"out_features": ["stage99"]}, "encoder"),
    ],
)
def test_what_a_configuration_may_not_say(settings: dict[str, object], message: str, folder: Path) -> None:
    kept = {**json.loads((folder / "config.json").read_text()), **settings}
    change(folder, **settings)
    for build in (lambda: build_encoder(str(folder)), lambda: build_encoder("a/b", backbone=kept)):
        started = time.process_time()
        with pytest.raises(InputError, match=message):
            build()
        assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "swin", "depths": [100_000] * 100, "num_heads": [1] * 100}, "depths: expected at most 200,000"),
        ({"model_type": "swin", "window_size": 100, "image_size": 4096, "embed_dim": 12, "depths": [1, 1],
          "num_heads": [1, 1]}, "expected at most 50,000,000 numbers in tables, got more"),
        ({"model_type": "swinv2", "window_size": 200, "image_size": 4096, "embed_dim": 12, "depths": [1, 1],
          "num_heads": [1, 1]}, "expected at most 50,000,000 numbers in tables, got more"),
    ],
)  # fmt: skip
def test_what_is_worked_out_beside_the_layers_is_counted_too(
    settings: dict[str, object], message: str, folder: Path
) -> None:
    """Shares of a schedule, one by one (40 seconds), and tables of which pixel sees which (26 GB)."""
    (folder / "config.json").write_text(json.dumps(settings))
    started = time.process_time()
    with pytest.raises(InputError, match=message):
        build_encoder(str(folder))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "options", ["depths=9999999,1,1,1", "depths=99999,1,1,1", "hidden_sizes=8,8,8,99999", "depths=" + "[" * 4000]
)
def test_a_typed_configuration_is_held_to_the_same(options: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError, match="encoder"):
        build_encoder(f"config:resnet?{options}")
    assert time.process_time() - started < 5


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


def test_pickles_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Dangerous(folder / "ran")))
    with pytest.raises(InputError, match=r"safetensors, got pytorch_model\.bin, which are pickles and never loaded"):
        build_encoder(str(folder), pretrained=True)
    assert not (folder / "ran").exists()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"expected weights in \*\.safetensors, got none"):
        build_encoder(str(folder), pretrained=True)


@pytest.mark.parametrize(
    "listed", ["theirs.bin", "../out.safetensors", "/tmp/out.safetensors", "a/b.safetensors", "x.pt"]
)
def test_a_list_of_weights_leads_to_safetensors_in_the_folder_alone(listed: str, folder: Path) -> None:
    """transformers reads what the list names, pickles too."""
    names = list(load_file(folder / "model.safetensors"))
    for place in (folder / "some.safetensors", folder / "theirs.bin", folder.parent / "out.safetensors"):
        place.write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "some.safetensors")}))
    assert build_encoder(str(folder), pretrained=True).channels == (8, 16, 24, 32)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, listed)}))
    with pytest.raises(
        InputError, match=r"index\.json: expected names of \*\.safetensors files beside it, got '.*never"
    ):
        build_encoder(str(folder), pretrained=True)
    change(folder, transformers_weights="other.safetensors.index.json")
    with pytest.raises(InputError, match=r"names other weights than its own \(transformers_weights\)"):
        build_encoder(str(folder), pretrained=True)


def test_a_hubs_list_of_weights_is_held_to_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "theirs.bin"}}))
    config = PretrainedConfig.get_config_dict(str(folder))[0]
    made = AutoConfig.from_pretrained(folder)
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", lambda name: (config, {}))
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name, **_: made)
    monkeypatch.setattr("transformers.utils.cached_file", lambda name, file, **_: str(folder / file))
    with pytest.raises(InputError, match=r"index\.json: expected names .* got 'theirs\.bin', which is never loaded"):
        build_encoder("theirs/model", pretrained=True)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_a_list_of_weights_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json"):
        build_encoder(str(folder), pretrained=True)


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if weights[name].ndim == 4)
    weights[name].view(-1)[3] = torch.inf
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"NaN or infinite in 1 tensors \({name}\)"):
        build_encoder(str(folder), pretrained=True)


def test_a_header_that_promises_more_than_the_file_holds(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(InputError, match=r"its header has 1,152,921,504,606,846,976 bytes"):
        build_encoder(str(folder), pretrained=True)
