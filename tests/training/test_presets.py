"""Named settings: each builds its network, comes through the command line as it is, and gives way to other settings."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.cli import main, parse
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig, build_student
from adu_depth.training.config import DataConfig, StudentTrainingConfig
from adu_depth.training.presets import CONVNEXT_ATTO, PRESETS, RESNET_50, SWIN_LARGE, Preset

# What the hub's configurations of these names say, for building them without the hub.
FORMS = {
    RESNET_50: ("config:resnet", (256, 512, 1024, 2048)),
    SWIN_LARGE: (
        "config:swin?embed_dim=192&depths=2,2,18,2&num_heads=6,12,24,48&window_size=7",
        (192, 384, 768, 1536),
    ),
    CONVNEXT_ATTO: ("config:convnextv2?hidden_sizes=40,80,160,320&depths=2,2,6,2", (40, 80, 160, 320)),
}
MILLIONS = {RESNET_50: (23, 24), SWIN_LARGE: (194, 196), CONVNEXT_ATTO: (3, 4)}
SETTINGS = {preset.config.model: preset.name for preset in PRESETS.values()}


@pytest.mark.parametrize("model", SETTINGS, ids=SETTINGS.values())
def test_every_preset_builds_its_network_and_it_runs(model: TeacherConfig | StudentConfig) -> None:
    """Of random weights; the large transformer without memory for them, shapes alone."""
    if isinstance(model, StudentConfig) and model.network != "adu":
        with torch.device("meta"):
            light = build_student(model)
            assert light(torch.rand(2, 3, 228, 304)).depth.shape == (2, 1, 228, 304)
        assert sum(p.numel() for p in light.parameters()) == {"light": 1_673_905}.get(model.network, 21_918_977)
        return
    form, channels = FORMS[model.encoder]
    assert model.pretrained
    model = replace(model, encoder=form, pretrained=False)
    image = torch.rand(1, 3, 32, 64)
    if isinstance(model, TeacherConfig):
        camera = Camera(*(torch.tensor([v]) for v in (700.0, 700.0, 32.0, 16.0, 0.5, 0.0)))
        network = StereoTeacher(model)
        with torch.no_grad():
            prediction = network(image, image.roll(-9, -1), camera)
    else:
        with torch.device("meta" if "swin" in form else "cpu"), torch.no_grad():
            network = MonoStudent(model)
            prediction = network(image.to("meta") if "swin" in form else image)
    assert prediction.depth.shape == (1, 1, 32, 64)
    assert [f.shape[1] for f in prediction.features] == list(model.feature_channels)
    assert network.encoder.channels == channels
    low, high = next(MILLIONS[name] for name, known in FORMS.items() if known[0] == form)
    assert low < sum(p.numel() for p in network.encoder.parameters()) / 1e6 < high


def given(preset: Preset) -> list[str]:
    """What the preset needs, given."""
    return [word for name in preset.needs for word in (f"--data.{name}", f"some-{name}")]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_a_preset_comes_through_the_command_line_as_it_is(preset: Preset) -> None:
    expected = replace(preset.config, data=replace(preset.config.data, **{n: f"some-{n}" for n in preset.needs}))  # type: ignore[type-var]
    assert parse([preset.command, "--preset", preset.name, *given(preset)]) == expected
    changed = parse([preset.command, *given(preset), "--loop.steps", "7", f"--preset={preset.name}", "--run", "mine"])
    assert changed == replace(expected, loop=replace(expected.loop, steps=7), run=Path("mine"))  # type: ignore[type-var]
    assert preset.needs.keys() <= {f.name for f in fields(DataConfig)}
    assert preset.config.data.root == "", "nobody trains on the built-in scenes by forgetting the data"


def test_what_a_preset_needs_is_asked_for(tmp_path: Path) -> None:
    preset = PRESETS["kitti-eigen-resnet50"]
    with pytest.raises(InputError, match=r"kitti-eigen-resnet50 needs --data\.root \(.*\); --data\.split \(BTS's"):
        parse(["distill", "--preset", preset.name])
    with pytest.raises(InputError, match=r"needs --data\.split"):
        parse(["distill", "--preset", preset.name, "--data.root", str(tmp_path)])
    (tmp_path / "pack.json").write_text("{}")
    assert parse(["distill", "--preset", preset.name, "--data.root", str(tmp_path)]).data.split == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "--preset", "kitti"], r"--preset: expected one of kitti-eigen-swin-large, .* got kitti"),
        (["distill", "--preset"], "got nothing"),
        (["distill", "--preset", "kitti-eigen-teacher"], "for distill; got kitti-eigen-teacher"),
        (["train-teacher", "--preset=kitti-eigen-mobile"], "expected one of kitti-eigen-teacher, .* for train-teacher"),
        (["distill", "--preset", "kitti-eigen-mobile", "--preset", "kitti-eigen-resnet50"], "got kitti-eigen"),
    ],
)  # fmt: skip
def test_a_preset_that_is_none_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(arguments)


def test_commands_without_presets_know_no_such_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "run", "--preset", "kitti-eigen-mobile"])
    assert stopped.value.code == 2
    assert "--preset" in capsys.readouterr().err


def test_a_student_can_be_taught_and_alone_by_one_preset() -> None:
    """The student without distillation must stand beside the taught one in any table."""
    for preset in PRESETS.values():
        if isinstance(preset.config, StudentTrainingConfig) and preset.config.teacher is not None:
            teacher = next(p for p in PRESETS.values() if p.config.run == preset.config.teacher)
            assert teacher.command == ("distill" if preset.config.light else "train-teacher")
            line = ["distill", "--preset", preset.name, *given(preset), "--teacher", "None"]
            assert parse(line) == replace(parse(line[:-2]), teacher=None, teacher_cache=None)
            assert parse([*line, "--teacher-cache", "mine"]).teacher_cache == Path("mine"), "is refused, as it is named"


def test_a_preset_trains_with_other_settings_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # accelerate keeps the precision for the whole process, and the other trainings of these tests take another one.
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})

    def run(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        return int(stopped.value.code or 0)

    assert run("render", "--output", tmp_path / "scenes", "--count", "2", "--size", "48", "96") == 0
    encoder = "config:convnextv2?hidden_sizes=8,8,16,16&depths=1,1,1,1"
    small = ["--data.root", tmp_path / "scenes", "--data.split", tmp_path / "names.txt", "--data.no-kb-crop"]
    (tmp_path / "names.txt").write_text("000000\n000001\n")
    small += ["--data.size", "32", "64", "--model.no-pretrained", "--model.encoder", encoder, "--teacher", "None"]
    small += ["--loop.steps", "1", "--loop.batch-size", "2", "--loop.workers", "0", "--loop.device", "cpu"]
    student = tmp_path / "student"
    assert run("distill", "--preset", "kitti-eigen-mobile", *small, "--run", student) == 0
    config = load_model(list_checkpoints(student)[-1]).config
    assert config["optimizer"]["decay"] == "poly"
    assert config["data"]["fit"] == "crop"
    assert config["loop"]["mixed_precision"] == "bf16"


def test_presets_are_listed_with_all_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["presets"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    for preset in PRESETS.values():
        [line] = [line for line in told.splitlines() if line.startswith(f"  {preset.name} ")]
        light = getattr(preset.config, "light", False)
        assert (preset.config.model.network if light else preset.config.model.encoder) in line  # type: ignore[union-attr]
        assert all(f"--data.{name}: {what}" in told for name, what in preset.needs.items())


def test_the_page_on_reproduction_names_every_preset_and_none_besides() -> None:
    import adu_depth.training.presets as module

    page = (Path(module.__file__).parent / "REPRODUCTION.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:kitti|driving|nyu)[a-z0-9-]*-(?:teacher|student|swin-large|resnet50|mobile))`", page))
    assert named == PRESETS.keys()
