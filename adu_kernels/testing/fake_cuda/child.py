"""The child's side of `FakeCudaProcess`: answers one call after the other."""

from __future__ import annotations

import os
import sys
import traceback

from .device import pretend_cuda
from .process import receive, send


def serve() -> None:
    """Answers until the other end closes. What calls print goes to stderr: stdout belongs to the answers."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pretend_cuda()
    while True:
        try:
            function, args, kwargs = receive(requests)
        except EOFError:
            break
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, (type(error).__name__, traceback.format_exc()))
        try:
            send(answers, answer)
        except Exception as error:  # what was returned cannot be pickled
            send(answers, (False, (type(error).__name__, traceback.format_exc())))
    sys.stderr.flush()
    os._exit(0)  # autograd's threads for the device would not end
