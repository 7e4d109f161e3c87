"""The work of `adu-depth export`: capture, write under a temporary name, run beside PyTorch, rename."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from adu_depth.checkpoint import LoadedModel, load_model
from adu_depth.doctor.findings import counted
from adu_depth.errors import InputError
from adu_depth.export.compare import Comparison, check_images, compare, require_images
from adu_depth.export.config import ExportConfig
from adu_depth.export.graph import capture, tensor_graph
from adu_depth.export.note import Note
from adu_depth.export.opened import FORMATS, SUFFIXES, ExportedNetwork, format_of
from adu_depth.files import folder_name, replacing_with
from adu_depth.folder_lock import locked
from adu_depth.inference.predictor import Predictor
from adu_depth.models import LightConfig
from adu_depth.models.aggregation import Aggregation
from adu_depth.models.blocks import set_backend
from adu_depth.models.students import depth_range
from adu_depth.progress import Progress


def export(config: ExportConfig, console: Console) -> Path:
    """Writes the file, says how it compares with PyTorch, and returns its path.

    Raises InputError where the checkpoint cannot be used, a library is not installed, the network cannot be captured,
    or the file differs from PyTorch by more than the tolerance: nothing is written then.
    """
    progress, kind = Progress(console), FORMATS[config.format]
    if format_of(config.checkpoint) is not None:
        raise InputError(f"checkpoint {config.checkpoint}: expected a run or a checkpoint, got an exported file")
    kind.require_writer()
    path = output_of(config)
    loaded = load_model(config.checkpoint)
    use_references(loaded.model)
    note = note_of(config, loaded)
    require_images(config, stereo=note.kind == "teacher")
    with locked(path.parent, "export"):
        if loaded.path != config.checkpoint:
            progress.say(f"checkpoint {loaded.path}")
        program = capture(tensor_graph(loaded.model, note), note)
        predictor = Predictor.of(loaded)
        with replacing_with(*kind.files(path)) as temporary:
            kind.write(program, note, temporary)
            exported = ExportedNetwork(path, *kind.open_file(temporary))
            if not config.images:
                progress.say("compared on built-in scenes; --images DATA compares on yours")
            outcome = compare(predictor, exported, check_images(config, predictor, note), note)
            report(progress, note, outcome)
            refusal = outcome.refusal(note.precision, config.tolerance)
            if refusal:
                raise InputError(f"{path} is not written: {refusal}")
            size = sum(written.stat().st_size for written in kind.files(temporary))
    progress.say(f"wrote {path}, {size / 1e6:.1f} MB")
    return path


def use_references(network: nn.Module) -> None:
    """Makes of a network what is exported, and compared with: plain PyTorch, a teacher's volumes not channels-last.

    A graph holds torch's group norm of contiguous maps, the other being inexact on a CPU (2.13): volumes that lie so
    are not copied for it and back.
    """
    set_backend(network, "torch")
    for module in network.modules():
        if isinstance(module, Aggregation):
            module.use_layout(torch.contiguous_format)


def output_of(config: ExportConfig) -> Path:
    """Where the file goes. InputError for another suffix, where the name that a run gives is taken (runs of several
    folders may be called the same), and where a file that goes beside it would replace what is not of such a model."""
    suffix = SUFFIXES[config.format]
    path = config.output or Path("runs/exports") / f"{folder_name(config.checkpoint)}{suffix}"
    if path.suffix.lower() != suffix:
        raise InputError(f"output: expected a name ending in {suffix}, got {path}")
    kind = FORMATS[config.format]
    present = [file for file in kind.files(path) if file.exists()]
    if config.output is None and present:
        raise InputError(
            f"output: {present[0]} is there already, and may be another run's of that name: expected --output FILE "
            "(the same file, to replace it)"
        )
    beside = [file for file in present if file != path]  # nobody named these
    if beside and not kind.is_ours(path):
        raise InputError(
            f"output: {beside[0]} would be replaced, and belongs to no {path.name} that adu-depth wrote: expected "
            "another name, or a folder without such a file"
        )
    return path


def note_of(config: ExportConfig, loaded: LoadedModel) -> Note:
    """What the file will say of itself."""
    own = loaded.model.config
    light = own if isinstance(own, LightConfig) else None
    fixed = loaded.fit == "resize" or light is not None
    size = None if config.dynamic else config.size or (loaded.size if fixed else None)
    if size is None and loaded.kind == "teacher":
        raise InputError(
            "size: a stereo teacher's file is for one size: its cost volume is cut to the width, a slice for each "
            "disparity, and no other width would give its depths; expected --size HEIGHT WIDTH"
        )
    low, high = depth_range(loaded.model)
    return Note(
        kind=loaded.kind,
        precision=config.precision,
        size=size,
        batch=config.batch_size,
        uint8=config.uint8,
        pads=light is None,
        log_scale=light is None or light.log_scale,
        min_depth=low,
        max_depth=high,
        reference_focal=getattr(own, "reference_focal", None),
        trained_size=loaded.size,
        fit=loaded.fit,
        short_side=loaded.short_side,
        checkpoint=str(loaded.path),
        made_by=f"adu-depth {version('adu-depth')}, torch {torch.__version__}",
    )


def report(progress: Progress, note: Note, outcome: Comparison) -> None:
    """How the file compares, a line each output, and how long a call takes."""
    sizes = sorted(outcome.sizes)
    shown = ", ".join(f"{h}×{w}" for h, w in sizes[:3]) + (", …" if len(sizes) > 3 else "")
    progress.say(f"{note.precision} file beside PyTorch in fp32, {outcome.images} images at {shown}:")
    kinds = {"depth": "relative", "log_scale": "of the logarithm", "disparity": "relative, to 1 pixel at least"}
    for name, difference in outcome.differences.items():
        progress.say(
            f"  {name}: largest difference {difference.largest:.2e}, mean {difference.mean:.2e} ({kinds[name]})"
        )
    eager, file = (1e3 * seconds for seconds in outcome.seconds)
    height, width = outcome.timed_at
    threads = counted(torch.get_num_threads(), "thread")
    progress.say(f"  one call at {height}×{width}, {threads}: PyTorch {eager:.1f} ms, the file {file:.1f} ms")
