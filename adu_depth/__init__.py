"""A stereo teacher teaches a monocular depth student: data, models, distillation, training, evaluation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adu_depth.hub import AduDepthModel

__all__ = ["AduDepthModel"]


def __getattr__(name: str) -> Any:
    """`AduDepthModel`, once it is asked for: transformers takes seconds to import."""
    if name == "AduDepthModel":
        from adu_depth.hub import AduDepthModel

        return AduDepthModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
