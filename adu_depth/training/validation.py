"""Validation while a network trains: metrics on held-out samples, the best checkpoint, when to stop, pictures.

Several processes share the samples: a data set takes each of them its part of the time, none waits for longer than a
batch, and each makes the batches that one process alone would make, so that all have the numbers of one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from torch import nn

from adu_depth.checkpoint import Kind, Standing, checkpoint_path, read_standing
from adu_depth.data import SyntheticStereo
from adu_depth.data.config import DataConfig
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.identity import frames_digest, spread
from adu_depth.data.sample import StereoSample, collate
from adu_depth.data.transforms import CentreCut, require_focal_lengths
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError, SharedInputError
from adu_depth.evaluation.command import measurable, truth_is_cut
from adu_depth.evaluation.evaluator import NanPrediction, evaluate_protocols
from adu_depth.evaluation.metrics import (
    DEPTH_METRICS,
    HIGHER_IS_BETTER,
    HU_METRICS,
    KITTI_DEPTH_METRICS,
    STEREO_METRICS,
)
from adu_depth.evaluation.pair import CHOOSABLE, PROXY_METRICS
from adu_depth.evaluation.protocols import PROTOCOLS, choose_protocols
from adu_depth.evaluation.scoring import Row, Scorer
from adu_depth.evaluation.temperature import Part
from adu_depth.files import remove_folder, replacing
from adu_depth.inference import Predictor
from adu_depth.inference.image_files import encode_png
from adu_depth.inference.pictures import depth_picture, scaled_to, side_by_side
from adu_depth.inference.render import to_map, to_uint8
from adu_depth.models.focal import because_of
from adu_depth.models.prediction import DepthPrediction
from adu_depth.progress import Progress
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.held_out import open_held_out, read_ahead, some_of
from adu_depth.training.history import VALIDATION
from adu_depth.training.run_log import RunLog
from adu_depth.training.validation_config import ValidationConfig

PICTURES = "validation"
"""The folder of the pictures in a run's."""
KEPT = 10
"""Validations whose pictures stay."""
WIDEST = 640  # pixels of a picture


