"""Faults planted into a training's task before its step is traced; they run in the fake CUDA process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adu_depth.training.tasks import StudentTask, TeacherTask

Task = TeacherTask | StudentTask


def _after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_hook(lambda _, given, result: (change(result[0]), *result[1:]))


def _encoder(task: Task) -> nn.Module:
    return task.network.encoder


def waits(task: Task) -> None:
    _after(_encoder(task), lambda m: m * m.mean().item())


def looks(task: Task) -> None:
    _after(_encoder(task), lambda m: m + m.mean().cpu().to(m.device))


def doubles(task: Task) -> None:
    _after(_encoder(task), lambda m: (m.double() * 2).to(m.dtype))


def copies(task: Task) -> None:
    _after(_encoder(task), lambda m: m.clone())


def uploads(task: Task) -> None:
    _after(_encoder(task), lambda m: m + torch.ones(1).to(m.device, non_blocking=True))


def uploads_without_waiting(task: Task) -> None:
    _after(_encoder(task), lambda m: m + torch.ones(1).pin_memory().to(m.device, non_blocking=True))


def takes_a_number_of_the_host(task: Task) -> None:
    _after(_encoder(task), lambda m: m * torch.tensor(2.0, device="cpu"))


def seeds(task: Task) -> None:
    _after(_encoder(task), lambda m: (m, torch.manual_seed(0))[0])


def waits_for_the_stream(task: Task) -> None:
    _after(_encoder(task), lambda m: (m, torch.cuda.Stream.synchronize(None))[0])


def forgets_a_parameter(task: Task) -> None:
    task.network.unused = nn.Parameter(torch.zeros(3, device="meta"))


def leaves_channels_last(task: Task) -> None:
    task.network.matching.register_forward_hook(lambda _, given, maps: tuple(m.contiguous() for m in maps))


def widens(task: Task) -> None:
    task.network.matching.register_forward_hook(lambda _, given, maps: tuple(m.float() for m in maps))


def copies_the_volume(task: Task) -> None:
    task.network.aggregation.register_forward_pre_hook(lambda _, given: (given[0].clone(), *given[1:]))
