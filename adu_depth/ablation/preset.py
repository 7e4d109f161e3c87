"""What a comparison has to say for the one runner of all: its rows, how one is trained, and what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from adu_depth.ablation.config import AblationConfig
from adu_depth.ablation.rows import Published, Row
from adu_depth.checkpoint import load_model
from adu_depth.data import StereoSample
from adu_depth.data.dataset import Dataset
from adu_depth.evaluation import Scorer, evaluate, evaluate_protocols
from adu_depth.evaluation.evaluator import Predict
from adu_depth.inference import Predictor
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.progress import Progress
from adu_depth.training.batches import InMemory
from adu_depth.training.config import LoopConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.loop import make_accelerator
from adu_depth.training.tasks import OnlineTeacher
from adu_depth.training.teacher_outputs import teacher_says

TrainingConfig = StudentTrainingConfig | TeacherTrainingConfig
Part = TypeVar("Part", covariant=True)


@dataclass(frozen=True)
class Column:
    """A metric on one set of pictures. key: its name among the numbers of a training ("test/rmse")."""

    key: str
    title: str
    higher_is_better: bool = False


class Listed(Protocol[Part]):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Part: ...


class Together(Generic[Part]):
    """Several lists, one after the other: data sets, or what a teacher says of them."""

    def __init__(self, parts: Sequence[Listed[Part]]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Part:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)}")
        number = bisect_right(self.starts, index) - 1
        return self.parts[number][index - self.starts[number]]


class TaughtOnce:
    """What a teacher says of each sample of a part, computed when it is first asked for."""

    def __init__(self, teach: OnlineTeacher, samples: Dataset, reads_features: bool) -> None:
        self.teach, self.samples, self.reads_features = teach, samples, reads_features
        self._kept: dict[int, TeacherTargets] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> TeacherTargets:
        if index not in self._kept:
            found = teacher_says(self.teach, [self.samples[index]])
            found = found if self.reads_features else found.depth_alone()
            self._kept[index] = found.map(lambda t: t.cpu())
        return self._kept[index]


class OneTeacher:
    """The outputs of the newest teacher alone: rows of one seed follow one another, and share it."""

    def __init__(self, device: torch.device, reads_features: bool) -> None:
        self.device, self.reads_features = device, reads_features
        self._run: Path | None = None
        self._parts: dict[str, TaughtOnce] = {}

    def outputs(self, run: Path, parts: Mapping[str, Dataset]) -> Together[TeacherTargets]:
        """Of the teacher in `run` for these parts by name, one after the other."""
        if run != self._run:
            self._run, self._parts = run, {}
            self._teach = OnlineTeacher(load_model(run, self.device).model, self.device)
        for name, samples in parts.items():
            self._parts.setdefault(name, TaughtOnce(self._teach, samples, self.reads_features))
        return Together([self._parts[name] for name in parts])


class Preset(ABC):
    """A comparison. settings: what it was told, its defaults filled in."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    plotted: tuple[str, ...]
    """Keys of the columns that are drawn."""
    published: tuple[Published, ...] = ()
    published_about: str = ""
    settings: AblationConfig

    @property
    def device(self) -> torch.device:
        return make_accelerator(LoopConfig(device=self.settings.device, trackers=())).device

    @property
    @abstractmethod
    def about(self) -> str:
        """What was done, in words."""

    @abstractmethod
    def lacks(self, row: Row) -> str:
        """Why a row cannot be trained; "" where it can."""

    @abstractmethod
    def load(self, progress: Progress) -> None:
        """Reads or renders the data, before the first training."""

    @abstractmethod
    def training(self, row: Row, seed: int) -> TrainingConfig:
        """The row's settings."""

    @abstractmethod
    def identity(self, row: Row) -> dict[str, Any]:
        """What a result depends on beside those settings: the frames that are learned from and measured on."""

    @abstractmethod
    def train(self, row: Row, config: TrainingConfig, progress: Progress) -> None:
        """Trains it, or goes on."""

    @abstractmethod
    def measure(self, predict: Predict) -> dict[str, float]:
        """Its numbers by the columns' keys, and others."""

    @abstractmethod
    def predictor(self, config: TrainingConfig) -> Predictor:
        """Of a training that is done."""

    @abstractmethod
    def example(self) -> StereoSample:
        """A sample that costs are measured with."""

    @abstractmethod
    def trivial(self) -> dict[str, Predict]:
        """Answers that a network must beat, by what they say."""

    def run_folder(self, name: str, seed: int) -> Path:
        return self.settings.folder / f"seed-{seed}" / name

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def loop(self, row: Row, seed: int) -> LoopConfig:
        settings = self.settings
        return LoopConfig(
            steps=settings.teacher_steps if row.teacher else settings.steps,
            batch_size=settings.batch_size,
            seed=seed,
            device=settings.device,
            workers=0,
            checkpoint_every=60,
            keep_checkpoints=1,
            trackers=(),
            resume=True,
        )

    def learning_rate(self, row: Row) -> float:
        settings = self.settings
        if row.teacher:
            return settings.teacher_learning_rate
        return settings.learning_rate if row.taught_by else settings.alone_learning_rate


def filled(config: AblationConfig, **defaults: Any) -> AblationConfig:
    """The configuration with a preset's own values where it has none."""
    config = replace(config, **{name: getattr(config, name) or value for name, value in defaults.items()})
    return replace(config, alone_learning_rate=config.alone_learning_rate or config.learning_rate)


def means_on(
    predict: Predict, sets: Mapping[str, InMemory], device: torch.device, protocol: str, scaled: str = ""
) -> dict[str, float]:
    """Every metric of a protocol, by "set/metric"; the one called `scaled` also as "set/metric_scaled", each prediction
    brought to the truth's median first. Samples have names of their own."""
    found: dict[str, float] = {}
    for name, samples in sets.items():
        once = PredictedOnce(predict)
        result = evaluate(once, samples, protocol=protocol, device=device)
        found |= {f"{name}/{metric}": value for metric, value in result.means().items()}
        if scaled:
            scorer = Scorer((protocol,), scale="median")
            again = evaluate_protocols(once, samples, scorer, device=device)[protocol]
            found[f"{name}/{scaled}_scaled"] = again.means()[scaled]
    return found


class PredictedOnce:
    """A prediction for each sample by its name, which is kept."""

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self._kept: dict[tuple[str, ...], DepthPrediction] = {}

    def __call__(self, sample: StereoSample) -> DepthPrediction:
        names = tuple(sample.name)
        if names not in self._kept:
            self._kept[names] = self.predict(sample)
        return self._kept[names]


def always(depth: np.ndarray | float) -> Callable[[StereoSample], DepthPrediction]:
    """The same depth whatever the image: a number, or H×W."""

    def predict(sample: StereoSample) -> DepthPrediction:
        shape = (sample.left.shape[0], 1, *sample.left.shape[-2:])
        said: Tensor = torch.as_tensor(np.asarray(depth, np.float32), device=sample.left.device)
        return DepthPrediction(said.expand(shape), torch.zeros(shape), features=())

    return predict
