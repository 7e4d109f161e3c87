"""Networks, losses, settings, the predictor and every data set can be saved, copied and sent to another process."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

import adu_depth
from adu_depth.data import StereoSample, SyntheticStereo, collate, open_dataset
from adu_depth.data.transforms import CentreCut, Resized
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.inference import Predictor, write_samples
from adu_depth.models import FeatureAdapters, MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.training.batches import InMemory
from adu_kernels import ConcatFreeConv3d
from tests.data import pack_files, trees

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)  # torch.save takes 2


MODULES: dict[str, Callable[[], nn.Module]] = {
    "teacher": lambda: StereoTeacher(TeacherConfig(concat_free=True)),
    "teacher with BatchNorm": lambda: StereoTeacher(TeacherConfig(norm="batch")),
    "student": lambda: MonoStudent(StudentConfig()),
    "student with a backbone": lambda: MonoStudent(StudentConfig(encoder="config:resnet?depths=1,1,1,1")),
    "adapters": lambda: FeatureAdapters((8, 8, 8), (4, 4, 4)),
    "student loss": lambda: StudentLoss(DistillationConfig(), (8, 8, 8), (4, 4, 4), 0.5, 80.0),
    "teacher loss": lambda: TeacherLoss(TeacherLossConfig(), 64, 0.5, 80.0),
    "convolution": lambda: ConcatFreeConv3d(2, 3, 4),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_network_is_saved_as_a_whole_and_copied(name: str) -> None:
    module = MODULES[name]()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(again) is type(module)
        for (key, value), (other, same) in zip(module.state_dict().items(), again.state_dict().items(), strict=True):
            assert key == other
            assert torch.equal(value, same)


def test_a_saved_teacher_predicts_the_same() -> None:
    teacher = StereoTeacher(TeacherConfig(max_disparity=16)).eval()
    sample = collate([SyntheticStereo(1, 64, 64)[0]])
    file = io.BytesIO()
    torch.save(teacher, file)
    file.seek(0)
    with torch.no_grad():
        first, second = (
            network(sample.left, sample.right, sample.camera)
            for network in (teacher, torch.load(file, weights_only=False))
        )
    assert torch.equal(first.depth, second.depth)


def test_the_predictor_is_sent_to_another_process() -> None:
    predictor = Predictor(MonoStudent(StudentConfig()), size=(32, 64))
    image = torch.rand(3, 20, 40)
    for protocol in PROTOCOLS:
        again = pickle.loads(pickle.dumps(predictor, protocol))
        assert torch.equal(again.predict_image(image).depth, predictor.predict_image(image).depth)


def _classes() -> list[type]:
    """Every class of adu_depth."""
    found = []
    for info in pkgutil.walk_packages(adu_depth.__path__, "adu_depth."):
        if not info.name.endswith("__main__"):
            named = vars(importlib.import_module(info.name)).values()
            found += [one for one in named if isinstance(one, type) and one.__module__ == info.name]
    return found


def _settings() -> list[Any]:
    """Every dataclass that has a default for everything."""
    found = []
    for made in filter(is_dataclass, _classes()):
        try:
            found.append(made())
        except (TypeError, ValueError):
            continue
    return found


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Stopped": (15,),
    "Interrupted": (15, "go on"),
    "_Misfit": ("one", "two"),
    "NothingMatched": ("proxy_d1", "nothing"),
    "RefusedCheckpoint": ("damaged", Path("run"), Path("run/step-2"), None),
}


def test_what_is_raised_reaches_the_process_that_asked() -> None:
    """concurrent.futures and torch hand exceptions on; one that cannot be made anew there breaks the pool."""
    errors = [
        made(*ARGUMENTS.get(made.__name__, (str(made),))) for made in _classes() if issubclass(made, BaseException)
    ]
    assert len(errors) > 8
    for error in errors:
        for protocol in PROTOCOLS:
            again = pickle.loads(pickle.dumps(error, protocol))
            assert type(again) is type(error)
            assert str(again) == str(error)
            assert vars(again) == vars(error)


def test_settings_are_the_same_afterwards() -> None:
    settings = _settings()
    assert len(settings) > 15
    for one in settings:
        for protocol in PROTOCOLS:
            assert repr(pickle.loads(pickle.dumps(one, protocol))) == repr(one)


def _data_sets(folder: Path) -> dict[str, Any]:
    trees.write_kitti_raw(folder / "raw", folder / "raw")
    trees.write_kitti_depth(folder / "benchmark")
    trees.write_driving_stereo(folder / "driving")
    pack_files.write_kitti(folder / "kitti")
    pack_files.write_middlebury(folder / "middlebury" / "scene")
    pack_files.write_object(folder / "object" / "frame")
    synthetic = SyntheticStereo(2, 32, 64)
    write_samples(synthetic, folder / "rig", 2)
    pack_files.pack(folder / "kitti", folder / "packed")
    on_disk = ("raw", "benchmark", "driving", "kitti", "middlebury", "object", "rig", "packed")
    below = {"benchmark": "depth_selection/val_selection_cropped"}
    opened = {name: open_dataset(folder / name / below.get(name, "")) for name in on_disk}
    return {
        **opened,
        "synthetic": synthetic,
        "in memory": InMemory(synthetic),
        "resized": Resized(synthetic, (16, 32)),
        "cut": CentreCut(synthetic, (16, 16), 24),
    }


def _same(one: StereoSample, other: StereoSample) -> bool:
    return one.name == other.name and torch.equal(one.left, other.left) and torch.equal(one.depth, other.depth)


def _as_it_is(samples: list[StereoSample]) -> StereoSample:
    (sample,) = samples
    return sample


def test_every_data_set_is_sent_to_a_worker_that_was_spawned(tmp_path: Path) -> None:
    """After a sample was read, too: what a data set keeps open goes along by name."""
    data_sets = _data_sets(tmp_path)
    wanted = {name: data_set[0] for name, data_set in data_sets.items()}
    for name, data_set in data_sets.items():
        for protocol in PROTOCOLS:
            assert _same(pickle.loads(pickle.dumps(data_set, protocol))[0], wanted[name]), name
        assert _same(copy.deepcopy(data_set)[0], wanted[name]), name
    everything = ConcatDataset([torch.utils.data.Subset(data_set, [0]) for data_set in data_sets.values()])
    loader = DataLoader(everything, batch_size=1, num_workers=1, multiprocessing_context="spawn", collate_fn=_as_it_is)
    for name, sample in zip(data_sets, loader, strict=True):
        assert _same(sample, wanted[name]), name
