"""A process in which CUDA tensors are fake ones: the guard must be there before torch is, and stays for good.

So what needs it runs in a child, and the caller's own process remains as it was.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, ParamSpec, TypeVar

from .build import guard_library

P = ParamSpec("P")
R = TypeVar("R")

# The child has nothing but the library's path to go by until the guard is loaded.
_BOOT = (
    "import ctypes, sys; ctypes.CDLL(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    "from adu_kernels.testing.fake_cuda.child import serve; serve()"
)


class FakeCudaError(RuntimeError):
    """A call failed in the child; the message is its traceback, `kind` the exception's class by name."""

    def __init__(self, kind: str, traceback: str) -> None:
        super().__init__(traceback)
        self.kind = kind


class FakeCudaProcess:
    """Runs functions in a child process in which "cuda:0" is a fake device. A context manager.

    Raises Unavailable where there can be none (no C++ compiler, a GPU build of torch), DoesNotCompile where there
    should be one.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-c", _BOOT, str(guard_library()), *sys.path]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """function(*args, **kwargs), run in the child. All of it is pickled: the function must be importable by name.

        Raises FakeCudaError for whatever it raised there.
        """
        request, reply = self._child.stdin, self._child.stdout
        assert request is not None
        assert reply is not None
        try:
            send(request, (function, args, kwargs))
            done, value = receive(reply)
        except (EOFError, BrokenPipeError):
            raise FakeCudaError("EOFError", f"the fake CUDA process ended with code {self._child.wait()}") from None
        if not done:
            raise FakeCudaError(*value)
        result: R = value
        return result

    def close(self) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it ended before
            self._child.stdin.close()
        self._child.wait(timeout=30)
        assert self._child.stdout is not None
        self._child.stdout.close()

    def __enter__(self) -> FakeCudaProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def send(stream: IO[bytes], value: Any) -> None:
    """One pickled value with its length in front: what cannot be pickled leaves the stream as it was."""
    body = pickle.dumps(value)
    stream.write(len(body).to_bytes(8, "little") + body)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next value. Raises EOFError where the other end is gone."""
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(head, "little")))
