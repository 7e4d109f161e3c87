"""Random numbers that are functions of their place, without state: hashes, and smooth noise over 3-D points."""

from __future__ import annotations

import torch
from torch import Tensor


def _int32(value: int) -> int:
    """A 32-bit pattern as the signed number torch's int32 wants."""
    return value - (1 << 32) if value >= 1 << 31 else value


# Odd multipliers: the lattice axes' are large primes, the mixer's is from the lowbias32 family of integer hashes.
_AXIS = tuple(map(_int32, (0x8DA6B343, 0xD8163841, 0xCB1AB31F)))
_MIX_1, _MIX_2 = _int32(0x7FEB352D), _int32(0x846CA68B)
_UNIT = 2.0**-31


def hash_int(key: Tensor) -> Tensor:
    """A well mixed int32 for every int32."""
    # torch shifts signed numbers arithmetically: without the masks the sign bit would cancel itself.
    h = key ^ ((key >> 16) & 0xFFFF)
    h = h * _MIX_1
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = h * _MIX_2
    return h ^ ((h >> 16) & 0xFFFF)


def hash_uniform(key: Tensor) -> Tensor:
    """float32 in [0, 1) for every int32."""
    return (hash_int(key) & 0xFFFFFF).float() * 2.0**-24


def hash_normal(key: Tensor) -> Tensor:
    """Nearly normal float32 for every int32, mean 0, variance 1, within ±3.5: the sum of a hash's four bytes."""
    h = hash_int(key)
    pairs = (h & 0x00FF00FF) + ((h >> 8) & 0x00FF00FF)  # two sums of two bytes, side by side
    total = (pairs & 0xFFFF) + (pairs >> 16)
    return (total.float() - 4 * 127.5) * (4 * (256**2 - 1) / 12) ** -0.5


def value_noise(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in [-1, 1] with one random value per whole-number point, eased trilinear between. seed: int32."""
    (x0, x1, tx), (y0, y1, ty), (z0, z1, tz) = (
        _lattice(c, a) for c, a in zip((x, y, z), _AXIS, strict=True)
    )  # fmt: skip
    z0, z1 = z0 ^ seed, z1 ^ seed
    planes = []
    for zc in (z0, z1):
        rows = []
        for yc in (y0 ^ zc, y1 ^ zc):
            low, high = _corner(x0 ^ yc), _corner(x1 ^ yc)
            rows.append(_mix(low, high, tx))
        planes.append(_mix(rows[0], rows[1], ty))
    return _mix(planes[0], planes[1], tz)


def _lattice(c: Tensor, multiplier: int) -> tuple[Tensor, Tensor, Tensor]:
    whole = c.floor()
    t = c - whole
    low = whole.int() * multiplier
    return low, low + multiplier, t * t * (3.0 - 2.0 * t)


def _corner(h: Tensor) -> Tensor:
    """A lattice point's value. Ends with a product, whose sign is well mixed: no masks needed."""
    h = (h ^ (h >> 15)) * _MIX_1
    h = (h ^ (h >> 13)) * _MIX_2
    return h.float() * _UNIT


def _mix(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    return low + (high - low) * share


def power_of_two_below(x: Tensor) -> tuple[Tensor, Tensor]:
    """(p, k): the largest power of two p = 2^(k−127) not above x > 0 (normal float32), k int32."""
    exponent = x.view(torch.int32) >> 23
    return (exponent << 23).view(x.dtype), exponent


def surface_noise(place: list[Tensor], footprint: Tensor, largest: Tensor, seed: Tensor, octaves: int = 4) -> Tensor:
    """Noise of several wavelengths, none finer than the picture can show; about [-1, 1], mean 0.

    place (x, y, z), footprint (a pixel on the surface) and largest (the wavelength above which noise weakens): metres.
    The octaves are powers of two in metres; the finest one shown has 2 to 4 pixels and fades in with nearness, so that
    two views of a point, and neighbouring pixels, agree.
    """
    pixel, level = power_of_two_below(footprint)
    finest_share = 2.0 - footprint / pixel
    cell = pixel * 4.0
    total = None
    for octave in range(octaves):
        frequency = 1.0 / cell
        strength = largest / (largest + cell)
        if octave == 0:
            strength = strength * finest_share
        x, y, z = (c * frequency for c in place)
        value = value_noise(x, y, z, seed + (level + octave) * _AXIS[1])
        total = value * strength if total is None else total + value * strength
        cell = cell * 2.0
    assert total is not None
    return total
