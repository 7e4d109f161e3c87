"""How command lines are read by tyro: the one place that tells it of `adu_depth.arguments`."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from adu_depth.arguments import Argument


def settings_registry() -> ConstructorRegistry:
    """For tyro's `registry`: fields of dataclasses may say by an `Argument` where they stand on the command line."""
    registry = ConstructorRegistry()
    within = False

    @registry.struct_rule
    def with_arguments(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro makes of the dataclass by itself, each `Argument` put into its words."""
        nonlocal within
        if within or not is_dataclass(info.type) or _worded(info.type):
            return None
        within = True
        try:
            made = ConstructorRegistry.get_struct_spec(info)
        finally:
            within = False
        if not isinstance(made, StructConstructorSpec):
            return None
        return replace(made, fields=tuple(replace(field, type=_in_tyros_words(field.type)) for field in made.fields))

    @registry.primitive_rule
    def in_words(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kind: Any = info.type
        if not _worded(kind):
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar=kind.WORDS,
            instance_from_str=kind.from_words,
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: value.words(),
        )

    return registry


def _worded(kind: object) -> bool:
    """Whether it is a class as `arguments.Worded` says."""
    return isinstance(kind, type) and hasattr(kind, "from_words")


def _in_tyros_words(annotation: Any) -> Any:
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *others = get_args(annotation)
    positional = repeated = False
    for number, other in enumerate(others):
        if isinstance(other, Argument):
            positional |= other.positional
            repeated |= other.repeated
            others[number] = tyro.conf.arg(name=other.name, aliases=other.aliases or None)
    annotation = Annotated[(kind, *others)]
    if repeated:
        annotation = tyro.conf.UseAppendAction[annotation]
    return tyro.conf.Positional[annotation] if positional else annotation
