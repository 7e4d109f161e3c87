"""What teacher and student return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_kernels.precision import storage_dtype

TEMPERATURES = (1e-6, 1e6)
FEATURE_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class DepthPrediction:
    """What teacher and student return for a batch of B left images of H×W.

    Attributes:
        depth: B×1×H×W float32, metres.
        log_scale: B×1×H×W float32, natural log of the Laplace scale of ln(depth); None of a network that says none.
        features: maps at 1/8, 1/16 and 1/32 of the image (finest first), B×C×⌈H/8⌉×⌈W/8⌉ and so on.
        disparity: B×1×H×W float32 pixels; the teacher's alone.
        heads: (disparity, variance), each B×1×H×W, of every regression head the teacher trains, coarsest first and the
            final one last; empty at inference and for the student.
        decoder_depth: B×1×H×W metres, what the teacher's feature decoder says by itself (it gives the features a task
            to be trained by); None at inference and for the student.

    Example:
        >>> features = tuple(torch.zeros(1, 8, 64 // stride, 96 // stride) for stride in (8, 16, 32))
        >>> prediction = DepthPrediction(torch.ones(1, 1, 64, 96), torch.zeros(1, 1, 64, 96), features)
        >>> prediction.features[0].shape
        torch.Size([1, 8, 8, 12])
    """

    depth: Tensor
    log_scale: Tensor | None
    features: tuple[Tensor, ...]
    disparity: Tensor | None = None
    heads: tuple[tuple[Tensor, Tensor], ...] = ()
    decoder_depth: Tensor | None = None

    def require_log_scale(self, reader: str) -> Tensor:
        """The log scale, or an InputError that says what needs it: `reader`, "the uncertainty's metrics"."""
        if self.log_scale is None:
            raise InputError(f"{reader}: expected a network that predicts its uncertainty, this one has none")
        return self.log_scale

    def map(self, change: Callable[[Tensor], Tensor]) -> DepthPrediction:
        """Every map passed through `change`; the parts that exist in training only are dropped."""
        return DepthPrediction(
            depth=change(self.depth),
            log_scale=None if self.log_scale is None else change(self.log_scale),
            features=tuple(change(f) for f in self.features),
            disparity=None if self.disparity is None else change(self.disparity),
        )

    def require_finite(self, source: object) -> None:
        """InputError, naming `source` (an image), if a map or a feature is NaN or infinite. Waits for the device."""
        maps = {"depth": self.depth, "log scale": self.log_scale, "disparity": self.disparity}
        _require_finite(source, {**maps, **_levels(self.features)})


@dataclass(frozen=True)
class TeacherTargets:
    """What a student is taught by: of a teacher's prediction the parts that distillation reads (METHOD §4, §5).

    Attributes:
        depth: B×1×H×W float32, metres; 0 where nothing is known.
        features: maps at 1/8, 1/16 and 1/32 of the image, finest first.

    Example:
        >>> features = tuple(torch.zeros(1, 8, 64 // stride, 96 // stride) for stride in (8, 16, 32))
        >>> window = TeacherTargets(torch.ones(1, 1, 64, 96), features).crop(top=32, left=0, height=32, width=64)
        >>> window.depth.shape, window.features[0].shape
        (torch.Size([1, 1, 32, 64]), torch.Size([1, 8, 4, 8]))
    """

    depth: Tensor
    features: tuple[Tensor, ...]

    @staticmethod
    def of(prediction: DepthPrediction) -> TeacherTargets:
        return TeacherTargets(prediction.depth, prediction.features)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (self.depth.shape[-2], self.depth.shape[-1])

    def decoded(self) -> TeacherTargets:
        """Itself; see `adu_depth.training.kept_targets`."""
        return self

    def depth_alone(self) -> TeacherTargets:
        """Without its features, for an objective that reads none."""
        return replace(self, features=())

    def map(self, change: Callable[[Tensor], Tensor]) -> TeacherTargets:
        """Every map passed through `change`."""
        return TeacherTargets(change(self.depth), tuple(change(f) for f in self.features))

    def stored(self) -> TeacherTargets:
        """The same with its features as a step stores them: channels-last, in autocast's type or else fp32.

        Norms leave fp32 and, on CUDA, contiguous maps, and a cache is contiguous: more bytes, and narrow loads.
        """

        def change(feature: Tensor) -> Tensor:
            return feature.to(storage_dtype(feature), memory_format=torch.channels_last)

        return replace(self, features=tuple(change(f) for f in self.features))

    def require_finite(self, source: object) -> None:
        """As of a `DepthPrediction`."""
        _require_finite(source, {"depth": self.depth, **_levels(self.features)})

    def crop(self, top: int, left: int, height: int, width: int) -> TeacherTargets:
        """The same window of every map; all four numbers must be multiples of 32, so that features are cut exactly."""
        if any(n % FEATURE_STRIDES[-1] for n in (top, left, height, width)):
            raise ValueError(
                f"a window of a teacher's maps must be in multiples of 32, got {(top, left, height, width)}"
            )

        def window(tensor: Tensor, stride: int) -> Tensor:
            rows = slice(top // stride, (top + height) // stride)
            return tensor[..., rows, left // stride : (left + width) // stride]

        return TeacherTargets(
            window(self.depth, 1),
            tuple(window(f, s) for f, s in zip(self.features, FEATURE_STRIDES, strict=True)),
        )


def _levels(features: tuple[Tensor, ...]) -> dict[str, Tensor | None]:
    return {f"feature map {level}": feature for level, feature in enumerate(features)}


def _require_finite(source: object, maps: dict[str, Tensor | None]) -> None:
    for name, values in maps.items():
        bad = 0 if values is None else int((~torch.isfinite(values)).sum())
        if values is not None and bad:
            kind = "NaN" if bool(torch.isnan(values).any()) else "infinite"
            raise InputError(f"{source}: the predicted {name} is {kind} at {bad:,} of {values.numel():,} values")


def require_temperature(value: float) -> None:
    """InputError unless `value` can be a factor on the predicted scale: of one far from 1 metrics are infinite."""
    if not TEMPERATURES[0] <= value <= TEMPERATURES[1]:
        low, high = TEMPERATURES
        raise InputError(f"temperature: expected a positive number, from {low:g} to {high:g}, got {value:g}")
