"""Rules of the kernels' text that no interpreted run can see broken: Triton's interpreter fills what a mask hides with
zeros, a GPU leaves there what the register held.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import adu_kernels

pytestmark = pytest.mark.cpu

SOURCES = sorted(
    path
    for path in Path(adu_kernels.__file__).parent.rglob("*.py")
    if "@triton.jit" in path.read_text(encoding="utf-8")
)


def masked_loads_without_other(source: str) -> Iterator[int]:
    """Lines of loads with a mask that do not say what stands where it is false."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.load":
            given = {keyword.arg for keyword in node.keywords}
            if ("mask" in given or len(node.args) > 1) and "other" not in given and len(node.args) < 3:
                yield node.lineno


def test_every_kernel_file_is_looked_at() -> None:
    assert len(SOURCES) >= 8


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_masked_load_says_what_the_mask_hides(path: Path) -> None:
    lines = list(masked_loads_without_other(path.read_text(encoding="utf-8")))
    assert not lines, f"{path.name}: lines {lines}"


@pytest.mark.parametrize(
    ("call", "broken"),
    [
        ("tl.load(p)", False),
        ("tl.load(p, mask=m, other=0.0)", False),
        ("tl.load(p, m, 0.0)", False),
        ("tl.load(p, mask=m)", True),
        ("tl.load(p, m)", True),
    ],
)
def test_the_rule_is_seen(call: str, broken: bool) -> None:
    assert list(masked_loads_without_other(call)) == ([1] if broken else [])


def configs_handed_over(source: str) -> Iterator[int]:
    """Lines that call a function decorated `triton.constexpr_function`, of whatever file, with a config as a whole."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CONSTEXPR_FUNCTIONS:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(ast.unparse(one) == "config" for one in given):
                yield node.lineno


CONSTEXPR_FUNCTIONS = {
    node.name
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef) and "triton.constexpr_function" in map(ast.unparse, node.decorator_list)
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_constexpr_functions_take_fields_of_a_config(path: Path) -> None:
    """Triton 3.6.0 hands no NamedTuple over to them: interpreted it loses its names, compiled it is an error."""
    lines = list(configs_handed_over(path.read_text(encoding="utf-8")))
    assert not lines, f"{path.name}: lines {lines}"


def test_a_config_handed_over_is_seen() -> None:
    assert {"dtype_of", "block_count"} <= CONSTEXPR_FUNCTIONS
    assert list(configs_handed_over("a = block_count(config.GROUPS)\nb = block_count(config)")) == [2]
