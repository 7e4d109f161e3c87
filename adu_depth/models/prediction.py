"""What teacher and student return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DepthPrediction:
    """A prediction for a batch of B left images of H×W.

    depth: B×1×H×W float32, metres. log_scale: B×1×H×W float32, natural log of the Laplace scale of ln(depth).
    features: maps at 1/8, 1/16 and 1/32 of the image (finest first), B×C×⌈H/8⌉×⌈W/8⌉ and so on.
    disparity: B×1×H×W float32 pixels; the teacher's alone.
    heads: (disparity, variance), each B×1×H×W, of every regression head the teacher trains, coarsest first and the
    final one last; empty at inference and for the student.
    decoder_depth: B×1×H×W metres, what the teacher's feature decoder says by itself (it gives the features a task to
    be trained by); None at inference and for the student.
    """

    depth: Tensor
    log_scale: Tensor
    features: tuple[Tensor, ...]
    disparity: Tensor | None = None
    heads: tuple[tuple[Tensor, Tensor], ...] = ()
    decoder_depth: Tensor | None = None
