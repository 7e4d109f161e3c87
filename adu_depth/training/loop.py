"""The one training loop, for teacher and student alike."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed

from adu_depth.checkpoint import (
    checkpoint_path,
    remove_old,
    restore_checkpoint,
    save_checkpoint,
)
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.files import folder_name
from adu_depth.models.averages import Averages
from adu_depth.progress import Progress
from adu_depth.schema import check
from adu_depth.stopping import catch_signals
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.compilation import compile_parts, uncompiled
from adu_depth.training.config import LoopConfig, OptimizerConfig
from adu_depth.training.continuing import as_begun
from adu_depth.training.cuda_graphs import CudaGraphs
from adu_depth.training.good_checkpoints import (
    SeenStep,
    check_finite,
    inputs_finite,
    require_finite_loss,
)
from adu_depth.training.graph import Graphs, StepByGraph
from adu_depth.training.history import hardly_consistent
from adu_depth.training.overflows import Overflows
from adu_depth.training.processes import joined, patience_of, remarks
from adu_depth.training.resuming import chosen_checkpoint, offering_another, set_aside_newer
from adu_depth.training.run_folder import from_first, prepare_run_folder
from adu_depth.training.run_log import RunLog
from adu_depth.training.schedule import learning_rate_factor
from adu_depth.training.step import (
    PartByPart,
    StepParts,
    StepRunner,
    TrainingParts,
    make_optimizer,
    place_learning_rate,
    set_learning_rate,
)
from adu_depth.training.tasks import StepContext, StudentTask, TeacherTask
from adu_depth.training.throughput import ThroughputMeter
from adu_depth.training.trackers import OURS, Trackers, trackers_by_accelerate
from adu_depth.training.validation import Validation

Value = TypeVar("Value")
Batches = Callable[[int], Generator[TrainingBatch, None, None]]
"""The batches from a given step on; closing them ends the processes that read them."""


class Interrupted(RuntimeError):
    """The run was asked to stop by a signal, and has saved its state."""

    def __init__(self, signum: int, advice: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; {advice}")
        self.signum, self.advice = signum, advice

    def __reduce__(self) -> tuple[type, tuple[int, str]]:  # exceptions are made anew from `args`, which is the message
        return type(self), (self.signum, self.advice)


def make_accelerator(loop: LoopConfig, run: Path | None = None) -> Accelerator:
    """The accelerator for a run: its device, processes, precision and trackers. InputError where CUDA is asked for and
    absent, or a tracker's package. run: where trackers keep what they write to a disk."""
    if loop.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            'loop.device is "cuda", but torch sees no CUDA device: use "cpu", or install a CUDA build of torch'
        )
    on_cpu = loop.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and loop.mixed_precision == "fp16":
        raise InputError('loop.mixed_precision "fp16" needs a GPU: on a CPU use "bf16" or "no"')
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=loop.mixed_precision,
        log_with=trackers_by_accelerate(loop.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=None if run is None else str(run / "trackers")),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=patience_of(loop))],
    )
    set_seed(loop.seed)
    return accelerator


