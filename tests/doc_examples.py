"""Running the calls that docstrings and READMEs show."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from typing import Any

import torch


def run_examples(session: str, name: str, namespace: Mapping[str, Any]) -> None:
    """Fails where there is no call with a result, or where one gives another."""
    test = doctest.DocTestParser().get_doctest(session, dict(namespace), name, None, 0)
    assert any(example.want for example in test.examples), f"{name}: no call with a result"
    torch.manual_seed(0)
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not outcome.failed, "".join(said)
