"""A saved folder: what is in it, that it is a checkpoint for every command, and that it is never half of one."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import adu_depth
from adu_depth.checkpoint import load_model
from adu_depth.errors import InputError
from adu_depth.folder_lock import locked
from adu_depth.hub import AduDepthConfig, AduDepthImageProcessor, AduDepthModel
from adu_depth.saved_network.card import CHANGED
from adu_depth.saved_network.folder import CARD, FILES
from tests.hub.runs import RUNS, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "my student", RUNS["student"], teacher="/home/somebody/runs/teacher")


@pytest.fixture
def saved(run: Path) -> Path:
    folder = run.parent.parent / "saved"
    AduDepthModel.from_pretrained(run).save_pretrained(folder)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_network_is_a_checkpoint_with_the_same_weights(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", RUNS[name])
    model = AduDepthModel.from_pretrained(run)
    model.save_pretrained(tmp_path / "saved")
    assert sorted(bytes_of(tmp_path / "saved")) == sorted(FILES)
    weights = "model.safetensors"
    assert (tmp_path / "saved" / weights).read_bytes() == (run / "checkpoints" / "step-00000003" / weights).read_bytes()
    before, after = load_model(run), load_model(tmp_path / "saved")
    for setting in ("kind", "size", "fit", "short_side", "crop_scale"):
        assert getattr(after, setting) == getattr(before, setting)
    assert after.model.config == before.model.config
    again = AduDepthModel.from_pretrained(tmp_path / "saved")
    assert not again.training
    assert again.step == 3
    again.save_pretrained(tmp_path / "again")
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "saved")


def test_nothing_of_the_machine_is_told(run: Path, saved: Path) -> None:
    for name, content in bytes_of(saved).items():
        for secret in (str(run.parent), "somebody"):
            assert secret.encode() not in content, name


def test_a_network_that_no_run_made_is_saved_and_loaded(tmp_path: Path) -> None:
    model = adu_depth.AduDepthModel(AduDepthConfig(kind="teacher"))
    model.save_pretrained(tmp_path / "new")
    again = AduDepthModel.from_pretrained(tmp_path / "new")
    assert again.stereo
    assert again.step is None
    assert "Nothing is written here of how it was trained" in (tmp_path / "new" / CARD).read_text()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_kill_between_two_names_leaves_the_old_network_or_none(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another network over a saved one: its files get their names one by one."""
    other = AduDepthModel.from_pretrained(make_run(tmp_path / "other", RUNS["student by focal length"], seed=1))
    old, new = load_file(saved / "model.safetensors"), dict(other.network.state_dict())
    replace = os.replace
    outcomes = []
    for kept in range(len(FILES) + 1):
        folder = tmp_path / f"killed-{kept}"
        shutil.copytree(saved, folder)
        left = kept

        def until(source: str, target: str, folder: Path = folder) -> None:
            nonlocal left
            if Path(target).parent == folder and Path(target).name in FILES:
                if not left:
                    raise KeyboardInterrupt
                left -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", until)
        with suppress(KeyboardInterrupt):
            other.save_pretrained(folder)
        monkeypatch.setattr(os, "replace", replace)
        assert sorted(bytes_of(folder)) == sorted(FILES)
        try:
            found = load_model(folder).model.state_dict()
        except InputError:
            outcomes.append("refused")
            continue
        outcomes.append(
            "new" if found.keys() == new.keys() and all(torch.equal(found[n], new[n]) for n in new) else "old"
        )
        if outcomes[-1] == "old":
            assert all(torch.equal(found[n], old[n]) for n in old)
    assert outcomes == ["old", *["refused"] * (len(FILES) - 1), "new"]


def test_a_folder_keeps_its_other_files_and_a_card_that_somebody_filled_in(run: Path, saved: Path) -> None:
    (saved / CARD).write_text("my card")
    (saved / "training_args.bin").write_text("somebody else's")
    model = AduDepthModel.from_pretrained(run)
    model.save_pretrained(saved)
    assert (saved / CARD).read_text() == "my card"
    assert (saved / "training_args.bin").exists()
    with torch.no_grad():
        next(model.network.parameters()).add_(1.0)
    model.save_pretrained(saved)
    card = (saved / CARD).read_text()
    assert card.count(CHANGED) == 1
    assert card.index("# my student") < card.index(CHANGED) < card.index("## Use")
    again = AduDepthModel.from_pretrained(saved)
    again.save_pretrained(saved)
    assert (saved / CARD).read_text() == card


def test_a_readme_of_a_folder_without_a_network_is_somebody_s_and_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / CARD).write_text("my project")
    AduDepthModel.from_pretrained(run).save_pretrained(tmp_path / "clone")
    assert (tmp_path / "clone" / CARD).read_text() == "my project"
    assert load_model(tmp_path / "clone").size == (64, 96)


def test_weights_of_another_network_are_not_saved_as_this_one_s(run: Path, tmp_path: Path) -> None:
    model = AduDepthModel.from_pretrained(run)
    whole = model.state_dict()
    first = next(iter(whole))
    lacking = {name: tensor for name, tensor in whole.items() if name != first}
    for given in (lacking, {**whole, first: whole[first][:1]}, {**whole, "network.more": torch.ones(1)}):
        with pytest.raises(InputError, match=r"state_dict: expected this network's \d+ tensors, 1 are others: .*, got"):
            model.save_pretrained(tmp_path / "out", state_dict=given)
        assert not (tmp_path / "out").exists()
    model.save_pretrained(tmp_path / "out", state_dict=whole)
    assert load_model(tmp_path / "out").size == (64, 96)


