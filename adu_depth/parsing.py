"""How command lines are read by tyro: the one place that tells it of `adu_depth.arguments`."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from adu_depth.arguments import Argument


def settings_registry() -> ConstructorRegistry:
    """For tyro's `registry`: fields of dataclasses may say by an `Argument` where they stand on the command line."""
    registry = ConstructorRegistry()
    within = False

    @registry.struct_rule
    def with_arguments(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro makes of the dataclass by itself, each `Argument` put into its words."""
        nonlocal within
        if within or not is_dataclass(info.type):
            return None
        within = True
        try:
            made = ConstructorRegistry.get_struct_spec(info)
        finally:
            within = False
        if not isinstance(made, StructConstructorSpec):
            return None
        return replace(made, fields=tuple(replace(field, type=_in_tyros_words(field.type)) for field in made.fields))

    return registry


def _in_tyros_words(annotation: Any) -> Any:
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *others = get_args(annotation)
    positional = False
    for number, other in enumerate(others):
        if isinstance(other, Argument):
            positional |= other.positional
            others[number] = tyro.conf.arg(name=other.name, aliases=other.aliases or None)
    annotation = Annotated[(kind, *others)]
    return tyro.conf.Positional[annotation] if positional else annotation
