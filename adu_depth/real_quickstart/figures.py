"""What comes of it: every network measured on the pairs that nothing was trained on, and shown on some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from adu_depth.data import collate, open_dataset
from adu_depth.data.dataset import FileDataset
from adu_depth.evaluation.command import EvaluateConfig, evaluate_checkpoint
from adu_depth.inference import Predictor
from adu_depth.real_quickstart.checks import open_truth
from adu_depth.real_quickstart.config import RealQuickstartConfig
from adu_depth.report import Reference, ScenePanel

BEFORE, ADAPTED, STUDENT = "teacher before", "teacher adapted", "student"
SHOWN = 4
MEASURED = Reference("Ground truth", "Error of depth, % of the true depth", dense=False)
MATCHED = Reference(
    "A classical matcher where it is sure: no ground truth",
    "Difference to the matcher, % of its depth: no error, for neither need be right",
    dense=False,
)
Figures = dict[str, dict[str, float]]


def against_proxies(config: RealQuickstartConfig) -> Figures:
    """Of the held-out pairs, how far each network's depths are from the classical matcher's, where that is sure."""
    adapted = config.adaptation().output
    return _each(config, proxies=adapted / "proxies", split=adapted / "splits" / "val.txt", **_place(config))


def against_truth(config: RealQuickstartConfig) -> Figures:
    """Of the pairs with ground truth, how wrong each network is, and StereoSGBM and a constant disparity beside it."""
    return _each(config, data=str(config.truth))


def _each(config: RealQuickstartConfig, **where: Any) -> Figures:
    """By the layout's default protocol, the networks in the order of their training."""
    found: Figures = {}
    adaptation = config.adaptation()
    networks = {BEFORE: adaptation.start, ADAPTED: adaptation.run, STUDENT: config.output / "student"}
    for name, checkpoint in networks.items():
        asked = EvaluateConfig(checkpoint=checkpoint, device=config.device, **where)
        means = {who: next(iter(all_.values())).means() for who, all_ in _quietly(asked).items()}
        found[name] = means.pop("student" if name == STUDENT else "teacher")
        if name == ADAPTED:
            found |= means
    return found


def _quietly(asked: EvaluateConfig) -> dict[str, Any]:
    return evaluate_checkpoint(asked, Console(quiet=True))


def _place(config: RealQuickstartConfig) -> dict[str, Any]:
    """Where an evaluation finds the pairs."""
    data = config.data
    return {
        "data": data.root,
        "layout": data.layout,
        "ground_truth": Path(data.ground_truth) if data.ground_truth else None,
        "skip_missing": data.skip_missing,
        "kb_crop": data.kb_crop,
    }


def panels(config: RealQuickstartConfig) -> list[ScenePanel]:
    """Some of the pairs with ground truth, or where there are none of the held-out ones, spread over them."""
    frames, reference = _frames(config)
    teacher = Predictor.from_checkpoint(config.adaptation().run, config.device)
    student = Predictor.from_checkpoint(config.output / "student", config.device)
    shown = []
    for number in range(count := min(SHOWN, len(frames))):
        pair = frames[number * len(frames) // count]
        batch = collate([pair])
        said = {ADAPTED: teacher(batch), STUDENT: student(batch)}
        shown.append(ScenePanel.from_sample(pair, said, reference))
    return shown


def _frames(config: RealQuickstartConfig) -> tuple[FileDataset, Reference]:
    if config.truth is not None:
        return open_truth(config.truth), MEASURED
    adapted, data = config.adaptation().output, config.data
    pairs = open_dataset(
        data.root,
        data.layout,
        split=adapted / "splits" / "val.txt",
        ground_truth=data.ground_truth or None,
        kb_crop=data.kb_crop,
        skip_missing=data.skip_missing,
    )
    pairs.use_proxies(adapted / "proxies")
    return pairs, MATCHED
