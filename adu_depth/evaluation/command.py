"""The work of `adu-depth evaluate`: a checkpoint on a data set, a teacher beside what it has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.data import KittiStereo, built_in_scenes, open_dataset
from adu_depth.data.config import BUILT_IN, MOST
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.layouts import find_layout, folder_options, refuse_folder_options
from adu_depth.data.packed import PackedStereo
from adu_depth.data.synthetic.sceneries import Scenery, refuse_beside_folder, require_scenery
from adu_depth.data.transforms import CentreCut, require_focal_lengths
from adu_depth.distributed import ProcessGroup, joined_processes
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.evaluation.baselines import ConstantDisparity, Matched, SemiGlobalMatching
from adu_depth.evaluation.evaluator import EvaluationResult, Predict, evaluate_protocols, share_of
from adu_depth.evaluation.protocols import PROTOCOLS, choose_protocols
from adu_depth.evaluation.result_files import write_results
from adu_depth.evaluation.scoring import Scorer
from adu_depth.evaluation.table import blocks, comparison_table, means_table
from adu_depth.evaluation.temperature import (
    FILE_NAME,
    fitted_temperature,
    read_temperature,
    split_for_fit,
    temperature_record,
)
from adu_depth.files import write_json
from adu_depth.folder_lock import locked
from adu_depth.inference import Predictor
from adu_depth.inference.predictor import Flip, parse_size
from adu_depth.models.focal import needs_focal
from adu_depth.progress import Progress
from adu_depth.schema import Range, check_ranges

HELD_OUT_SCENES = 2
"""Seed of the built-in scenes to evaluate on; trainings use other seeds."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint on a data set; a teacher stands beside StereoSGBM and a constant disparity."""

    checkpoint: Positional[Path]
    """A run folder (its best checkpoint where it was validated, else its newest), RUN/checkpoints/best, a checkpoint
    folder, or a file of `adu-depth export`."""
    data: str = "synthetic"
    """A data set's folder, or "synthetic" for held-out built-in scenes."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it."""
    split: Path | None = None
    """File that names the samples to evaluate on, a line each (KITTI Eigen: the lists of BTS or Monodepth2)."""
    ground_truth: Path | None = None
    """Folder of the ground truth, where the layout may keep it apart (kitti_eigen)."""
    skip_missing: bool = False
    """Pass over, and count, frames whose files are not all there, instead of refusing them."""
    proxies: Path | None = None
    """Folder of `adu-depth proxies`: frames without ground truth are measured against a classical matcher, where it is
    sure. It says how well the two agree, not how right either is."""
    kb_crop: bool = False
    """Show the network KITTI's 352×1216 window instead of the whole image, as AdaBins and others do."""
    protocol: str = "auto"
    """"auto" (usual for the data set; of pairs without ground truth, a stereo teacher's, "pair"), "all" that fit, or
    some of none, garg, eigen, garg-352x1216, kitti-depth, nyu-eigen, hu, pair."""
    size: str = "trained"
    """What the network is run at: "trained", the size it was trained at; "full", each image's own; a factor of that
    (0.5); or one height and width (192x640). Metrics are at each image's own size. A network trained on images cut to
    their middle (data.fit centre) is measured on those if this is "trained"."""
    flip: Flip = "none"
    """Test-time augmentation of a student: the mean with the mirrored image, plain or with Monodepth's ramp."""
    min_depth: float = 1e-3
    """Metres; nearer truths do not count, nearer predictions are moved there."""
    max_depth: float = 80.0
    """Metres; farther truths do not count, farther predictions are moved there."""
    scale: Literal["none", "median"] = "none"
    """"median" gives each prediction the truth's median depth first: for networks that do not know metres."""
    batch_size: Annotated[int, Range(1, 1024)] = 1
    """Images that are predicted together, where neighbours have one size."""
    pairs: Annotated[int, Range(1, MOST)] = 32
    """Built-in scenes: how many."""
    scenery: Scenery = "usual"
    """Built-in scenes: usual or varied, see data.scenery of the trainings."""
    uncertainty: bool = True
    """Also say how well the predicted uncertainty orders and covers the errors."""
    fit_temperature: float | None = None
    """Fit one factor on the predicted scale on this share of the images (the first ones), evaluate on the others."""
    temperature: str | None = None
    """Such a factor from before: a number, or the temperature.json of an earlier fit."""
    output: Path | None = None
    """Folder for metrics.json and .md, every image's metrics, and pictures of the uncertainty."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        parse_size(self.size)
        built_in, source = self.data == BUILT_IN, f"data {self.data}"
        require_scenery(self.scenery, built_in, "scenery", source)
        if self.pairs != EvaluateConfig.pairs:
            refuse_beside_folder(self.pairs, built_in, "pairs", source)
        if self.temperature is not None and self.fit_temperature is not None:
            raise InputError("temperature: give one, or have one fitted (fit_temperature), not both")
        if not self.uncertainty and (self.temperature is not None or self.fit_temperature is not None):
            raise InputError("temperature: it is for the uncertainty, which --no-uncertainty leaves out")


Results = dict[str, dict[str, EvaluationResult]]


def evaluate_checkpoint(config: EvaluateConfig, console: Console) -> Results:
    """Evaluates, prints the tables, writes the files asked for; returns the results by method and protocol.

    Started by torchrun or `accelerate launch` in several processes, these share the images, and the first one reports.
    """
    with joined_processes() as processes:
        quiet = console if processes.is_main else Console(quiet=True)
        return _Evaluation(config, quiet, processes).run()


class _Evaluation:
    """What the steps of one evaluation share."""

    def __init__(self, config: EvaluateConfig, console: Console, processes: ProcessGroup) -> None:
        self.config, self.console, self.processes = config, console, processes
        self.progress = Progress(console, enabled=processes.is_main)
        self.predictor = Predictor.from_checkpoint(config.checkpoint, config.device, config.size, config.flip)
        if config.data == "synthetic":
            self.predictor.short_side = 0  # scenes are rendered at the size trained at
        self.own = "teacher" if self.predictor.stereo else "student"
        self.dataset = open_evaluation_set(config, self.predictor)
        if len(self.dataset) == 0:
            raise InputError(f"{config.data}: 0 images, nothing to evaluate on")
        require_focal_lengths(
            needs_focal(self.predictor.model, f"reference_focal of {config.checkpoint}"), self.dataset, config.data
        )
        for note in getattr(self.dataset, "notes", ()):
            self.progress.say(note)
        first = self.dataset[0]
        if self.predictor.stereo:
            first.require_right("a stereo teacher")
        height, width = first.left.shape[-2:]
        self.width = width
        self.layout = layout_of(config.data, config.layout, self.dataset)
        self.scorer = Scorer(
            choose_protocols(
                config.protocol,
                self.layout,
                (height, width),
                truth_is_cut(config.kb_crop, self.layout, self.dataset),
                middles=bool(self.predictor.short_side),
                stereo=self.predictor.stereo,
                truth=measurable(self.dataset),
            ),
            config.min_depth,
            config.max_depth,
            temperature=None if config.temperature is None else read_temperature(config.temperature),
            scale=config.scale,
        )
        self.fit: dict[str, Any] | None = None
        self.cut: CentreCut | None = None
        if self.predictor.short_side:
            assert self.predictor.trained_size is not None
            self.dataset = CentreCut(self.dataset, self.predictor.trained_size, self.predictor.short_side)
            self.cut, self.predictor.short_side = self.dataset, 0  # they come prepared
            for note in self.dataset.notes():
                self.progress.say(note)
        self.uncertainty = config.uncertainty and self.predictor.predicts_uncertainty
        if config.uncertainty and not self.uncertainty:
            if config.temperature is not None or config.fit_temperature is not None:
                raise InputError(f"temperature: it is for the uncertainty, and {config.checkpoint} predicts none")
            self.progress.say("the network predicts no uncertainty: its metrics are left out")

    def run(self) -> Results:
        if self.config.output is None:
            return self._run()
        share = lambda refusal: self.processes.gather(refusal)[0]  # noqa: E731
        with locked(self.config.output, "evaluate", first=self.processes.is_main, share=share):
            return self._run()

    def _run(self) -> Results:
        if self.config.fit_temperature is not None:
            self._fit(self.config.fit_temperature)
        results: Results = {self.own: self._evaluate(self.own, self.predictor)}
        if self.predictor.stereo:
            results |= self._baselines(results[self.own])
        self._report(results[self.own])
        if self.config.output is not None and self.processes.is_main:
            if self.fit is not None:
                write_json(self.config.output / FILE_NAME, self.fit | {"data": self.config.data})
            write_results(self.config.output, results, self._settings())
            self.progress.say(f"wrote {self.config.output}")
        return results

    def _fit(self, share: float) -> None:
        part, self.dataset = split_for_fit(self.dataset, share)
        usual = [name for name in self.scorer.protocols if PROTOCOLS[name].capped]
        scorer = replace(self.scorer, protocols=(*usual, "none")[:1])
        (fitted,) = self._evaluate("temperature", self.predictor, part, scorer).values()
        self.fit = {"checkpoint": str(self.config.checkpoint), **temperature_record(fitted)}
        self.scorer = replace(self.scorer, temperature=fitted_temperature(fitted))

    def _evaluate(
        self, name: str, method: Predict, dataset: Dataset | None = None, scorer: Scorer | None = None
    ) -> dict[str, EvaluationResult]:
        """A network with its uncertainty, a baseline without."""
        network, dataset = isinstance(method, Predictor), self.dataset if dataset is None else dataset
        own = sum(map(len, share_of(len(dataset), self.config.batch_size, self.processes)))
        with self.progress.task(f"evaluating {name}", own) as task:

            def advance(done: int, _: int) -> None:
                while task.done < done:
                    task.advance()

            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*images without valid depth")  # told with the table
                return evaluate_protocols(
                    method,
                    dataset,
                    replace(scorer or self.scorer, uncertainty=network and self.uncertainty),
                    batch_size=self.config.batch_size,
                    device=self.predictor.device if network else "cpu",
                    progress=advance,
                    processes=self.processes,
                )

    def _baselines(self, own: dict[str, EvaluationResult]) -> Results:
        matcher = SemiGlobalMatching(searched_disparities(self.width))
        found: Results = {}
        matched = ""
        try:
            scorer = self.scorer
            if self.config.proxies is not None:  # the views may judge it, what it has found itself may not
                scorer = replace(scorer, protocols=("pair",), proxies=False)
                if "pair" not in own:
                    raise InputError("the proxies are its own")
            found["StereoSGBM"] = self._evaluate("StereoSGBM", matcher, scorer=scorer)
            density = {name: share for part in self.processes.gather(matcher.density) for name, share in part.items()}
            mean = sum(density.values()) / len(density)
            matched = (
                f"StereoSGBM searched {matcher.num_disparities} px and matched {mean:.0%} of the pixels; the rest is "
                "filled along rows. "
            )
        except InputError as error:  # a black frame; what the network scored is not lost for it
            self.progress.say(f"StereoSGBM is left out: {error}")
        measured = "own ground truth, so it has peeked" if self.config.proxies is None else "own proxies"
        known = self.dataset
        if set(own) == {"pair"} and not measurable(self.dataset):
            measured, known = "pairs as StereoSGBM matches them", Matched(self.dataset, matcher)
        try:
            constant = ConstantDisparity.median_of(known, self.processes)
            found[f"constant {constant.disparity:.1f} px"] = self._evaluate("constant disparity", constant)
            matched += f"The constant is the median of this set's {measured}."
        except InputError as error:
            if set(own) != {"pair"}:
                raise
            self.progress.say(f"the constant is left out: {error}")
        for protocol, result in own.items():
            others = {name: by_protocol[protocol] for name, by_protocol in found.items() if protocol in by_protocol}
            shown = ("epe", "d1", "abs_rel", "rmse", "a1") if PROTOCOLS[protocol].capped else None
            self.console.print(comparison_table({self.own: result, **others}, shown, f"protocol {protocol}"))
        if "pair" in own:
            matched += " A constant is left–right consistent whatever it is: photometric shows that it is wrong."
        self.progress.say(matched)
        return found

    def _report(self, found: Mapping[str, EvaluationResult]) -> None:
        for block in blocks(found):
            kind = "varied " if self.config.scenery == "varied" else ""
            title = f"{self.own} on {kind}{self.config.data}"
            if self.config.proxies is not None:
                title += f"\nagainst the proxies of a classical matcher, {self.config.proxies}: no ground truth"
            if PROTOCOLS[next(iter(block))].metrics == "kitti":
                title += "\nKITTI depth benchmark: SILog and errors × 100, iRMSE in 1/km"
            self.console.print(means_table(block, title))
        for protocol, result in found.items():
            skipped = f", {len(result.skipped)} without ground truth skipped" if result.skipped else ""
            span = f"{result.min_depth:g} to {result.max_depth:g} m" if PROTOCOLS[protocol].capped else "no cap"
            self.progress.say(f"{protocol}: {PROTOCOLS[protocol].about}; {span}; {len(result.rows)} images{skipped}")
        told = [f"network at {self.predictor.about_size}"]
        if self.cut is not None:
            told = [self.cut.about]
        if self.predictor.checkpoint not in (None, self.config.checkpoint):
            told.insert(0, f"checkpoint {self.predictor.checkpoint}")
        if self.predictor.flip != "none":
            told.append(f"flip {self.predictor.flip}")
        if self.config.scale != "none":
            told.append("each prediction scaled to the truth's median")
        self.progress.say(", ".join(told))
        self._report_temperature(found)

    def _report_temperature(self, found: Mapping[str, EvaluationResult]) -> None:
        measured = next((result for result in found.values() if result.curves), None)
        if self.scorer.temperature is None or measured is None:
            return
        mean = measured.means()
        source = "given" if self.fit is None else f"fitted on the first {self.fit['fitted_on_images']} images"
        change = "; ".join(
            f"{name.replace('_', ' ')} {mean[name]:.4f} before, {mean[f'{name}_scaled']:.4f} after"
            for name in ("nll", "calibration_error")
        )
        self.progress.say(f"temperature {self.scorer.temperature:.4g}, {source}: {change}")

    def _settings(self) -> dict[str, Any]:
        size = self.predictor.size
        return {
            "checkpoint": str(self.config.checkpoint),
            "data": self.config.data,
            "layout": self.layout,
            "scenery": self.config.scenery if self.config.data == BUILT_IN else None,
            "proxies": None if self.config.proxies is None else str(self.config.proxies),
            "network_size": None if size is None else list(size),
            "network_factor": None if size is not None else self.predictor.factor,
            "prepared": None if self.cut is None else self.cut.about,
            "flip": self.predictor.flip,
            "scale": self.config.scale,
            "temperature": self.scorer.temperature,
            "environment": describe_environment(self.predictor.device),
        }


def searched_disparities(width: int) -> int:
    """A range for the matcher, in pixels: an eighth of the width, which on KITTI reaches down to 2.4 m."""
    return max(64, -(-width // 128) * 16)


def open_evaluation_set(config: EvaluateConfig, predictor: Predictor) -> Dataset:
    """The data set named, or held-out scenes at the size the network works at, else at the one it was trained at."""
    if config.data != "synthetic":
        samples = open_with_full_truth(config.data, **folder_options(config))
        if config.proxies is not None:
            samples.use_proxies(config.proxies)
        return samples
    if config.proxies is not None:
        raise InputError(f"proxies {config.proxies}: they are for a data set's folder, and data is the built-in scenes")
    refuse_folder_options(config, "", "data")
    size = predictor.size or predictor.trained_size
    if size is None:
        raise InputError("the built-in scenes have no size of their own, nor has the predictor: name a data set")
    return built_in_scenes(config.scenery, config.pairs, *size, HELD_OUT_SCENES)


def open_with_full_truth(root: str, **options: Any) -> FileDataset:
    """`open_dataset` for an evaluation.

    KITTI's stereo sets give their fullest ground truth, disp_occ, where it is on disk: epe and d1 are then over all
    pixels, as in the benchmark's D1-all, and epe_noc and d1_noc over those that both cameras see.
    """
    dataset = open_dataset(root, **options)
    if isinstance(dataset, KittiStereo):
        dataset.occluded_too = (dataset.training / dataset.folders.occ).is_dir()
    return dataset


def measurable(dataset: Dataset) -> bool:
    """Whether depths can be measured on some of the samples: those of files may all lack ground truth and proxies."""
    return not isinstance(dataset, FileDataset) or dataset.measurable()


def layout_of(root: str, layout: str, dataset: Dataset) -> str:
    """The layout that `open_dataset` opened the data with, or "synthetic"; of a pack, that of what was packed."""
    if isinstance(dataset, PackedStereo):
        return dataset.source_layout
    return "synthetic" if root == "synthetic" else find_layout(Path(root), layout).name


def truth_is_cut(kb_crop: bool, layout: str, dataset: Dataset) -> bool:
    """Whether images and truth were cut to KITTI's window, here or when they were packed, so that what looks at the
    whole truth cannot be measured. KITTI's depth benchmark is of that window."""
    packed = isinstance(dataset, PackedStereo) and bool(dataset.settings["kb_crop"])
    return (kb_crop or packed) and layout != "kitti_depth"
