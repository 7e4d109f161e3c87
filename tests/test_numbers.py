"""Numbers may be numpy's, and arrays or tensors without dimensions, wherever a number is asked for; bool is none."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

import adu_depth
from adu_depth.checkpoint import config_dict
from adu_depth.cli import COMMANDS, RenderConfig
from adu_depth.data import RigConfig, SyntheticStereo, open_dataset
from adu_depth.data.config import DataConfig
from adu_depth.data.packed.command import PackConfig
from adu_depth.data.splits import divide
from adu_depth.errors import InputError
from adu_depth.evaluation.metrics import depth_metrics
from adu_depth.evaluation.scoring import Scorer
from adu_depth.files import write_json
from adu_depth.geometry import Camera, stack_cameras
from adu_depth.inference import Predictor, write_samples
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.quickstart import QuickstartConfig
from adu_depth.training.config import LoopConfig, OptimizerConfig
from adu_depth.training.presets import PresetsConfig

KINDS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda value: np.int64(value) if isinstance(value, int) else np.float32(value),
    "array": np.array,
    "tensor": torch.tensor,
}


REQUIRED = {
    "root": "folder",
    "share": 0.25,
    "teacher": Path("run"),
    "teacher_cache": Path("cache"),
    "preset": "adu",
    "checkpoint": Path("run"),
    "source": Path("image.png"),
    "folder": Path("saved"),
    "run": Path("run"),
    "output": Path("output"),
}
"""Settings without a default."""
NEEDED = {
    "AdaptConfig": {"start": Path("run"), "data": DataConfig(root="folder")},
    "RealQuickstartConfig": {"data": DataConfig(root="folder")},
}
"""What one dataclass cannot do without, though some of it has a default that it refuses."""


def _as_kind(value: Any, kind: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_as_kind(one, kind) for one in value)
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


LOOK = ("check_ranges", "_check_ranges", "require_kinds")


def _checked_settings() -> list[Any]:
    """An instance of every dataclass whose settings are looked at as it is made."""
    found = {}
    for info in pkgutil.walk_packages(adu_depth.__path__, "adu_depth."):
        if info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if dataclasses.is_dataclass(value) and isinstance(value, type) and hasattr(value, "__post_init__"):
                names = value.__post_init__.__code__.co_names
                if any(look in names for look in LOOK):
                    needed = {f.name for f in dataclasses.fields(value) if f.default is f.default_factory}  # neither
                    own = NEEDED.get(value.__name__, {})
                    found[value.__name__] = value(**{name: REQUIRED[name] for name in needed - own.keys()}, **own)
    return list(found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_settings_hold_python_s_numbers(kind: str) -> None:
    settings = _checked_settings()
    assert {type(one).__name__ for one in settings} >= {
        "TeacherConfig", "StudentConfig", "LoopConfig", "OptimizerConfig", "DataConfig", "DistillationConfig",
        "TeacherLossConfig", "RigConfig",
    }  # fmt: skip
    for one in settings:
        given = {field.name: _as_kind(getattr(one, field.name), KINDS[kind]) for field in dataclasses.fields(one)}
        for field in dataclasses.fields(again := dataclasses.replace(one, **given)):
            value, was = getattr(again, field.name), getattr(one, field.name)
            assert type(value) is type(was), field.name
            assert value == pytest.approx(was) if isinstance(was, int | float) else True
        assert json.dumps(config_dict(again)).count('"') == json.dumps(config_dict(one)).count('"')


def test_a_single_value_where_there_are_several_is_refused_by_name() -> None:
    """DataConfig(crop_scale=0.5) was a TypeError."""
    found = 0
    for one in _checked_settings():
        for field in dataclasses.fields(one):
            value = getattr(one, field.name)
            several = value if isinstance(value, tuple) else (192,) if field.name == "size" and value is None else None
            if several is None:
                continue
            found += 1
            single = several[0] if several else "one"
            with pytest.raises(
                InputError, match=rf"\b{field.name}: expected (2|3|a) (values|tuple)\b.*, got {single!r}$"
            ):
                dataclasses.replace(one, **{field.name: single})
            if value is not None:  # nothing either, but where it is the default
                with pytest.raises(InputError, match=rf"\b{field.name}: expected .*, got nothing$"):
                    dataclasses.replace(one, **{field.name: None})
    assert found > 20
    told = r"^data\.crop_scale: expected 2 values, such as \(1\.0, 1\.0\), got 0\.5$"
    with pytest.raises(InputError, match=told):
        DataConfig(crop_scale=0.5)  # type: ignore[arg-type]


def _of_another_kind(schema: Any) -> list[tuple[Any, Any]]:
    """Values that hold one part of another kind than `schema` asks for, each with that part."""
    kind = next((kind for kind in get_args(schema) if kind is not NoneType), schema)  # of X | None
    kind = kind if get_origin(schema) in (Union, UnionType) else schema
    if get_origin(kind) is tuple:
        several = get_args(kind)
        several = several if several[-1] is not Ellipsis else several[:1] * 2
        return [
            (tuple(wrong if place == there else right for there in range(len(several))), wrong)
            for place, part in enumerate(several)
            for right, wrong in [("text", 3) if part in (str, Path) or is_dataclass(part) else (64, "a")]
            if place == 0 or not is_dataclass(part)
        ]
    if kind is bool:
        return [("no", "no"), (2, 2)]
    return [("a", "a"), ((1, 2), (1, 2))] if kind in (int, float) or get_origin(kind) is Literal else []


def test_what_is_no_number_or_no_text_is_refused_by_name_alone_and_among_several() -> None:
    """DataConfig(size=("a", 320)) was a TypeError, LoopConfig(steps="a") and EvaluateConfig(batch_size="a") too."""
    settings = _checked_settings()
    assert {type(one) for one in settings} >= set(COMMANDS) - {PresetsConfig}, "of every command but one without any"
    assert {type(one) for one in settings} >= {Scorer, PackConfig, RenderConfig, RigConfig, QuickstartConfig}
    found = 0
    for one in settings:
        for name, schema in get_type_hints(type(one)).items():
            if get_origin(schema) is ClassVar:
                continue
            for value, wrong in _of_another_kind(schema):
                found += 1
                message = rf"\b{name}: expected ['a-zA-Z].*, got {re.escape(repr(wrong))}$"
                with pytest.raises(InputError, match=message):
                    dataclasses.replace(one, **{name: value})
    assert found > 150
    told = r"^data\.size: expected a whole number from 32 to 16,384, got 'a'$"
    with pytest.raises(InputError, match=told):
        DataConfig(size=("a", 320))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^data\.size: expected 2 values, such as \(96, 320\), got \(96, 320, 3\)$"):
        DataConfig(size=(96, 320, 3))  # type: ignore[arg-type]


def test_no_number_of_a_setting_becomes_text_in_config_json(tmp_path: Path) -> None:
    """np.float32 was written as a string."""

    @dataclasses.dataclass
    class Unchecked:
        rate: Any
        folder: Path

    assert config_dict(Unchecked(np.float32(0.5), tmp_path)) == {"rate": 0.5, "folder": str(tmp_path)}
    write_json(tmp_path / "numbers.json", {"a": np.int64(3), "b": torch.tensor(0.5), "c": np.array(2.0)})
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"a": 3, "b": 0.5, "c": 2.0}
    with pytest.raises(TypeError, match="ndarray cannot be written as JSON"):
        write_json(tmp_path / "numbers.json", {"a": np.ones(2)})


@pytest.mark.parametrize("kind", KINDS)
def test_networks_data_and_metrics_take_them(kind: str) -> None:
    number = KINDS[kind]
    teacher = StereoTeacher(TeacherConfig(max_disparity=number(16), num_groups=number(8), max_depth=number(80.0)))
    assert type(teacher.config.max_disparity) is int
    student = MonoStudent(StudentConfig(min_depth=number(0.5), reference_focal=number(700.0)))
    camera = Camera(*(number(1.0) for _ in range(5)))
    assert stack_cameras([camera]).fx.shape == (1,)  # type: ignore[union-attr]
    image = torch.rand(3, 40, 50)
    prediction = Predictor(student, size=(number(32), number(64))).predict_image(image, camera=camera)
    assert prediction.depth.shape == (1, 1, 40, 50)
    for wrong in ((32.5, 64), (True, 64), "full", (0, 64), (32,), 192):
        with pytest.raises(InputError, match=r"size must be .height, width., both positive whole numbers, or None"):
            Predictor(student, size=wrong)  # type: ignore[arg-type]
    scenes = SyntheticStereo(number(1), number(32), number(64), number(3), RigConfig(height=(number(1.5), number(1.5))))
    assert torch.equal(scenes[0].left, SyntheticStereo(1, 32, 64, 3, RigConfig(height=(1.5, 1.5)))[0].left)
    depth = torch.rand(8, 8) + 1
    assert depth_metrics(depth, depth, number(0.5), number(80.0)) == depth_metrics(depth, depth, 0.5, 80.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_division_takes_them(kind: str, tmp_path: Path) -> None:
    write_samples(SyntheticStereo(3, 32, 64), tmp_path, 3)
    dataset = open_dataset(tmp_path)
    number = KINDS[kind]
    assert divide(dataset, dataset.names, number(0.5), number(1)) == divide(dataset, dataset.names, 0.5, 1)


def test_training_settings_are_those_of_plain_numbers() -> None:
    assert config_dict(LoopConfig(steps=np.int32(7))) == config_dict(LoopConfig(steps=7))  # type: ignore[arg-type]
    assert config_dict(OptimizerConfig(learning_rate=np.float64(0.25))) == config_dict(
        OptimizerConfig(learning_rate=0.25)
    )
