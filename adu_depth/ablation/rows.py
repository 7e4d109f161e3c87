"""The rows of each comparison: one line is a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from adu_depth.errors import InputError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Row:
    """A training by name: the preset's, but for what is said here.

    Attributes:
        says: what it is, for the table.
        taught_by: the row that is its teacher; "" for a network that learns alone.
        data: the parts of the data that it learns from, by their names in the preset.
        teacher: it is the teacher's network.
        changes: settings by dotted name and their values.
    """

    name: str
    says: str
    taught_by: str = ""
    data: tuple[str, ...] = ("x",)
    teacher: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What others wrote: parameters in millions, RMSE in metres, REL, δ1."""

    says: str
    parameters: float
    rmse: float
    rel: float
    delta1: float


WITHOUT_PLACE = "without the test place"
"""Of U, and of a row with it, where it is known which pictures of U show that place."""
X, U, PLACE, LABELLED = "x", "u", "place", "labelled"
T, T2 = "teacher-x", "teacher-x-labelled"
LIGHT = (
    Row(T, "N_t on X", teacher=True),
    Row(T2, "N_t on X ∪ U′, labelled", data=(X, LABELLED), teacher=True),
    Row("distilled-x", "N_s distilled on X", T),
    Row("distilled-u", f"N_s distilled on U alone, {WITHOUT_PLACE}", T, (U,)),
    Row("distilled-u-place", "N_s distilled on U alone, with the test place unlabelled", T, (U, PLACE)),
    Row("distilled-x-u", f"N_s distilled on X ∪ U, {WITHOUT_PLACE}", T, (X, U)),
    Row("distilled-x-u-place", "N_s distilled on X ∪ U, with the test place unlabelled", T, (X, U, PLACE)),
    Row("distilled-x-labelled", "N_s distilled on X ∪ U′, labelled", T2, (X, LABELLED)),
    Row("alone-x", "N_s without distillation on X"),
    Row("alone-x-labelled", "N_s without distillation on X ∪ U′, labelled", data=(X, LABELLED)),
)
PUBLISHED = (
    Published("2105.06143: N_s, NYU-v2 + unlabelled ScanNet", 1.7, 0.482, 0.131, 0.837),
    Published("2105.06143: N_s, NYU-v2 + labelled ScanNet", 1.7, 0.461, 0.121, 0.855),
    Published("Laina et al.", 60.6, 0.573, 0.127, 0.811),
    Published("Hu et al., ResNet-50", 63.6, 0.555, 0.126, 0.843),
    Published("Fu et al.", 110.0, 0.509, 0.115, 0.828),
    Published("Hu et al., SeNet-154", 149.8, 0.530, 0.115, 0.866),
    Published("Chen et al., SeNet", 210.3, 0.514, 0.111, 0.878),
)
"""RMSE / REL / δ1 on NYU-v2, as 2105.06143 has them."""

S = "teacher"
ADU = (
    Row(S, "stereo teacher", teacher=True),
    Row("whole", "student distilled, as the preset has it", S),
    Row("no-features", "without the features' distillation", S, changes={"distillation.features": 0.0}),
    Row("no-attention", "without attention in the adapters", S, changes={"distillation.attention": False}),
    Row("no-key-bias", "without the key bias of that attention", S, changes={"distillation.key_bias": False}),
    Row("no-response", "without the response's distillation", S, changes={"distillation.response": 0.0}),
    # tanh(βe/2) is 1 but for errors below 10⁻⁵ of the depth: c·w·|ln d − ln d_t| is left
    Row("no-focal", "without the response's focal weight (β = 10⁶)", S, changes={"distillation.beta": 1e6}),
    Row("guide-attenuate", "guide weighs uncertain pixels down", S, changes={"distillation.guide": "attenuate"}),
    Row("guide-none", "without the uncertainty guide", S, changes={"distillation.guide": "none"}),
    Row("no-gate", "without the teacher's gate", S, changes={"distillation.gate": False}),
    # Weights at which a term's gradient (norm over the student's weights) was 0.2 to 0.5 of the response's, at steps
    # 60, 120 and 180 of one seed's `whole`
    Row("with-selective", "with selective distillation", S, changes={"distillation.selective": 0.2}),
    Row("with-learned-scale", "with the learned scale", S, changes={"distillation.learned_scale": 0.3}),
    Row("with-structure", "with the structure affinity", S, changes={"distillation.structure": 3.0}),
    Row("alone", "student alone"),
)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """A dataclass of settings with some of them changed, by their dotted names."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        config = replace(config, **{first: changed(getattr(config, first), {rest: value}) if rest else value})  # type: ignore[type-var]
    return config


def chosen_rows(rows: tuple[Row, ...], names: tuple[str, ...]) -> list[Row]:
    """The rows of these names with the teachers that they need, in the table's order; all where none is named.
    InputError for a name that is none."""
    by_name = {row.name: row for row in rows}
    if strange := [name for name in names if name not in by_name]:
        raise InputError(f"rows: expected some of {', '.join(by_name)}, got {strange[0]!r}")
    wanted = set(names or by_name)
    wanted |= {by_name[name].taught_by for name in wanted}
    return [row for row in rows if row.name in wanted]