class Validation:
    """The validation of one run: what it is measured on, and how it stands."""

    def __init__(
        self,
        config: ValidationConfig,
        data: DataConfig,
        kind: Kind,
        accelerator: Accelerator,
        period: float,
        workers: int = 0,
    ) -> None:
        """data: of the training. period: steps from one validation to the next. workers: processes that read the
        samples. InputError for samples that the network cannot be measured on, or not by this metric."""
        self.config, self.period, self.workers = config, period, workers
        self.size = data.size if data.fit == "resize" else None  # as inference takes it
        self.group = ProcessGroup(accelerator.process_index, accelerator.num_processes)
        source, layout = open_held_out(config, data.size)
        self.notes: list[str] = list(getattr(source, "notes", ()))
        prepared = data.fit == "centre" and config.root != "synthetic"
        self.samples = some_of(CentreCut(source, data.size, data.short_side) if prepared else source, config.samples)
        first = self.samples[0]
        if kind == "teacher" and first.right is None:
            raise InputError(
                f"validation.root {config.root}: a stereo teacher needs pairs, but this data set has no right images"
            )
        height, width = first.left.shape[-2:]
        asked = "pair" if config.protocol == "auto" and config.metric in CHOOSABLE else config.protocol
        protocol = choose_protocols(
            asked,
            layout,
            (height, width),
            truth_is_cut(config.kb_crop, layout, source),
            middles=prepared,
            stereo=kind == "teacher",
            truth=measurable(source),
        )[0]
        self.scorer = Scorer((protocol,), config.min_depth, config.max_depth)
        measured = {"kitti": KITTI_DEPTH_METRICS, "hu": HU_METRICS, "pair": CHOOSABLE}.get(
            PROTOCOLS[protocol].metrics, DEPTH_METRICS
        )
        if measured is DEPTH_METRICS and kind == "teacher":
            measured = (*DEPTH_METRICS, *STEREO_METRICS)
        if config.metric not in measured:
            raise InputError(
                f"validation.metric: of a {kind}, protocol {protocol} measures {', '.join(measured)}; "
                f"got {config.metric!r}"
            )
        if config.metric in PROXY_METRICS and not any(map(self._has_proxies, spread(len(self.samples)))):
            raise InputError(
                f"validation.metric {config.metric}: none of the {len(self.samples)} images of validation.root "
                f"{config.root} has proxies: make them by `adu-depth proxies`, and name their folder as "
                "validation.proxies"
            )
        if not any(self.scorer.windows(self.samples[index]) for index in spread(len(self.samples))):
            raise InputError(
                f"validation.root {config.root}: none of its {len(self.samples)} images has ground truth that counts "
                f"by protocol {protocol} (and validation.min_depth, max_depth), nor proxies in its place"
            )
        self.standing = self._nothing_yet(protocol)

    def _has_proxies(self, index: int) -> bool:
        sample = self.samples[index]
        return sample.proxied and bool(sample.valid.any())

    def _nothing_yet(self, protocol: str) -> Standing:
        what, config = self.samples.samples if isinstance(self.samples, Part) else self.samples, self.config
        what = what.samples if isinstance(what, CentreCut) else what
        of = f"{'' if config.scenery == 'usual' else config.scenery + ' '}scenes of seed {config.scene_seed}"
        if isinstance(what, FileDataset):
            of = f"frames {frames_digest(what)[:16]}"
        measured = (
            f"{config.metric} on {len(self.samples)} {of}, protocol {protocol}, "
            f"{config.min_depth:g} to {config.max_depth:g} m"
        )
        return Standing(measured=measured, best_step=0, best=0.0, since=0)

    def resume(self, run: Path, done: Path | None, say: Callable[[str], None]) -> None:
        """Takes up how the run stood at the checkpoint `done`, and forgets pictures of what will be done anew."""
        before = None if done is None else read_standing(done)
        step = 0 if done is None else int(done.name.removeprefix("step-"))
        if self.group.is_main:
            for folder in picture_folders(run):
                if int(folder.name.removeprefix("step-")) > step:
                    remove_folder(folder)
        if before is None:
            return
        if before["measured"] != self.standing["measured"]:
            say(
                f"another validation than before, the best checkpoint is looked for anew: {before['measured']} → "
                f"{self.standing['measured']}"
            )
        elif before["best_step"] and not checkpoint_path(run, before["best_step"]).is_dir():
            best = checkpoint_path(run, before["best_step"])
            say(f"the best checkpoint so far, {best}, is not there any more: it is looked for anew")
        else:
            self.standing = before

    def due(self, step: int, last: int) -> bool:
        """Whether there is one after `step` steps of `last`."""
        return step == last or math.floor(step / self.period) > math.floor((step - 1) / self.period)

    def exhausted(self) -> bool:
        """Whether nothing has improved for so long that the run is to end."""
        return 0 < self.config.patience <= self.standing["since"]

    def measure(self, network: nn.Module) -> Row:
        """The metrics of the network as it is, whatever its mode; nothing of it changes. In every process the same."""
        predictor = self._predictor(network)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*images without valid depth")
            (result,) = evaluate_protocols(
                predictor,
                self.samples,
                self.scorer,
                batch_size=self.config.batch_size,
                device=predictor.device,
                processes=self.group,
                read=partial(read_ahead, self.samples, workers=self.workers),
            ).values()
        return result.means()

    def record(self, step: int, means: Row) -> bool:
        """Compares with the best so far; whether this is better."""
        value, metric, before = means[self.config.metric], self.config.metric, self.standing
        higher = metric in HIGHER_IS_BETTER
        better = math.isfinite(value) and (
            before["best_step"] == 0 or (value > before["best"] if higher else value < before["best"])
        )
        if better:
            self.standing = Standing(measured=before["measured"], best_step=step, best=value, since=0)
        else:
            self.standing = {**before, "since": before["since"] + 1}
        return better

    def run(
        self,
        run: Path,
        step: int,
        network: nn.Module,
        log: RunLog,
        progress: Progress,
        within: Callable[[Callable[[], None]], None],
    ) -> bool:
        """One validation, after `step` steps; whether it is the best so far. within: calls what takes memory.

        A prediction that is NaN is told and counts as no better one. It does not end the training, which has looked at
        its own loss and weights before: they are good, and of an image that it is not trained on it may recover.
        """
        means: Row = {}
        try:
            within(lambda: means.update(self.measure(network)))
        except NanPrediction as error:
            self.record(step, {self.config.metric: math.nan})
            log.write_row({"step": step, f"{VALIDATION}{self.config.metric}": math.nan})
            progress.say(f"step {step}: validation: {error}; training goes on, this counts as no better one")
            return False
        except InputError as error:  # in every process alike
            raise SharedInputError(f"validation after step {step}: {error}") from error
        better = self.record(step, means)
        self.tell(run, step, means, network, log, progress)
        return better

    def tell(self, run: Path, step: int, means: Row, network: nn.Module, log: RunLog, progress: Progress) -> None:
        """The row, the line and the pictures of a validation that has been recorded; the first process writes them."""
        log.write_row({"step": step, **{f"validation/{name}": value for name, value in means.items()}})
        metric, standing = self.config.metric, self.standing
        best = (
            "the best so far" if standing["best_step"] == step else f"{standing['best']:.4f} at {standing['best_step']}"
        )
        progress.say(f"step {step}: validation {metric} {means[metric]:.4f} ({best})")
        if self.config.pictures and self.group.is_main:
            pictures = self._pictures(network)
            write_pictures(run, step, pictures)
            log.write_pictures(step, {f"{VALIDATION}{name}": picture for name, picture in pictures.items()})

    def say_end(self, run: Path, say: Callable[[str], None]) -> None:
        """Why the run has ended, if before its last step, and which checkpoint is the best."""
        standing, metric = self.standing, self.config.metric
        if self.exhausted():
            say(
                f"ended: {standing['since']} validations without a better {metric} (validation.patience "
                f"{self.config.patience}; a larger one goes on with --loop.resume)"
            )
        if not standing["best_step"] and standing["since"]:
            say(f"no validation had a finite {metric}: no checkpoint is the best, the run stands for its newest")
        if standing["best_step"]:
            best = checkpoint_path(run, standing["best_step"])
            say(f"best checkpoint: {best}, validation {metric} {standing['best']:.4f}")

    def _predictor(self, network: nn.Module) -> Predictor:
        """Where the network lies: moved to an equal device of another name ("cpu:0") it would get other tensors, and
        whoever holds its running statistics, as the exchange between processes does, would hold old ones."""
        return Predictor(network, size=self.size, device=next(network.parameters()).device)

    def _pictures(self, network: nn.Module) -> dict[str, np.ndarray]:
        predictor = self._predictor(network)
        indices = islice(spread(len(self.samples)), self.config.pictures)
        found = {}
        for number, index in enumerate(indices):
            sample = self.samples[index]
            found[f"{number:02d}"] = picture_of(sample, predictor(collate([sample]).to(predictor.device)))
        return found


