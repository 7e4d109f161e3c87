"""The processes that read a data set: they leave signals to the training, end with it, and are missed when they end."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import queues
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from adu_depth.errors import InputError
from adu_depth.stopping import leave_signals_to_parent, signals_wait

LOOK_EVERY = 0.5  # seconds between looks whether workers live, while their data is waited for; torch's are 5
WITHOUT = "--loop.workers 0 reads without worker processes"
T = TypeVar("T")


def read_or_told(read: Callable[[], T], index: int) -> T | InputError:
    """What `read` gives, or what a user must hear of a bad file, as a value: raised in a worker it would arrive as a
    traceback. index: of the sample."""
    try:
        return read()
    except InputError as error:
        return error
    except (OSError, MemoryError) as error:
        return InputError(f"sample {index} of the data set cannot be read: {str(error) or 'out of memory'}")


def delivered(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """What `loader` gives. InputError with the reason within seconds where one of its workers is lost.

    Closing it ends the workers at once, whatever they are doing.
    """
    if not loader.num_workers:
        yield from loader
        return
    heard, told = multiprocessing.Pipe(duplex=False)
    # multiprocessing's "forkserver" is the parent of its processes, and ends with the training itself.
    served = (loader.multiprocessing_context or multiprocessing).get_start_method() == "forkserver"
    # To Linux a thread is a parent too, and this one may end before the training does.
    tied = served or threading.current_thread() is threading.main_thread()
    loader.worker_init_fn = partial(_start, told, None if served else os.getpid(), tied)
    iterator = _started(loader)
    workers: Sequence[multiprocessing.Process] = iterator._workers
    try:
        while True:
            try:
                _require_all(workers, heard)
                item = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                _require_all(workers, heard, patience=1.0)
                lacks = _lacking(str(error))  # while it put a batch together: such a worker has not ended
                if lacks:
                    raise InputError(f"a worker process (--loop.workers {len(workers)}) {lacks}") from error
                raise
            yield item
    finally:
        _end(iterator, workers)
        heard.close()
        told.close()


def _started(loader: DataLoader[Any]) -> Any:
    """The loader's iterator. torch raises the loss of a worker wherever the training is: here it is asked for."""
    before = signal.getsignal(signal.SIGCHLD)
    with signals_wait():
        iterator: Any = iter(loader)
    iterator._try_get_data = partial(iterator._try_get_data, LOOK_EVERY)
    with suppress(ValueError, TypeError):  # not in the main thread: torch has changed nothing there
        signal.signal(signal.SIGCHLD, before)
    return iterator


def _start(told: Connection, parent: int | None, tied: bool, worker: int) -> None:
    """First thing in a worker. What its queue cannot send is dropped without a word, unless the worker ends of it."""
    leave_signals_to_parent()
    if tied:
        _end_with(parent)

    def last_words(error: BaseException, item: object) -> None:
        told.send_bytes(f"{type(error).__name__}: {error}".encode(errors="replace")[:2000])
        os._exit(1)

    queues.Queue._on_queue_feeder_error = staticmethod(last_words)  # type: ignore[attr-defined]


def _end_with(parent: int | None) -> None:
    """A parent that was killed leaves no worker behind (where Linux can see to it; elsewhere torch does in seconds)."""
    if sys.platform.startswith("linux"):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def _require_all(workers: Sequence[multiprocessing.Process], heard: Connection, patience: float = 0.0) -> None:
    """InputError for a worker that ended without having been told to; waits `patience` seconds for one that ends."""
    try:
        _look_for_all(workers, heard, patience)
    except RuntimeError:  # torch's handler of SIGCHLD, left by another loader, says it in the middle of the look; once
        _look_for_all(workers, heard, patience)


def _look_for_all(workers: Sequence[multiprocessing.Process], heard: Connection, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        lost = next((worker for worker in workers if worker.exitcode), None)
        if lost is not None:
            words = heard.recv_bytes().decode(errors="replace") if heard.poll() else ""
            assert lost.exitcode is not None
            raise InputError(f"a worker process (--loop.workers {len(workers)}) {_reason(lost.exitcode, words)}")
        if time.monotonic() >= deadline:
            return
        time.sleep(0.02)


def _reason(exitcode: int, words: str) -> str:
    name = signal.Signals(-exitcode).name if exitcode < 0 else ""
    if lacks := _lacking("shared memory" if name == "SIGBUS" else words):
        return lacks
    if name == "SIGKILL":
        return (
            "was killed (SIGKILL), as the system does where memory runs out: "
            f"fewer workers or a lower --loop.prefetch need less; {WITHOUT}"
        )
    if words:
        return f"could not hand over what it read: {words}; {WITHOUT}"
    return f"ended unexpectedly ({name or f'exit code {exitcode}'}); {WITHOUT}"


def _lacking(words: str) -> str:
    """What a worker that says this has too little of, and what to do; "" where it says no such thing."""
    if "open files" in words or os.strerror(errno.EMFILE) in words:
        return f"may open no more files: raise the limit (ulimit -n), lower --loop.prefetch; {WITHOUT}"
    if "shared memory" in words or os.strerror(errno.ENOSPC) in words:
        room = _room("/dev/shm")
        return (
            f"found no room in shared memory{room}: give more (docker run --shm-size 2g), "
            f"lower --loop.prefetch or --loop.batch-size; {WITHOUT}"
        )
    return ""


def _room(folder: str) -> str:
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    return f" ({folder} holds {found.f_frsize * found.f_blocks / 2**20:.0f} MB)"


def _end(iterator: Any, workers: Sequence[multiprocessing.Process]) -> None:
    """Kills what is left of the workers: they write nothing, and torch's own way waits for the one that reads."""
    if not iterator._shutdown:
        # torch's way takes locks that a worker which was killed may hold for ever.
        iterator._shutdown = True
        signal_handling._remove_worker_pids(id(iterator))
        if hasattr(iterator, "_pin_memory_thread_done_event"):
            iterator._pin_memory_thread_done_event.set()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(timeout=5)  # one that waits for a disk that is gone cannot be killed