def train(
    run: Path,
    task: TeacherTask | StudentTask,
    batches: Batches,
    *,
    config: dict[str, Any],
    defaults: dict[str, Any],
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    accelerator: Accelerator,
    progress: Progress,
    teach: Callable[[TrainingBatch], TrainingBatch] = lambda batch: batch,
    validation: Validation | None = None,
) -> list[dict[str, float]]:
    """Trains `task` for loop.steps steps in the folder `run` and returns its history, one row per log_every steps and
    one per validation, which may end it earlier.

    config: the whole run's configuration as JSON values, kept beside the weights. defaults: the same of one in which
    nothing was chosen, for what a run's config.json is too old to name. teach: adds a teacher's outputs to a batch.
    Stops with NonFiniteLoss (the last good checkpoint stays), or with Interrupted after SIGINT, SIGTERM or SIGHUP.
    """
    group = ProcessGroup(accelerator.process_index, accelerator.num_processes)
    config, notes = from_first(accelerator, as_begun(run, {**config, "processes": group.world_size}, loop))
    for note in notes:
        progress.say(note)
    for remark in remarks(task, group, loop.batch_size):
        progress.say(remark)
    optimizer_config = check(OptimizerConfig, config["optimizer"], "optimizer")
    optimizer = make_optimizer(task, optimizer_config, accelerator.device)
    if accelerator.is_main_process:
        prepare_run_folder(run, config, loop, defaults)
    accelerator.wait_for_everyone()
    module = accelerator.prepare_model(task, evaluation_mode=True)  # processes are joined by an Exchange
    optimizer = accelerator.prepare(optimizer)
    exchange = joined(task, group)
    averages = Averages(task.network, loop.ema) if loop.ema else None
    done = chosen_checkpoint(run, loop)
    with offering_another(run, done):
        start = 0 if done is None else restore_checkpoint(done, task, optimizer, averages, accelerator.scaler)
    if start and averages is not None and not averages.updates:
        progress.say(f"{done} has no averages of its weights (loop.ema): they begin there")
    place_learning_rate(optimizer, accelerator.device)
    if start > loop.steps:
        raise InputError(f"checkpoint {done} has done {start} steps, more than the run's loop.steps of {loop.steps}")
    if done is not None and accelerator.is_main_process:
        for path in set_aside_newer(run, start):
            progress.say(f"set aside: {path}")
    accelerator.wait_for_everyone()
    if validation is not None:
        validation.resume(run, done, progress.say)
    warmup_steps = round(optimizer_config.warmup * loop.steps)
    unseen: list[SeenStep] = []
    overflows = None if accelerator.scaler is None else Overflows()
    saved = start or None  # the step of the newest checkpoint

    dense = bool(config["data"]["dense"])
    parts = TrainingParts(
        task,
        module,
        optimizer,
        accelerator,
        teach=teach,
        clip_norm=optimizer_config.clip_norm,
        dense=dense,
        averages=averages,
        accumulate=loop.accumulate,
        exchange=exchange,
    )
    if loop.compile:
        compile_parts(task.network, accelerator.device)
    runner = make_runner(parts, loop, accelerator, progress)

    def require_good(context: StepContext, batch: TrainingBatch) -> None:
        """Every process looks at its losses first, then at what the new weights give: no checkpoint is a bad one."""
        check_finite(unseen, run, group, overflows)
        beside_graphs(runner, lambda: require_finite_loss(task, parts.taught_whole(batch), context, accelerator, run))

    def validate(step: int) -> bool:
        assert validation is not None
        network = task.network if averages is None else averages.network()
        with uncompiled(network):
            return validation.run(run, step, network, log, progress, partial(beside_graphs, runner))

    def save(step: int, last: bool) -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            log.make_durable()  # a resumed run has its rows up to here
            save_checkpoint(
                *(run, step),
                kind=task.kind,
                module=task,
                optimizer=optimizer,
                config=config,
                keep=loop.keep_checkpoints + (not last),  # the next step may yet say that this one is bad
                averages=averages,
                scaler=accelerator.scaler,
                standing=None if validation is None else validation.standing,
            )

    module.train()
    with (
        catch_signals() as caught,
        closing(Trackers(accelerator, run, config, progress.say)) as trackers,
        closing(RunLog(run, start, accelerator.is_main_process, trackers, OURS in loop.trackers)) as log,
        progress.task(f"training {folder_name(run)}", loop.steps, start) as bar,
        closing(batches(start)) as stream,
    ):
        meter = ThroughputMeter(loop.pairs_per_step * group.world_size, loop.steps - start, accelerator.device)
        for step in range(start, loop.steps):
            if validation is not None and validation.exhausted():
                break
            batch = meter.next(stream)
            factor = learning_rate_factor(
                step, loop.steps, warmup_steps, optimizer_config.decay, optimizer_config.power
            )
            set_learning_rate(optimizer, optimizer_config.learning_rate * factor)
            context = StepContext(loop.seed, step, group.rank, step / loop.steps, dense, loop.accumulate)

            terms = runner.gradients(batch, context)
            look = partial(inputs_finite, partial(parts.taught_whole, batch))
            given_finite = partial(beside_graphs, runner, look) if step == saved else None
            unseen.append(SeenStep(step, list(batch.sample.name), terms, given_finite))
            if len(unseen) >= loop.check_every or step + 1 == loop.steps:
                check_finite(unseen, run, group, overflows)
            runner.update()

            meter.step()
            if (step + 1) % loop.log_every == 0 or step + 1 == loop.steps:
                log.write(step + 1, group.mean(terms), factor * optimizer_config.learning_rate, meter)
                if warning := hardly_consistent(log.rows):
                    progress.say(warning)
            bar.advance(log.note)
            stopping = stop_requested(caught, step, loop.check_every, accelerator)
            last = step + 1 == loop.steps
            saving = (step + 1) % loop.checkpoint_every == 0 or last or stopping
            due = validation is not None and validation.due(step + 1, loop.steps)
            if saving or due:
                require_good(context, batch)
            if due and validation is not None:
                saving = validate(step + 1) or validation.exhausted() or saving
                last = validation.exhausted() or last
            if saving:
                save(step + 1, last)
                saved = step + 1
            if stopping:
                raise Interrupted(
                    caught[0] if caught else signal.SIGTERM,
                    f"state saved in {checkpoint_path(run, step + 1)}: go on with --loop.resume",
                )
    if accelerator.is_main_process:
        remove_old(run, loop.keep_checkpoints)  # where a kill had come between the last one and this
    progress.say(f"{folder_name(run)}: {meter.summary()}")
    if validation is not None:
        validation.say_end(run, progress.say)
    if caught:  # too late for this training, but a quickstart has more to do
        raise Interrupted(caught[0], f"{run} is trained to its end")
    return log.rows


def make_runner(parts: StepParts, loop: LoopConfig, accelerator: Accelerator, progress: Progress) -> StepRunner:
    """By CUDA graphs where loop.graph is on, on one GPU; part by part elsewhere."""
    device = accelerator.device
    several = accelerator.num_processes > 1
    if loop.graph and several and not loop.graph_several and device.type == "cuda":
        progress.say("several processes: steps are run without CUDA graphs; --loop.graph-several tries them")
    elif loop.graph and (graphs := graphs_for(device)) is not None:
        return StepByGraph(parts, device, graphs, progress.say)
    return PartByPart(parts, device)


def graphs_for(device: torch.device) -> Graphs | None:
    """Where steps are captured on this device; None where there is no such thing."""
    return CudaGraphs(device) if device.type == "cuda" else None


def beside_graphs(runner: StepRunner, look: Callable[[], Value]) -> Value:
    """What `look` gives, which takes memory of its own; without graphs from here on where theirs leaves too little."""
    try:
        return look()
    except torch.OutOfMemoryError:
        if not runner.release():
            raise
    return look()  # here the exception is gone, and with its frames all that they held


def stop_requested(caught: list[int], step: int, check_every: int, accelerator: Accelerator) -> bool:
    """Whether to stop after this step. Several processes must agree, or one would wait for the others for ever."""
    if accelerator.num_processes == 1:
        return bool(caught)
    if (step + 1) % check_every:
        return False
    asked = torch.tensor(float(bool(caught)), device=accelerator.device)
    return bool(accelerator.reduce(asked, "sum") > 0)
