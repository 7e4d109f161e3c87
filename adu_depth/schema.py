"""What a file of this project may say: kinds, ranges, lengths and depth, looked at before anything is made of it.

A schema is a type, the one that the code works with anyway: a dataclass, a TypedDict, list[T], tuple[T, …],
dict[str, T], Literal, Path, a union, int, float, bool, str, Any. `Annotated[T, Range(low, high)]` and
`Annotated[T, Length(most)]` narrow it. Whatever does not fit is one InputError: file, field, expected, got.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from adu_depth.errors import InputError
from adu_depth.files import read_text
from adu_kernels.checks import plain_number

MOST_DEPTH = 32
MOST_PARTS = 200_000
"""Objects and lists in one file: each takes a hundred times the two bytes that it is written with."""
MOST_VALUES = 4_000_000
MOST_DIGITS = 20
SHOWN = 60  # characters of a wrong value that a message shows
_BROKEN = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; low itself is left out with `above`, high itself with `below`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        low, high = (f"{n:,}" if isinstance(n, int) else f"{n:g}" for n in (self.low, self.high))
        if not (self.above or self.below):
            return f"from {low} to {high}"
        return f"{'above' if self.above else 'from'} {low}, {'below' if self.below else 'at most'} {high}"


@dataclass(frozen=True)
class Length:
    """Letters of a text, members of a list or an object: at most so many, at least `least`."""

    most: int
    least: int = 0


def read_json(path: str | Path, schema: Any = dict[str, Any]) -> Any:
    """What a JSON file says, as `schema` has it: dataclasses are made of objects, tuples of lists.

    Raises InputError if the file cannot be read, is no JSON, has a name twice in one object, numbers that are not
    finite, or does not fit the schema.
    """
    return check(schema, parse_json(read_text(path), path), path)


def parse_json(text: str, source: str | Path, *, non_finite: bool = False) -> Any:
    """JSON that came from `source`; its size and depth are looked at first. InputError if it is none.

    non_finite: take NaN and Infinity too, which Python writes and JSON has not.
    """
    parts, values = text.count("{") + text.count("["), text.count(",")
    if parts > MOST_PARTS or values > MOST_VALUES:
        raise InputError(
            f"{source}: cannot be read: expected at most {MOST_PARTS:,} objects and lists and {MOST_VALUES:,} values, "
            f"got {parts:,} and {values:,}"
        )
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=partial(_number, non_finite),
            parse_constant=partial(_number, non_finite),
        )
    except RecursionError:
        reason = f"expected at most {MOST_DEPTH} objects and lists within each other, got more"
    except ValueError as error:
        reason = f"not JSON: {error}"
    raise InputError(f"{source}: cannot be read: {reason}")


def check(schema: Any, value: Any, source: str | Path, field: str = "") -> Any:
    """`value`, read from `source`, as `schema` has it. Raises InputError naming source, field, expected and got."""
    try:
        return _fit(schema, value, 0)
    except _Misfit as misfit:
        if field:
            misfit.inside(field)
        if not misfit.field:
            raise InputError(f"{source} must hold {misfit.expected}, got {misfit.got}") from None
        raise InputError(f"{source}: {misfit.field}: expected {misfit.expected}, got {misfit.got}") from None
    except InputError as error:  # a dataclass's own rules, which name their field
        raise InputError(f"{source}: {error}") from error


def check_ranges(settings: Any, prefix: str = "") -> None:
    """For a dataclass's __post_init__: InputError for a number that its Annotated type does not allow, and for what
    `require_kinds` refuses."""
    require_kinds(settings, prefix)
    made: Any = type(settings)
    for name, kind in _hints(made).items():
        try:
            _ranges(kind, getattr(settings, name))
        except _Misfit as misfit:
            raise InputError(f"{prefix}{name}: expected {misfit.expected}, got {misfit.got}") from None


def require_kinds(settings: Any, prefix: str = "") -> None:
    """For a dataclass's __post_init__, before it compares settings or asks for parts of them: InputError for a single
    value, none or another number of them where there are several, and for what is no number, text or dataclass, alone
    or among several, where the type asks for one. Ranges are not looked at. Numbers of numpy become Python's."""
    _plain_numbers(settings)
    made: Any = type(settings)
    for field in fields(made):
        schema, value = _hints(made)[field.name], getattr(settings, field.name)
        kinds = _tuple_of(schema)
        try:
            if kinds is not None and not (value is None and NoneType in get_args(schema)):
                _require_several(kinds, value, field.default)
            _require_kind(schema, value)
        except _Misfit as misfit:
            raise InputError(f"{prefix}{field.name}: expected {misfit.expected}, got {misfit.got}") from None


def _require_several(kinds: tuple[Any, ...], value: Any, default: Any) -> None:
    several = isinstance(value, tuple | list)
    if several and (kinds[-1] is Ellipsis or len(value) == len(kinds)):
        return
    count = "a tuple" if kinds[-1] is Ellipsis else f"{len(kinds)} values"
    example = f", such as {default}" if isinstance(default, tuple) and default else ""
    raise _Misfit(f"{count}{example}", shown(tuple(value) if several else value))


