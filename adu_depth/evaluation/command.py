"""The work of `adu-depth evaluate`: a checkpoint on a data set, a teacher beside what it has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from adu_depth.data import SyntheticStereo, open_dataset
from adu_depth.data.dataset import Dataset
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.evaluation.baselines import ConstantDisparity, SemiGlobalMatching
from adu_depth.evaluation.evaluator import EvaluationResult, evaluate
from adu_depth.evaluation.table import comparison_table
from adu_depth.files import make_folder, write_json
from adu_depth.inference import Predictor
from adu_depth.training.progress import Progress

HELD_OUT_SCENES = 2
"""Seed of the built-in scenes to evaluate on; trainings use other seeds."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint on a data set; a teacher stands beside StereoSGBM and a constant disparity."""

    checkpoint: Positional[Path]
    """Run folder or checkpoint folder."""
    data: str = "synthetic"
    """A data set's folder, or "synthetic" for held-out built-in scenes."""
    layout: str = "auto"
    """The folder's layout; "auto" recognises it."""
    protocol: str = "none"
    """Evaluation window: "none", "garg" or "eigen"."""
    size: Literal["trained", "full"] = "trained"
    """Run the network at the size it was trained at, or at each image's own; metrics are at each image's own size."""
    pairs: int = 32
    """Built-in scenes: how many."""
    uncertainty: bool = True
    """Also say how well the predicted uncertainty orders and covers the errors."""
    output: Path | None = None
    """Folder for metrics.json and one CSV of per-image metrics per method; the table is printed in any case."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""


def evaluate_checkpoint(config: EvaluateConfig, console: Console) -> dict[str, EvaluationResult]:
    """Evaluates, prints the table, writes the files asked for; returns the results by method."""
    predictor = Predictor.from_checkpoint(config.checkpoint, config.device, config.size)
    dataset = open_evaluation_set(config, predictor)
    if config.output is not None:
        make_folder(config.output)
    progress = Progress(console)

    def run(name: str, method: Predictor | SemiGlobalMatching | ConstantDisparity) -> EvaluationResult:
        with progress.task(f"evaluating {name}", len(dataset)) as task:
            return evaluate(
                method,
                dataset,
                protocol=config.protocol,
                uncertainty=config.uncertainty and isinstance(method, Predictor),
                device=predictor.device if isinstance(method, Predictor) else "cpu",
                progress=lambda done, _: task.advance(),
            )

    own = "teacher" if predictor.stereo else "student"
    results = {own: run(own, predictor)}
    if predictor.stereo:
        matcher = SemiGlobalMatching(searched_disparities(dataset[0].left.shape[-1]))
        results["StereoSGBM"] = run("StereoSGBM", matcher)
        constant = ConstantDisparity.median_of(dataset)
        results[f"constant {constant.disparity:.1f} px"] = run("constant disparity", constant)
        console.print(comparison_table(results, ("epe", "d1", "abs_rel", "rmse", "a1")))
        matched = sum(matcher.density.values()) / len(matcher.density)
        progress.say(
            f"StereoSGBM searched {matcher.num_disparities} px and matched {matched:.0%} of the pixels; the rest is "
            "filled along rows. The constant is the median of this set's own ground truth, so it has peeked."
        )
    result = results[own]
    size = "each image's own size" if predictor.size is None else "×".join(map(str, predictor.size))
    progress.say(
        f"{len(result.rows)} images of {config.data}, window {result.protocol!r}, depths {result.min_depth:g} to "
        f"{result.max_depth:g} m, network at {size}"
    )
    console.print(means_table(own, result))
    if config.output is not None:
        write_results(config, results, predictor)
        progress.say(f"wrote {config.output}")
    return results


def means_table(name: str, result: EvaluationResult) -> Table:
    """All of one method's means, a line each: too many for columns of a terminal."""
    table = Table("metric", name)
    for metric, value in result.means().items():
        table.add_row(metric, f"{value:.4f}")
    return table


def searched_disparities(width: int) -> int:
    """A range for the matcher, in pixels: an eighth of the width, which on KITTI reaches down to 2.4 m."""
    return max(64, -(-width // 128) * 16)


def open_evaluation_set(config: EvaluateConfig, predictor: Predictor) -> Dataset:
    """The data set named, or held-out scenes at the size the network works at, else at the one it was trained at."""
    if config.data != "synthetic":
        return open_dataset(config.data, config.layout)
    size = predictor.size or predictor.trained_size
    if size is None:
        raise InputError("the built-in scenes have no size of their own, nor has the predictor: name a data set")
    return SyntheticStereo(config.pairs, *size, seed=HELD_OUT_SCENES)


def write_results(config: EvaluateConfig, results: dict[str, EvaluationResult], predictor: Predictor) -> None:
    """metrics.json with means and settings, and METHOD.csv with a line per image."""
    assert config.output is not None
    for name, result in results.items():
        result.write_csv(config.output / f"{name.replace(' ', '_')}.csv")
    write_json(
        config.output / "metrics.json",
        {
            "checkpoint": str(config.checkpoint),
            "data": config.data,
            "network_size": None if predictor.size is None else list(predictor.size),
            "methods": {name: {k: v for k, v in r.as_dict().items() if k != "rows"} for name, r in results.items()},
            "environment": describe_environment(predictor.device),
        },
    )