def make_validation(
    config: TeacherTrainingConfig | StudentTrainingConfig,
    kind: Kind,
    source: Dataset,
    accelerator: Accelerator,
    progress: Progress,
) -> Validation | None:
    """The validation that a run is told to have; None where it is told of none. source: what it is trained on."""
    wanted, period = config.validation, float(config.validation.every)
    if not wanted.on:
        return None
    if wanted.every_epochs:
        if isinstance(source, SyntheticStereo) and source.length is None:
            raise InputError("validation.every_epochs needs a finite data set: set data.pairs, or validation.every")
        period = wanted.every_epochs * len(source) / (config.loop.pairs_per_step * accelerator.num_processes)
    validation = Validation(wanted, config.data, kind, accelerator, max(1.0, period), config.loop.workers)
    if isinstance(config, StudentTrainingConfig) and (focal := config.model.reference_focal) is not None:
        held = validation.samples
        whole, indices = (held.samples, held.indices) if isinstance(held, Part) else (held, None)
        needs = because_of(focal, "model.reference_focal")
        require_focal_lengths(needs, whole, f"validation.root {wanted.root}", indices)
    for note in validation.notes:
        progress.say(f"validation: {note}")
    return validation


def picture_of(sample: StereoSample, prediction: DepthPrediction) -> np.ndarray:
    """What was given, the truth (or its proxies) if there is any, and the prediction, one below the other."""
    left = to_uint8(sample.left)
    left = scaled_to(left, min(left.shape[1], WIDEST))
    pictures = {"left": left}
    if sample.valid.any():
        truth = np.where(to_map(sample.valid), to_map(sample.depth), 0.0)
        pictures["proxies" if sample.proxied else "truth"] = depth_picture(truth, bar=False)
    return side_by_side({**pictures, "prediction": depth_picture(to_map(prediction.depth))}, columns=1)


def write_pictures(run: Path, step: int, pictures: dict[str, np.ndarray]) -> None:
    """A folder of PNG files for this step; the oldest ones go."""
    with replacing(run / PICTURES / f"step-{step:08d}") as temporary:
        temporary.mkdir()
        for name, picture in pictures.items():
            (temporary / f"{name}.png").write_bytes(encode_png(picture))
    for old in picture_folders(run)[:-KEPT]:
        remove_folder(old)


def picture_folders(run: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in (run / PICTURES).glob(f"step-{'[0-9]' * 8}") if path.is_dir())