def _require_kind(schema: Any, value: Any) -> None:
    """The kinds of `_ranges`, by which it may compare and count, words that are one of some, and true or false."""
    origin = get_origin(schema)
    if origin in (Union, UnionType):
        others = [kind for kind in get_args(schema) if kind is not NoneType]
        if value is not None and len(others) == 1:
            _require_kind(others[0], value)
    elif origin is tuple and isinstance(value, tuple | list):
        kinds = get_args(schema)
        for kind, part in zip(kinds if kinds[-1] is not Ellipsis else kinds[:1] * len(value), value, strict=True):
            _require_kind(kind, part)
    elif origin is Annotated and get_origin(kind := get_args(schema)[0]) is not None:
        _require_kind(kind, value)
    elif origin is Literal:
        if value not in get_args(schema):
            raise _Misfit(f"one of {', '.join(map(str, get_args(schema)))}", shown(value))
    elif schema is bool:
        if not isinstance(value, bool):
            raise _Misfit(_expected(schema), shown(value))
    else:
        made: Any = get_args(schema)[0] if origin is Annotated else schema
        if (made in _SCALARS or is_dataclass(made)) and not _is_of(made, value):
            raise _Misfit(_expected(schema) if made in _SCALARS else f"a {made.__name__}", shown(value))


def _tuple_of(schema: Any) -> tuple[Any, ...] | None:
    """The parts of a tuple's type, Ellipsis last where there may be any number; None of a type that is none."""
    origin = get_origin(schema)
    if origin is Annotated:
        return _tuple_of(get_args(schema)[0])
    if origin in (Union, UnionType):
        return next((found for kind in get_args(schema) if (found := _tuple_of(kind)) is not None), None)
    return get_args(schema) if origin is tuple else None


def _plain_numbers(settings: Any) -> None:
    """Numbers of numpy in a dataclass, frozen or not, become Python's, so that they can be written as JSON."""
    for name, value in vars(settings).items():
        plain = plain_number(value)
        if type(value) in (tuple, list):
            plain = type(value)(map(plain_number, value))
        object.__setattr__(settings, name, plain)


def shown(value: Any) -> str:
    """A value for a message: JSON's kinds by name, the rest as written, short."""
    if isinstance(value, dict | list):
        return f"{_kind(value)} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**MOST_DIGITS:
        return f"a number of more than {MOST_DIGITS} digits"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


class _Misfit(Exception):
    """What was expected, what came, and in which field: each part of a value that is left puts its name before it."""

    def __init__(self, expected: str, got: str, field: str = "") -> None:
        super().__init__(expected, got)
        self.expected, self.got, self.field = expected, got, field

    def inside(self, name: Any) -> _Misfit:
        part = f"[{name}]" if isinstance(name, int) else shown(name)[1:-1]
        between = "." if self.field and not self.field.startswith("[") else ""
        self.field = f"{part}{between}{self.field}"
        return self


