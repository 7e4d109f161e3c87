"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) do.

They end a command with one line and 128 + the signal's number; a training ends its step and saves its state first. What
was ignored when the program started stays ignored: `nohup` ignores SIGHUP, a shell SIGINT in the background. Signals
after the first change nothing, as one often comes twice (from the terminal and from the launcher); Ctrl-\\ and SIGKILL
end at once. This module is imported before anything that takes time, and imports nothing that does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 5.0  # seconds that a stopped command has to clean up, or to come back from a call that cannot be interrupted


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop. Raised in the main thread, wherever it is."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    def __reduce__(self) -> tuple[type, tuple[int]]:  # exceptions are made anew from `args`, which is the message
        return type(self), (self.signum,)


class _Handlers:
    """Handlers of SIGNALS that are put back at the end; none outside the main thread, nor of what is ignored."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}

    def install(self, handler: Any) -> None:
        for signum in SIGNALS:
            before = signal.getsignal(signum)
            if before is signal.SIG_IGN or before is None:  # None: installed by other than Python, cannot be put back
                continue
            try:
                self.before[signum] = signal.signal(signum, handler)
            except ValueError:  # not in the main thread: whoever started the thread handles signals
                return

    def restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)


class catch_signals:
    """Notes SIGNALS instead of dying of them, so that the step can end and be saved."""

    active = 0  # how many of these are open: while there is one, nobody else ends the program

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._handlers = _Handlers()

    def __enter__(self) -> list[int]:
        catch_signals.active += 1
        self._handlers.install(self._note)
        return self.caught

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.caught.append(signum)
        if end_on_signals.current is not None:  # what follows the saving is not to be stopped once more
            end_on_signals.current.first = signum

    def __exit__(self, *_: object) -> None:
        self._handlers.restore()
        catch_signals.active -= 1


class end_on_signals:
    """The first of SIGNALS raises `Stopped`, once; if the program is still there PATIENCE seconds later, it is ended.

    Until `started` is called a signal ends the program at once: modules that are being imported swallow exceptions, and
    there is nothing yet to clean up. last: nothing comes after this, so that a late signal is not worth a traceback.
    """

    current: ClassVar[end_on_signals | None] = None

    def __init__(self, last: bool = False) -> None:
        self.first: int | None = None  # the signal that stops the program; those after it change nothing
        self._last, self._starting = last, last
        self._handlers, self._over = _Handlers(), threading.Event()
        self._pipe: tuple[int, int] | None = None

    def started(self) -> None:
        self._starting = False

    def __enter__(self) -> end_on_signals:
        self._unraisable, self._outer = sys.unraisablehook, end_on_signals.current
        end_on_signals.current = self
        self._handlers.install(self._stop)
        if self._handlers.before:
            sys.unraisablehook = self._again
            self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        self.first = self.first or 0  # the work is over
        end_on_signals.current = self._outer
        if self._last:
            self._handlers.before = dict.fromkeys(self._handlers.before, signal.SIG_IGN)
        self._handlers.restore()
        self._over.set()
        if self._pipe is not None:
            sys.unraisablehook = self._unraisable
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])
            self._pipe = None

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if self.first is not None:
            return
        self.first = signum
        if self._starting:
            self._end(signum)
        raise Stopped(signum)

    def _again(self, unraisable: Any) -> None:
        """Python drops what is raised while an object is being destroyed: the signal then comes once more, after it."""
        if not isinstance(unraisable.exc_value, Stopped):
            self._unraisable(unraisable)
            return
        self.first = None
        threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.signum)).start()

    def _watch(self) -> None:
        """A thread hears of signals also while the main one is in a call that Python cannot interrupt."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(self._pipe[0],), daemon=True).start()

    def _listen(self, heard: int) -> None:
        while signums := os.read(heard, 1):
            if signums[0] not in self._handlers.before or catch_signals.active:
                continue
            if not self._over.wait(PATIENCE) and not catch_signals.active:
                self._end(signums[0])
        os.close(heard)

    def _end(self, signum: int) -> None:
        with suppress(OSError):  # the terminal is gone
            os.write(2, f"{Stopped(signum)}\n".encode())
        os._exit(128 + signum)


def stop_if_asked() -> None:
    """Raises Stopped again where a library made another error of it, as compiled code does that calls Python."""
    asked = end_on_signals.current
    if asked is not None and asked.first:
        raise Stopped(asked.first)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Signals arrive when this is over; a process that is forked meanwhile never gets them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """For a child process: the terminal and batch systems signal the whole group, and the parent decides."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _not_in_a_child() -> None:
    """The pipe is the parent's: a child must not write its own signals there."""
    signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_in_a_child)
