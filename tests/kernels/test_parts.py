"""fp32 as three numbers of bf16, number by number: products of them are fp32's only while they hold every bit."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from adu_kernels._triton.device import parts_of

LANES = 256


@triton.jit
def split(source, high, middle, low, LANES: tl.constexpr):
    places = tl.program_id(0) * LANES + tl.arange(0, LANES)
    first, second, third = parts_of(tl.load(source + places))
    tl.store(high + places, first)
    tl.store(middle + places, second)
    tl.store(low + places, third)


def parts(numbers: Tensor) -> Tensor:
    """3×N fp64 of N fp32."""
    count = -(-len(numbers) // LANES)
    padded = torch.ones(count * LANES)
    padded[: len(numbers)] = numbers
    found = [torch.full_like(padded, torch.nan, dtype=torch.bfloat16) for _ in range(3)]
    split[(count,)](padded, *found, LANES=LANES)
    return torch.stack(found)[:, : len(numbers)].double()


def of_bits(bits: list[int]) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)


def of_every_exponent(first: int, last: int, each: int = 24) -> Tensor:
    """fp32 of either sign with these exponents' bits, and mantissas drawn and at their ends."""
    drawn = torch.randint(0, 1 << 23, (each,)).tolist()
    mantissas = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000, 0x7F7FFF, 0x7F8000, 0x7FFFFF, *drawn]
    return of_bits(
        [sign << 31 | exponent << 23 | m for sign in (0, 1) for exponent in range(first, last + 1) for m in mantissas]
    )


def test_they_hold_every_bit():
    """From 2⁻¹¹⁰ on: below it the last bits of the third lie under bf16's least number, 2⁻¹³³."""
    numbers = of_every_exponent(17, 253)
    high, middle, low = parts(numbers)
    exact = numbers.double()
    assert torch.equal(high + middle + low, exact)
    assert bool(((exact - high).abs() <= exact.abs() * 2**-8).all())
    assert bool(((exact - high - middle).abs() <= exact.abs() * 2**-15).all())
    assert bool((middle > 0).any())
    assert bool((middle < 0).any())
    assert bool((high.abs() >= exact.abs()).any()), "rounded, not cut: what is left has either sign"


def test_of_the_smallest_no_more_is_lost_than_bf16_can_hold():
    numbers = of_every_exponent(0, 16)
    found = parts(numbers)
    assert torch.isfinite(found).all()
    assert float((found.sum(0) - numbers.double()).abs().max()) < 2.0**-133
    assert torch.equal(parts(torch.tensor([0.0, -0.0])), torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("sign", [0, 1])
def test_nan_stays_nan_whatever_its_bits(sign: int):
    """0x7FFFFFFF rounds beyond the bits that there are, to a zero: the other two parts are NaN then."""
    payloads = [1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x400000, 0x7F8000, 0x7FFFFF]
    assert torch.isnan(parts(of_bits([sign << 31 | 0xFF << 23 | p for p in payloads])).sum(0)).all()


def test_infinity_and_what_rounds_to_it_are_no_finite_numbers():
    """From 2¹²⁸ − 2¹¹⁹ on (half of bf16's last step below infinity) the first part is infinite, and the sum is NaN."""
    largest = torch.finfo(torch.float32).max
    for number in (torch.inf, -torch.inf, largest, -largest, 2.0**128 - 2.0**119):
        found = parts(torch.tensor([number]))
        assert torch.isinf(found[0]).all()
        assert torch.isnan(found.sum(0)).all()
    below = torch.tensor([2.0**128 - 2.0**119]).view(torch.int32).sub(1).view(torch.float32)
    assert torch.equal(parts(below).sum(0), below.double())
