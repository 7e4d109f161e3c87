"""Structure affinity: which places of an image resemble which, in the student's features as in the teacher's
(METHOD §10).

After arXiv 2410.06982, ‖softmax(F_s F_sᵀ) − softmax(F_t F_tᵀ)‖. An affinity is of places by places, whatever the number
of channels: no adapter stands between, which could learn in the student's place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.models.adapter import pool_keys
from adu_kernels.precision import accumulation_dtype, without_autocast

PLACES = 512
"""Of an image and level, at most: an affinity of so many takes 1 MiB in fp32, and two are kept for the backward."""
TEMPERATURE = 0.1
"""Features behind a ReLU have cosines between 0.4 and 1, whose softmax is nearly even: by its entropy a place of the
built-in scenes' teacher resembles 479 of 480 at 1/8, and 29.5 of 30 at 1/32. Divided by 0.1 it is 389, and 14."""
POWER_FLOOR = 1e-6
"""Of the mean square over channels: features of zeros have no direction, and the slope of one is bounded."""


def structure_loss(features: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels and images of ‖A_s − A_t‖² / ‖A_t‖² (Frobenius), A = softmax over places of cosine / 0.1.

    Features are averaged over square cells to at most 512 places, and of unit length there. A place where a feature of
    the teacher is not finite is left out of both affinities: whatever stands there reaches neither loss nor gradient.

    Args:
        features, teacher: as many levels, B×C×H×W each, the student's and the teacher's, of the same B, H and W; the
            numbers of channels may differ. The teacher's have no gradient.

    Returns:
        A scalar of at least 0, fp32 (fp64 if a level is) whatever autocast says; exactly 0 where no place is left.

    Raises:
        InputError: levels or their sizes that differ.

    Example:
        >>> teacher = torch.tensor([[3.0, 0.0], [0.0, 5.0]]).reshape(1, 2, 1, 2)  # two places that differ wholly
        >>> structure_loss([2 * teacher], [teacher]), structure_loss([torch.ones(1, 4, 1, 2)], [teacher])
        (tensor(0.), tensor(0.4999))
    """
    if not features or len(features) != len(teacher):
        raise InputError(
            f"features: expected as many levels as the teacher's, got {len(features)} and the teacher's {len(teacher)}"
        )
    return torch.stack([_distance(*levels) for levels in zip(features, teacher, strict=True)]).mean()


def _distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Of one level, a mean over its images."""
    sizes = [(level.shape[0], *level.shape[2:]) for level in (features, teacher)]
    if sizes[0] != sizes[1]:
        raise InputError(f"features: expected images, height and width of the teacher's, {sizes[1]}, got {sizes[0]}")
    dtype = accumulation_dtype(features, teacher)
    with without_autocast(features):
        mine, taught = (_places(level.to(dtype)) for level in (features, teacher.detach()))
        known = torch.isfinite(taught).all(2, keepdim=True)
        target = _affinity(taught, known)
        distance = torch.where(known, _affinity(mine, known) - target, 0).square().sum((1, 2))
        power = torch.where(known, target, 0).square().sum((1, 2))
        # n rows that add up to 1 each have at least n·n·(1/n)² = 1: the bound is for n = 0 alone
        return (distance / power.clamp(min=1)).mean()


def _places(level: Tensor) -> Tensor:
    """B×C×H×W → B×N×C, a view of what is pooled where that is channels-last, as its gradient then is."""
    return pool_keys(level, PLACES).permute(0, 2, 3, 1).flatten(1, 2)


def _affinity(places: Tensor, known: Tensor) -> Tensor:
    """B×N×C features, B×N×1 bool → B×N×N, rows that add up to 1, and 0 in the columns of places that are not known."""
    places = torch.where(known, places, 0)
    places = places * torch.rsqrt(places.square().sum(2, keepdim=True) + places.shape[2] * POWER_FLOOR)
    cosines = places @ places.transpose(1, 2)
    # finite: with -inf a row without any place would be NaN
    return (cosines / TEMPERATURE).masked_fill(~known.transpose(1, 2), torch.finfo(cosines.dtype).min).softmax(2)
