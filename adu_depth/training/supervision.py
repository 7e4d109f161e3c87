"""Whether there is anything to learn from, asked before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from adu_depth.checkpoint import kind_of
from adu_depth.data import SyntheticStereo
from adu_depth.data.config import BUILT_IN, DataConfig
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.identity import spread
from adu_depth.data.mixed import Mixed
from adu_depth.data.transforms import Resized, require_focal_lengths
from adu_depth.distillation.student_loss import FROM_TEACHER, TAUGHT_TERMS
from adu_depth.errors import InputError
from adu_depth.progress import Progress
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig

MOST_LOOKED_AT = 64
"""Frames that are read in search of one with ground truth; of usual data the first has some."""


def require_supervision(
    config: TeacherTrainingConfig | StudentTrainingConfig, source: Dataset, progress: Progress
) -> None:
    """InputError where no frame has ground truth to learn from, and no teacher stands in for it; or where there is no
    frame, or every weight that would teach is 0. Says how many frames have no ground truth, and what teaches there.

    A stereo teacher needs ground truth: the pair itself teaches it neither its uncertainty nor the features that are
    distilled. A student may learn from a teacher alone, which is said. Of several data sets that are mixed each must
    have ground truth, or something in its place: for a student its teacher, for a stereo teacher the pair.
    """
    stand_in = _stand_in(config)
    if isinstance(config, TeacherTrainingConfig) or _taught_by_pairs(config):
        require_pairs(source, config.data.root)
    if isinstance(config, StudentTrainingConfig) and not _reads_truth(config):
        return
    if isinstance(source, SyntheticStereo) and source.length is None:
        return
    named = [(f"{name}: " if name else "", samples) for name, samples in _named(source)]
    asked = zip(_unlabelled(source), named, strict=True)
    missing = [without or _missing_truth(config, samples, name) for without, (name, samples) in asked]
    if all(missing):
        reasons = "; ".join(name + reason for (name, _), reason in zip(named, missing, strict=True))
        if not isinstance(config, StudentTrainingConfig) or not stand_in:
            raise _nothing(config, reasons)
        unsure = "" if config.light and not config.model.log_scale else ", and nothing of its own uncertainty"
        progress.say(f"{reasons}: the student learns from its teacher alone{unsure}")
        return
    for (name, samples), reason in zip(named, missing, strict=True):
        if reason and not stand_in:
            raise _nothing(config, name + reason)
        without = len(samples) - sum(1 for _ in _labelled(samples))
        if reason or without:
            told = reason or f"{without:,} of {len(samples):,} frames have no ground truth"
            progress.say(f"{name}{told}: {stand_in or 'they teach nothing'}")


def require_pairs(source: Dataset, root: str) -> None:
    """InputError for a source of single images: a stereo teacher would miss the right view when its turn comes. root:
    of the data set where it is one alone; frames that lie in no files are asked for in a mixture only."""
    for name, samples in _named(source):
        asked = bool(name) or isinstance(samples, FileDataset | Resized)
        if asked and len(samples) and samples[0].right is None:
            raise InputError(
                f"{name or f'data.root {root}'}: a stereo teacher needs pairs, but this data set has no right images"
            )


def _stand_in(config: TeacherTrainingConfig | StudentTrainingConfig) -> str:
    """What teaches where there is no ground truth, in words; "" if nothing does."""
    if isinstance(config, TeacherTrainingConfig):
        return "the pair alone teaches there (loss.photometric)" if config.loss.photometric > 0 else ""
    taught, weights = config.teacher is not None, config.distillation
    if config.light:
        return "the teacher alone labels them" if taught else ""
    from_teacher = taught and any(getattr(weights, name) > 0 for name in FROM_TEACHER)
    if not (weights.silog > 0 or weights.uncertainty > 0 or from_teacher or (taught and weights.selective > 0)):
        more = ", ".join(["", *TAUGHT_TERMS]) if taught else " (and there is no teacher)"
        raise InputError(f"nothing to learn from: distillation.silog, uncertainty{more} are all 0")
    return "the teacher alone labels them" if from_teacher else ""


def _taught_by_pairs(config: StudentTrainingConfig) -> bool:
    return config.teacher is not None and kind_of(config.teacher) == "teacher"


def _reads_truth(config: StudentTrainingConfig) -> bool:
    """Whether a pixel of ground truth would teach anything."""
    weights = config.distillation
    if config.light:
        uncertain = config.model.log_scale and weights.uncertainty > 0
        return config.teacher is None or weights.truth_share > 0 or uncertain
    return bool(weights.silog or weights.uncertainty or weights.selective)


def _nothing(config: TeacherTrainingConfig | StudentTrainingConfig, reasons: str) -> InputError:
    folders = [root for root in roots_of(config.data) if root != BUILT_IN]
    advice = f"; `adu-depth doctor {folders[0]}` says what is there" if len(folders) == 1 else ""
    if isinstance(config, StudentTrainingConfig):
        advice += "; with --teacher a student may learn from that alone"
    return InputError(f"nothing to learn from: {reasons}{advice}")


def _named(source: Dataset) -> list[tuple[str, Dataset]]:
    """The data sets that are mixed, by the settings they come from; one alone, without a name."""
    return [(part.name, part.samples) for part in source.sources] if isinstance(source, Mixed) else [("", source)]


def _unlabelled(source: Dataset) -> list[str]:
    """Of each data set whose ground truth is not looked at, that it is not; "" of the others."""
    if not isinstance(source, Mixed):
        return [""]
    told = []
    for part in source.sources:
        if not part.labels and not len(part.samples):
            raise InputError(f"nothing to learn from: {part.name} has no frames")
        told.append("" if part.labels else f"{len(part.samples):,} frames without labels (labels=false)")
    return told


def roots_of(data: DataConfig) -> list[str]:
    """Of the data sets that are trained on."""
    return [data.root, *(source.root for source in data.mix)]


def require_camera(needs: str, source: Dataset, roots: Sequence[str]) -> None:
    """InputError where depth is to be scaled by a focal length that the data does not know. needs: who scales it, see
    `needs_focal`; "" if nobody. roots: where the data sets of `source` lie."""
    for (name, samples), root in zip(_named(source), roots, strict=False):
        require_focal_lengths(needs, samples, name or root)


def _missing_truth(config: TeacherTrainingConfig | StudentTrainingConfig, source: Dataset, name: str) -> str:
    """What is wrong with the ground truth, in words; "" as soon as one frame has a pixel of it in the model's range."""
    if len(source) == 0:
        raise InputError(f"nothing to learn from: {name or f'{config.data.root} has '}no frames")
    low, high = config.model.min_depth, config.model.max_depth
    looked = 0
    for index in _labelled(source):
        if looked == MOST_LOOKED_AT:
            break
        looked += 1
        target = source[index].training_target(config.data.dense)
        if bool((torch.isfinite(target) & (target >= low) & (target <= high)).any()):
            return ""
    if not looked:
        return f"none of the {len(source)} frames has ground truth"
    return (
        f"none of the {looked} frames looked at (of {len(source)}) has ground truth between {low:g} and {high:g} m "
        "(what is negative, NaN or infinite is none)"
    )


def _labelled(source: Dataset) -> Iterator[int]:
    """The frames that have a file of ground truth, or of proxies, evenly spread ones first."""
    named = source.samples if isinstance(source, Resized) else source
    for index in spread(len(source)):
        if not isinstance(named, FileDataset) or named.supervised(named.names[index]):
            yield index