@pytest.mark.parametrize("place", ["", "checkpoints/step-00000003"])
def test_a_run_is_never_written_over(place: str, run: Path) -> None:
    before = bytes_of(run / "checkpoints" / "step-00000003")
    with pytest.raises(InputError, match="it is a run's or something else's, which would be lost: expected another"):
        AduDepthModel.from_pretrained(run).save_pretrained(run / place)
    assert bytes_of(run / "checkpoints" / "step-00000003") == before
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


def test_a_file_in_the_folder_s_place_and_another_writer_are_refused(run: Path, tmp_path: Path) -> None:
    model = AduDepthModel.from_pretrained(run)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        model.save_pretrained(tmp_path / "file")
    with locked(tmp_path / "taken", "somebody"), pytest.raises(InputError, match="another process"):
        model.save_pretrained(tmp_path / "taken")


def damaged(saved: Path, kind: str) -> None:
    weights, config = saved / "model.safetensors", saved / "config.json"
    if kind == "a changed byte":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif kind == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "a tensor less":
        tensors = load_file(weights)
        tensors.pop(next(iter(tensors)))
        save_file(tensors, weights)
    elif kind == "NaN":
        tensors = load_file(weights)
        next(iter(tensors.values())).fill_(np.nan)
        save_file(tensors, weights)
        (saved / "state.json").unlink()
    elif kind == "another library's":
        config.write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    elif kind == "another kind":
        config.write_text(json.dumps({**json.loads(config.read_text()), "kind": "teacher"}))
    elif kind == "no JSON":
        config.write_text("{")


DAMAGE = {
    "a changed byte": "its content is not what was written",
    "cut short": r"model\.safetensors cannot be read",
    "no weights": r"holds no checkpoint: expected model\.safetensors in it",
    "a tensor less": "lacks 1 tensors",
    "NaN": "weights are NaN or infinite in 1 of",
    "another library's": "does not describe a teacher or a student",
    "another kind": r"model\.",
    "no JSON": "not JSON",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_or_something_else_is_refused(kind: str, saved: Path) -> None:
    damaged(saved, kind)
    with pytest.raises(InputError, match=DAMAGE[kind]):
        AduDepthModel.from_pretrained(saved)


def test_names_that_are_none_and_options_without_a_meaning(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/nothing: no such folder, and the hub does not give it: "):
        AduDepthModel.from_pretrained("nobody/nothing", cache_dir=str(tmp_path))
    with pytest.raises(InputError, match="does not exist: expected a run folder"):
        AduDepthModel.from_pretrained(tmp_path / "runs" / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        AduDepthModel.from_pretrained(tmp_path / "empty")
    with pytest.raises(InputError, match="from_pretrained: quantization_config: no meaning here"):
        AduDepthModel.from_pretrained(run, quantization_config={"bits": 4})
    with pytest.raises(InputError, match="dtype: expected float32, float16 or bfloat16, got 'float7'"):
        AduDepthModel.from_pretrained(run, dtype="float7")
    with pytest.raises(InputError, match="device_map: expected one device, got 'elsewhere'"):
        AduDepthModel.from_pretrained(run, device_map="elsewhere")
    with pytest.raises(InputError, match="config: kind is another than that of"):
        AduDepthModel.from_pretrained(run, config=AduDepthConfig(kind="teacher"))
    model, report = AduDepthModel.from_pretrained(run, output_loading_info=True)
    assert isinstance(model, AduDepthModel)
    assert not any(report.values())


def test_half_precision_comes_back_as_it_was_saved(run: Path, tmp_path: Path) -> None:
    half = AduDepthModel.from_pretrained(run, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    half.save_pretrained(tmp_path / "half")
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * sum(
        t.numel() * 4 for t in half.network.state_dict().values()
    )
    assert CHANGED not in (tmp_path / "half" / CARD).read_text()
    again = AduDepthModel.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.float32
    for name, tensor in half.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(again.state_dict()[name].dtype))


def test_the_configuration_and_the_image_processor_are_saved_alone_without_code(saved: Path, tmp_path: Path) -> None:
    """transformers would copy this library's files beside them."""
    for auto_class, kind in (("AutoConfig", AduDepthConfig), ("AutoImageProcessor", AduDepthImageProcessor)):
        kind.register_for_auto_class(auto_class)
        kind.from_pretrained(saved).save_pretrained(tmp_path / auto_class)
    assert sorted(bytes_of(tmp_path / "AutoConfig")) == ["config.json"]
    assert json.loads((tmp_path / "AutoConfig" / "config.json").read_text())["model"]["network"] == "adu"
    processor = bytes_of(tmp_path / "AutoImageProcessor")
    assert processor["preprocessor_config.json"] == (saved / "preprocessor_config.json").read_bytes()
    assert sorted(processor) == ["modeling_adu_depth.py", "preprocessor_config.json"]


def test_the_page_s_example_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(adu_depth.__file__).parent / "hub" / "README.md").read_text(encoding="utf-8")
    _, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)  # the first is run by test_transformers.py
    run.rename(run.with_name("student"))
    monkeypatch.chdir(run.parent.parent)
    pushed: list[str] = []
    monkeypatch.setattr(AduDepthModel, "push_to_hub", lambda self, name: pushed.append(name))
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    names = {"torch": torch, "image": image, "height": 48, "width": 80}
    exec(compile(example, "README.md", "exec"), names)
    assert names["found"]["predicted_depth"].shape == (48, 80)  # type: ignore[index]
    assert sorted(path.name for path in Path("student").iterdir()) == sorted(FILES)
    assert pushed == ["owner/name"]
