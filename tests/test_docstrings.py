"""Every public name says what it takes, gives and raises, and shows a call whose result is what it says."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch

import adu_kernels
from adu_depth import data, evaluation, hub, inference, models
from adu_kernels.concat_free_conv.op import concat_free_conv3d
from tests.doc_examples import run_examples

OPERATIONS = {name: getattr(adu_kernels, name) for name in adu_kernels.__all__} | {
    "concat_free_conv3d": concat_free_conv3d
}
DEPTH = {name: getattr(evaluation, name) for name in evaluation.__all__ if name.endswith("_metrics")} | {
    "SyntheticStereo": data.SyntheticStereo,
    "collate": data.collate,
    "MonoStudent": models.MonoStudent,
    "LightStudent": models.LightStudent,
    "LightTeacher": models.LightTeacher,
    "StereoTeacher": models.StereoTeacher,
    "Predictor": inference.Predictor,
    "AduDepthModel": hub.AduDepthModel,
    "AduDepthConfig": hub.AduDepthConfig,
    "AduDepthImageProcessor": hub.AduDepthImageProcessor,
}
RECORDS = {"StereoSample": data.StereoSample, "DepthPrediction": models.DepthPrediction}
NAMESPACE = {"torch": torch, "TeacherConfig": models.TeacherConfig, **OPERATIONS, **DEPTH, **RECORDS}
SECTIONS = ["Args", "Returns", "Raises", "Example"]
SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}|METHOD §\d|`torch\.nn\.functional\.")
"""Where the definition of an operation comes from."""


def sections(docstring: str) -> dict[str, str]:
    """By name, the indented text below "Args:" and the like."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            name = heading[1]
        elif line and not line.startswith(" "):
            name = ""
        found.setdefault(name, []).append(line)
    return {name: "\n".join(lines) for name, lines in found.items() if name}


def described(arguments: str) -> set[str]:
    """The parameters that a section of arguments names, "left, right: …" both."""
    heads = re.findall(r"^    (\w+(?:, \w+)*): ", arguments, re.MULTILINE)
    return {name for head in heads for name in head.split(", ")}


def parameters(value: Any) -> set[str]:
    return set(inspect.signature(value).parameters)


def run(value: Any, name: str) -> None:
    run_examples(inspect.getdoc(value) or "", name, NAMESPACE | {name: value})


@pytest.mark.parametrize("name", [*OPERATIONS, *DEPTH, *RECORDS])
def test_the_example_gives_what_it_says(name: str) -> None:
    run(NAMESPACE[name], name)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.endswith(("Terms", "Weights"))])
def test_an_operation_says_what_it_takes_gives_and_raises(name: str) -> None:
    docstring = inspect.getdoc(OPERATIONS[name]) or ""
    found = sections(docstring)
    assert list(found) == SECTIONS
    assert described(found["Args"]) == parameters(OPERATIONS[name])
    assert described(found["Raises"]) == {"ValueError", "TypeError"}
    assert SOURCE.search(docstring), "the source of the definition"


@pytest.mark.parametrize("name", DEPTH)
def test_a_function_of_adu_depth_says_what_it_takes_gives_and_raises(name: str) -> None:
    found = sections(inspect.getdoc(DEPTH[name]) or "")
    assert list(found) == SECTIONS
    assert described(found["Args"]) == parameters(DEPTH[name])
    assert "InputError" in described(found["Raises"])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_what_it_holds(name: str) -> None:
    found = sections(inspect.getdoc(RECORDS[name]) or "")
    assert list(found) == ["Attributes", "Example"]
    assert described(found["Attributes"]) == parameters(RECORDS[name])


def planted(x: int) -> int:
    """Adds one.

    Args:
        y: a number.

    Example:
        >>> planted(1)
        3
    """
    return x + 1


def without_example(x: int) -> int:
    """Adds one. >>> is not at the beginning of a line here."""
    return x + 1


def test_a_wrong_example_a_missing_one_and_a_wrong_name_are_seen() -> None:
    with pytest.raises(AssertionError, match=r"(?s)Expected:\s+3\s+Got:\s+2"):
        run(planted, "planted")
    with pytest.raises(AssertionError, match="no call with a result"):
        run(without_example, "without_example")
    found = sections(inspect.getdoc(planted) or "")
    assert list(found) == ["Args", "Example"]
    assert described(found["Args"]) == {"y"} != parameters(planted)
