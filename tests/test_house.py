"""The rules of the house that a parser can see: which way imports point, and how much a function is told."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import adu_kernels

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("adu_kernels", "adu_depth", "bench")
MOST_PARAMETERS = 12
STILL_TOO_MANY: set[str] = set()
"""Functions that take more and are to take fewer, by folder. What no longer does must be taken out."""
OPERATORS = {"custom_op", "operator", "triton_op", "register_fake", "register_kernel", "impl"}
"""Decorators of a torch.library operator: its schema is the interface, in the implementation and in the fake alike."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules(package: str) -> dict[str, tuple[Path, ast.Module]]:
    """By dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = (path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imported(name: str, path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that these statements of the module `name` import: a.b of `from a import b`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def foreign_files(name: str, path: Path, tree: ast.Module) -> list[str]:
    """What an operation's module imports of another operation, but for public functions and their references."""
    operations = {other.parent.name for other in (ROOT / "adu_kernels").glob("*/op.py")}
    found = []
    for target in imported(name, path, ast.walk(tree)):
        package, _, rest = target.partition(".")
        operation, *inner = rest.split(".")
        if package != "adu_kernels" or operation not in operations - {name.split(".")[1]}:
            continue
        if len(inner) != 2 or inner[0] not in ("op", "reference") or inner[1] not in adu_kernels.__all__:
            found.append(target)
    return found


def test_an_operation_imports_of_another_what_is_public() -> None:
    """correlation_disparity's reference takes correlation_volume's: what a correlation is stands in one place."""
    found = {
        name: foreign
        for name, (path, tree) in modules("adu_kernels").items()
        if (path.parent / "op.py").is_file() and (foreign := foreign_files(name, path, tree))
    }
    assert not found, found


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("from ..cost_volume.reference import correlation_volume", False),
        ("from ..cost_volume.op import correlation_volume", False),
        ("from ..cost_volume.reference import check_pair", True),
        ("from ..cost_volume import reference", True),
        ("from ..cost_volume.launch import cost_volume", True),
        ("from ..stereo import view_sign", False),
        ("from .launch import anything", False),
        ("import adu_kernels.cost_volume.kernels", True),
    ],
)
def test_a_private_import_is_seen(line: str, seen: bool) -> None:
    here = ROOT / "adu_kernels" / "group_norm" / "reference.py"
    assert bool(foreign_files("adu_kernels.group_norm.reference", here, ast.parse(line))) == seen


def when_loaded(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is loaded: none within a function or for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from when_loaded(child)


@pytest.mark.parametrize("package", PRODUCT)
def test_no_file_of_the_product_imports_tests(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {target}"
        for name, (path, tree) in modules(package).items()
        for target in imported(name, path, ast.walk(tree))
        if target.split(".")[0] == "tests"
    ]
    assert not found, found


@pytest.mark.parametrize(("package", "above"), [("adu_kernels", ("adu_depth", "bench")), ("adu_depth", ("bench",))])
def test_nothing_points_back(package: str, above: tuple[str, ...]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {target}"
        for name, (path, tree) in modules(package).items()
        for target in imported(name, path, ast.walk(tree))
        if target.split(".")[0] in above
    ]
    assert not found, found


def imports_of(package: str) -> dict[str, set[str]]:
    """By module, those of the package that it imports when it is loaded."""
    every = modules(package)
    found: dict[str, set[str]] = {}
    for name, (path, tree) in every.items():
        targets = imported(name, path, when_loaded(tree))
        named = (target if target in every else target.rpartition(".")[0] for target in targets)
        found[name] = {target for target in named if target in every}
    return found


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules that can be reached from themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    return {name for name in graph if name in reached(name)}


def test_a_circle_is_seen() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}
    assert "adu_kernels.cost_volume.op" in imports_of("adu_kernels")["adu_kernels"]


@pytest.mark.parametrize("package", PRODUCT)
def test_no_import_circle(package: str) -> None:
    assert not in_circles(imports_of(package))


def test_adu_depth_imports_nothing_of_its_own_late() -> None:
    """But for the command, whose imports take seconds: signals are seen to before them; and for the package's own name
    for a class of transformers', which nothing else in the package imports."""
    late = {
        f"{name}: {target}"
        for name, (path, tree) in modules("adu_depth").items()
        for target in {*imported(name, path, ast.walk(tree))} - {*imported(name, path, when_loaded(tree))}
        if target.startswith("adu_depth.")
    }
    assert late == {"adu_depth.entry: adu_depth.cli.command", "adu_depth: adu_depth.hub.AduDepthModel"}


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def decorators(function: Function) -> set[str]:
    """Their last names: "jit" of `@triton.jit`, "custom_op" of `@torch.library.custom_op(…)`."""
    called = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return {ast.unparse(node).split(".")[-1] for node in called}


@cache
def called_by_kernels() -> set[str]:
    """Names that some kernel of adu_kernels calls, but for Triton's own, as `tl.gather`."""
    return {
        ast.unparse(node.func).split(".")[-1]
        for _, tree in modules("adu_kernels").values()
        for function in functions(tree)
        if "jit" in decorators(function)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and not ast.unparse(node.func).startswith("tl.")
    }


def may_take_many(name: str, path: Path, function: Function) -> bool:
    """Public operations and their references, operators, kernels that no other kernel calls."""
    if function.name in adu_kernels.__all__ and path.name in ("op.py", "reference.py"):
        return True
    kinds = decorators(function)
    return bool(kinds & OPERATORS) or ("jit" in kinds and function.name not in called_by_kernels())


def too_many(package: str) -> dict[str, int]:
    found = {}
    for name, (path, tree) in modules(package).items():
        for function in functions(tree):
            given = function.args
            count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
            if count > MOST_PARAMETERS and not may_take_many(name, path, function):
                found[f"{'.'.join(name.split('.')[:2])}: {function.name}"] = count
    return found


def test_no_function_has_more_than_a_dozen_parameters() -> None:
    found = {name: count for package in PRODUCT for name, count in too_many(package).items()}
    more = {name: count for name, count in found.items() if name not in STILL_TOO_MANY}
    assert not more, f"more than {MOST_PARAMETERS} parameters (options and constants travel as one NamedTuple): {more}"
    fewer = STILL_TOO_MANY - set(found)
    assert not fewer, f"no longer more than {MOST_PARAMETERS} parameters, take them out of STILL_TOO_MANY: {fewer}"


def test_only_command_lines_import_tyro() -> None:
    """Settings are made, and benchmarks run, where it is not installed."""
    found = {
        name
        for package in PRODUCT
        for name, (path, tree) in modules(package).items()
        for target in imported(name, path, ast.walk(tree))
        if target.split(".")[0] == "tyro"
    }
    assert found == {"adu_depth.cli", "adu_depth.parsing", "bench.__main__"}
