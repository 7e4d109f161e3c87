"""How fast a training goes, what it waits for, and when it will be done: measured on the host, without asking the
device for anything that it would have to be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import torch

Item = TypeVar("Item")
DAY = 86_400.0


class ThroughputMeter:
    """Counts steps and the time that the loop spends waiting for its data.

    images_per_step: of all processes. steps: still to do. device: whose peak memory is told; of a CPU the memory that
    this process, without its workers, holds.
    """

    def __init__(
        self,
        images_per_step: int,
        steps: int,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.images_per_step, self.left, self.device, self.clock = images_per_step, steps, device, clock
        self.began = self.since = clock()
        self.done = self.steps = 0
        self.waited = self.waited_before = 0.0
        self.peak = 0
        self.note = ""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def next(self, stream: Iterator[Item]) -> Item:
        """The next of a stream of data; the time it takes to come is the time waited."""
        asked = self.clock()
        item = next(stream)
        self.waited += self.clock() - asked
        return item

    def step(self) -> None:
        """A step is done."""
        self.steps += 1

    def reading(self) -> dict[str, float]:
        """For a row of the history, since the last reading: `images_per_second`, everything included; `data_wait`, the
        share of the time spent waiting for data. Since the beginning: `peak_memory_mb` (10⁶ bytes); `seconds_left`, at
        the mean speed so far. `note` says the same in words."""
        now = self.clock()
        self.done, self.left = self.done + self.steps, self.left - self.steps
        passed = max(now - self.since, 1e-9)
        left = (now - self.began) / max(self.done, 1) * self.left
        self.peak = max(self.peak, self._memory())
        found = {
            "images_per_second": self.steps * self.images_per_step / passed,
            "data_wait": (self.waited - self.waited_before) / passed,
            "peak_memory_mb": self.peak / 1e6,
            "seconds_left": left,
        }
        self.note = (
            f"{found['images_per_second']:.1f} images/s  {found['data_wait']:.0%} waiting for data  "
            f"{found['peak_memory_mb']:,.0f} MB  ends {clock_time(time.time() + left, time.time())}"
        )
        self.steps, self.since, self.waited_before = 0, now, self.waited
        return found

    def summary(self) -> str:
        """What the whole training came to, in a sentence."""
        now = self.clock()
        done, passed = self.done + self.steps, max(now - self.began, 1e-9)
        self.peak = max(self.peak, self._memory())
        whose = "of the device" if self.device.type == "cuda" else "of this process"
        return (
            f"{done} steps in {passed:,.0f} s: {done * self.images_per_step / passed:.1f} images/s, "
            f"{self.waited / passed:.0%} of the time waiting for data, peak memory {whose} {self.peak / 1e6:,.0f} MB"
        )

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))  # the allocator's own count: no wait
        return int(psutil.Process().memory_info().rss)


def clock_time(moment: float, now: float) -> str:
    """A moment in local time: hours and minutes, with the date where it is not within a day."""
    form = "%H:%M" if moment - now < DAY else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(moment))