def _fit(schema: Any, value: Any, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise _Misfit(f"at most {MOST_DEPTH} objects and lists within each other", "more")
    origin = get_origin(schema)
    if origin is Annotated:
        kind, *rules = get_args(schema)
        fitted = _fit(kind, value, depth)
        _follow(rules, kind, fitted)
        return fitted
    if origin in (Union, UnionType):
        return _fit_union(get_args(schema), value, depth)
    if origin is Literal:
        if isinstance(value, str | int) and value in get_args(schema):
            return value
        raise _Misfit(_expected(schema), shown(value))
    if origin in (list, tuple, Sequence):
        return _fit_list(origin, get_args(schema), value, depth)
    if origin is dict:
        _require_object(value)
        kind = get_args(schema)[1]
        return {_text(name): _part(kind, part, name, depth) for name, part in value.items()}
    if is_typeddict(schema) or is_dataclass(schema):
        return _fit_object(schema, value, depth)
    return _fit_scalar(schema, value, depth)


def _part(schema: Any, value: Any, name: Any, depth: int) -> Any:
    try:
        return _fit(schema, value, depth + 1)
    except _Misfit as misfit:
        raise misfit.inside(name) from None


def _fit_union(kinds: Sequence[Any], value: Any, depth: int) -> Any:
    if value is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    for kind in others[:-1]:
        try:
            return _fit(kind, value, depth)
        except _Misfit:
            continue
    return _fit(others[-1], value, depth)


def _fit_list(origin: Any, kinds: tuple[Any, ...], value: Any, depth: int) -> Any:
    if not isinstance(value, list | tuple):
        raise _Misfit("a JSON list", _kind(value))
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise _Misfit(f"a list of {len(kinds)}", f"a list of {len(value)}")
    else:
        kinds = (kinds[0],) * len(value)
    found = (_part(kind, part, i, depth) for i, (kind, part) in enumerate(zip(kinds, value, strict=True)))
    return tuple(found) if origin is tuple else list(found)


def _fit_object(schema: Any, value: Any, depth: int) -> Any:
    _require_object(value)
    hints = _hints(schema)
    made = is_dataclass(schema)
    required = {f.name for f in fields(schema) if _required(f)} if made else schema.__required_keys__
    for name in required - value.keys():
        raise _Misfit(_expected(hints[name]), "nothing").inside(name)
    for name in value.keys() - hints.keys() if made else ():
        raise _Misfit(f"no such name; known are {', '.join(hints)}", "one").inside(name)
    found = {_text(name): _part(hints.get(name, Any), part, name, depth) for name, part in value.items()}
    return schema(**found) if made else found


def _fit_scalar(schema: Any, value: Any, depth: int) -> Any:
    if schema is Any:
        _look_through(value, depth)
        return value
    if schema is Path and isinstance(value, str):
        return Path(_text(value))
    if schema is str and isinstance(value, str):
        return _text(value)
    if schema is bool and isinstance(value, bool):
        return value
    if schema in (int, float) and _is_of(schema, value):
        return schema(value)
    raise _Misfit(_expected(schema), shown(value))


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of one kind: a whole number is a number too, true and false are none."""
    return isinstance(value, _SCALARS.get(kind, kind)) and (kind not in (int, float) or not isinstance(value, bool))


def _look_through(value: Any, depth: int) -> None:
    """Depth and texts of a value that may be anything; millions of numbers in a second."""
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, dict | list):
        if depth > MOST_DEPTH:
            raise _Misfit(f"at most {MOST_DEPTH} objects and lists within each other", "more")
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(part, str | dict | list):
                try:
                    _look_through(part, depth + 1)
                except _Misfit as misfit:
                    raise misfit.inside(name) from None
        if isinstance(value, dict):
            for name in value:
                _text(name)


def _ranges(schema: Any, value: Any) -> None:
    """The rules of Annotated numbers alone: what the command line filled has the right kinds already."""
    origin = get_origin(schema)
    if origin is Annotated:
        kind, *rules = get_args(schema)
        _follow(rules, kind, value)
        _ranges(kind, value)
    elif origin is tuple and isinstance(value, tuple | list):
        kinds = get_args(schema)
        for kind, part in zip(kinds if kinds[-1] is not Ellipsis else kinds[:1] * len(value), value, strict=False):
            _ranges(kind, part)
    elif origin in (Union, UnionType) and value is not None:
        for kind in get_args(schema):
            if kind is not NoneType:
                _ranges(kind, value)


def _follow(rules: Sequence[Any], kind: Any, value: Any) -> None:
    for rule in rules:
        if isinstance(rule, Range) and not rule.holds(value):
            raise _Misfit(f"{_expected(kind)} {rule}", shown(value))
        if isinstance(rule, Length) and not rule.least <= len(value) <= rule.most:
            told = f"{rule.least} to {rule.most:,}" if rule.least else f"at most {rule.most:,}"
            raise _Misfit(f"{told} {'characters' if isinstance(value, str) else 'members'}", f"{len(value):,}")


@cache
def _hints(schema: Hashable) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _require_object(value: Any) -> None:
    if not isinstance(value, dict):
        raise _Misfit("a JSON object", _kind(value))


def _text(value: str) -> str:
    """Text that can be part of a path and be written again: no null, no half of a character.

    Bytes of a file name that are no UTF-8 stand in U+DC80 to U+DCFF (Python's surrogateescape); those pass.
    """
    if not value.isprintable() and _BROKEN.search(value):
        raise _Misfit("text of whole characters", shown(value))
    return value


_SCALARS: dict[Any, Any] = {int: int, float: int | float, str: str, Path: str | Path}
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "text"}
KINDS = {dict: "object", list: "list", str: "str", bool: "bool", int: "int", float: "float", NoneType: "null"}


def _expected(schema: Any) -> str:
    origin = get_origin(schema)
    if origin is Annotated:
        kind, *rules = get_args(schema)
        ranges = [str(rule) for rule in rules if isinstance(rule, Range)]
        return " ".join([_expected(kind), *ranges])
    if origin is Literal:
        return " or ".join(map(repr, get_args(schema)))
    if origin in (Union, UnionType):
        return " or ".join(_expected(kind) for kind in get_args(schema) if kind is not NoneType)
    if origin in (list, tuple, Sequence):
        return "a JSON list"
    return NAMES.get(schema, "a JSON object")


def _kind(value: Any) -> str:
    return KINDS.get(type(value), type(value).__name__)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {shown(twice)} is there twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, expected at most {MOST_DIGITS}")
    return int(digits)


def _number(non_finite: bool, written: str) -> float:
    value = float(written.replace("Infinity", "inf"))
    if not (non_finite or math.isfinite(value)):
        raise ValueError(f"{shown(written)} is not a finite number")
    return value
