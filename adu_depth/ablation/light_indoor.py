"""Preset light-indoor: the eight rows of arXiv 2105.06143, its numbers by that paper's protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adu_depth.ablation.config import AblationConfig
from adu_depth.ablation.indoor_lists import TEST, VAL, IndoorLists
from adu_depth.ablation.preset import Column, OneTeacher, Preset, Together, TrainingConfig, always, filled, means_on
from adu_depth.ablation.results import WEIGHTS
from adu_depth.ablation.rows import LABELLED, LIGHT, PLACE, PUBLISHED, WITHOUT_PLACE, Row, U, X, changed
from adu_depth.data import StereoSample
from adu_depth.data.config import DataConfig, SourceConfig
from adu_depth.data.dataset import Dataset
from adu_depth.data.mixed import Mixed, Source
from adu_depth.data.transforms import CentreCut
from adu_depth.distillation import DistillationConfig
from adu_depth.errors import InputError
from adu_depth.evaluation.evaluator import Predict
from adu_depth.files import checksum
from adu_depth.inference import Predictor
from adu_depth.models import StudentConfig
from adu_depth.models.focal import because_of
from adu_depth.models.light_weights import weights_file
from adu_depth.progress import Progress
from adu_depth.training.batches import InMemory
from adu_depth.training.config import OptimizerConfig, StudentTrainingConfig
from adu_depth.training.runs import train_student

MEASURED, SHORT_SIDE = (228, 304), 240
"""The published preparation: images at this short side, their middle cut out."""
NAMES = {X: "X", U: f"U {WITHOUT_PLACE}", PLACE: "the pictures of the test place in U", LABELLED: "U′"}
METRICS = {"rmse": "RMSE, m", "rel": "REL", "delta1": "δ1", "delta2": "δ2", "delta3": "δ3"}
METRICS |= {"rel_scaled": "REL, scaled"}
NEAREST, FARTHEST = 0.1, 10.0


class LightIndoor(Preset):
    title = "The light-weight student and unlabelled pictures"
    rows: tuple[Row, ...] = LIGHT
    published = PUBLISHED
    published_about = "published, on NYU-v2"

    def __init__(self, config: AblationConfig) -> None:
        self.settings = filled(
            config,
            steps=200,
            teacher_steps=480 if config.light.teacher_network == "light" else 240,  # a ResNet-34 takes twice as long
            size=(MEASURED[0] // 2, MEASURED[1] // 2),
            learning_rate=1e-3,
            teacher_learning_rate=1e-3,
        )
        assert self.settings.size is not None
        self.size = self.settings.size
        _require_shape(self.size)
        self.short_side = round(SHORT_SIDE * self.size[0] / MEASURED[0])
        self.lists = IndoorLists(config.data)
        self.rows = LIGHT if self.lists.has(PLACE) else tuple(replace(row, says=_of_all(row.says)) for row in LIGHT)
        self.tested = tuple(part for part in (TEST, VAL) if part in self.lists.frames)
        self.columns = tuple(
            Column(f"{part}/{metric}", f"{part} {title}", metric.startswith("delta"))
            for part in self.tested
            for metric, title in METRICS.items()
        )
        self.plotted = tuple(f"{part}/{metric}" for part in self.tested for metric in ("rmse", "rel"))
        self.teacher = OneTeacher(self.device, reads_features=False)
        self._digests: dict[str, str] = {}

    @property
    def about(self) -> str:
        light = self.settings.light
        counts = ", ".join(f"{len(frames)} of {self._name(part)}" for part, frames in self.lists.frames.items())
        network = "ResNet-34" if light.teacher_network == "light-teacher" else "the student's own network"
        begins = [
            f"the {who} encoder begins with {'ImageNet weights' if weights else 'random weights'}"
            for who, weights in (("student's", light.encoder_weights), ("teacher's", self._weights(teacher=True)))
        ]
        focal = light.reference_focal
        scaled = "no camera is read" if focal is None else f"depth is scaled by the focal length over {focal:g} pixels"
        return (
            f"Pictures: {counts}. Networks are trained and run at {_times(self.size)} (short side {self.short_side}, "
            f"the middle) and measured at {_times(MEASURED)}, to which their depth is enlarged, by the rules of "
            "1803.08673 and 2105.06143: no clamp, δ ≤, means of per-image errors; REL, scaled, is the error that is "
            "left where each prediction is brought to the truth's median first. "
            f"The teacher N_t is {network}; {'; '.join(begins)}; {scaled}. Each seed has its own teacher, which "
            f"all its rows share. λ = {light.truth_share:g}; where U is beside X, {light.unlabelled_share:.0%} of the "
            "samples."
        )

    def lacks(self, row: Row) -> str:
        return "; ".join(reason for part in row.data if (reason := self.lists.lacks(part)))

    def load(self, progress: Progress) -> None:
        frames = self.lists.frames
        self.parts = {p: InMemory(CentreCut(frames[p], self.size, self.short_side)) for p in NAMES if p in frames}
        self.sets = {p: InMemory(CentreCut(frames[p], MEASURED, SHORT_SIDE)) for p in self.tested}
        for name, samples in {**self.parts, **self.sets}.items():
            samples.fill(progress, f"reading {self._name(name)}")
            self._require_cameras(samples)

    def _name(self, part: str) -> str:
        name = NAMES.get(part, part)
        return name if self.lists.has(PLACE) else _of_all(name)

    def _require_cameras(self, samples: InMemory) -> None:
        """InputError for a picture of unknown focal length, where depth is scaled by it."""
        if (focal := self.settings.light.reference_focal) is not None:
            needs = because_of(focal, "light.reference_focal")
            for index in range(len(samples)):
                samples[index].require_focal(needs, self.settings.data.root)

    def training(self, row: Row, seed: int) -> StudentTrainingConfig:
        settings, light = self.settings, self.settings.light
        first, *others = dict.fromkeys(str(self.lists.path(part)) for part in row.data)
        labelled = LABELLED in row.data
        share = light.unlabelled_share
        mix = tuple(SourceConfig(settings.data.root, share, "rgbd", path, labels=labelled) for path in others)
        data = DataConfig(settings.data.root, "rgbd", first, size=self.size, fit="centre", short_side=self.short_side)
        config = StudentTrainingConfig(
            teacher=self.run_folder(row.taught_by, seed) if row.taught_by else None,
            run=self.run_folder(row.name, seed),
            data=changed(data, {"mix": mix}),
            model=StudentConfig(
                network=light.teacher_network if row.teacher else "light",
                encoder_weights=self._weights(row.teacher),
                min_depth=NEAREST,
                max_depth=FARTHEST,
                reference_focal=light.reference_focal,
            ),
            distillation=DistillationConfig(truth_share=light.truth_share) if row.taught_by else DistillationConfig(),
            optimizer=OptimizerConfig(learning_rate=self.learning_rate(row), weight_decay=1e-4),
            loop=self.loop(row, seed),
        )
        return changed(config, row.changes)

    def _weights(self, teacher: bool) -> str:
        light = self.settings.light
        same = not teacher or light.teacher_network == "light"
        return (light.teacher_weights if teacher else "") or (light.encoder_weights if same else "")

    def identity(self, row: Row) -> dict[str, Any]:
        told = self.lists.frames[X].told  # by depth.toml, which is among the files that are digested
        return {
            "frames": self.lists.digests(row.data),
            "measured": self.lists.digests(self.tested),
            "depth_scale": None if told else self.settings.data.depth_scale,
            WEIGHTS: self._weights_digest(self._weights(row.teacher)),
        }

    def _weights_digest(self, source: str) -> str:
        """Of the weights' file, wherever it lies; "" for random weights."""
        if source and source not in self._digests:
            self._digests[source] = checksum(weights_file(source))[:16]
        return self._digests.get(source, "")

    def train(self, row: Row, config: TrainingConfig, progress: Progress) -> None:
        assert isinstance(config, StudentTrainingConfig)
        parts = {part: self.parts[part] for part in row.data}
        outputs = None if config.teacher is None else self.teacher.outputs(config.teacher, parts)
        train_student(config, progress, self._samples(parts, config.data), outputs)

    def _samples(self, parts: dict[str, InMemory], data: DataConfig) -> Dataset:
        """What a row learns from: X, and beside it in their own share U or U′; of U alone nobody knows the depth."""
        others: list[Dataset] = [samples for part, samples in parts.items() if part != X]
        if not others:
            return parts[X]
        if X not in parts:
            return InMemory(Together(others))
        (source,) = data.mix
        name = f"data.mix {source.split}"
        beside = Source(name, InMemory(Together(others)), source.thousandths, source.labels)
        return Mixed([Source(f"data.root {data.split}", parts[X], 1000 - source.thousandths), beside])

    def measure(self, predict: Predict) -> dict[str, float]:
        return means_on(predict, self.sets, self.device, "hu", scaled="rel")

    def predictor(self, config: TrainingConfig) -> Predictor:
        return Predictor.from_checkpoint(config.run, self.settings.device, self.size)

    def example(self) -> StereoSample:
        return self.sets[TEST][0]

    def trivial(self) -> dict[str, Predict]:
        """From the depths of X at the size that is measured at."""
        frames = CentreCut(self.lists.frames[X], MEASURED, SHORT_SIDE)
        samples = (frames[index] for index in range(len(frames)))  # their images are not kept
        depths = np.stack([np.where(s.valid[0], s.depth[0], np.nan).astype(np.float32) for s in samples])
        median = float(np.nanmedian(depths))
        unseen = np.isnan(depths).all(0)
        depths[:, unseen] = median
        return {
            f"{median:.3f} m everywhere, the median of X": always(median),
            "the median of X at each pixel": always(np.nanmedian(depths, axis=0)),
        }


def _require_shape(size: tuple[int, int]) -> None:
    """InputError for pictures that would be squeezed where they are measured: trained and measured have one shape."""
    height, width = size
    if abs(width - height * MEASURED[1] / MEASURED[0]) >= 1:
        raise InputError(
            f"size: expected the shape of {_times(MEASURED)}, which is measured at, such as 114 152, got {height} "
            f"{width}: at height {height} the width is {round(height * MEASURED[1] / MEASURED[0])}"
        )


def _of_all(name: str) -> str:
    """The name of U, or of a row with it, for a U of which nobody says what it shows."""
    return name.removesuffix(WITHOUT_PLACE).rstrip(", ")


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
