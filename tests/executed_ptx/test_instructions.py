"""Single instructions against the mathematics that PTX gives them: whole numbers, floats, conversions, comparisons."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from adu_kernels.testing.executed_ptx import Unsupported
from tests.executed_ptx.handwritten import per_thread, run

RANDOM = np.random.default_rng(0)
WHOLE = np.concatenate(
    [np.array([0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], "u4"), RANDOM.integers(0, 1 << 32, 23, "u4")]
)
OTHER = np.concatenate([np.array([3, 1, 0xFFFFFFFF, 5, 7, 0x80000000], "u4"), RANDOM.integers(1, 1 << 32, 26, "u4")])


def _signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _rounded_to_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize(
    ("instruction", "meaning"),
    [
        ("add.s32 %r10, %r0, %r1;", lambda a, b: a + b),
        ("add.s16x2 %r10, %r0, %r1;", lambda a, b: (a + b & 0xFFFF) | ((a >> 16) + (b >> 16) & 0xFFFF) << 16),
        ("sub.s32 %r10, %r0, %r1;", lambda a, b: a - b),
        ("mul.lo.s32 %r10, %r0, %r1;", lambda a, b: a * b),
        ("mul.hi.s32 %r10, %r0, %r1;", lambda a, b: _signed(a) * _signed(b) >> 32),
        ("mul.hi.u32 %r10, %r0, %r1;", lambda a, b: a * b >> 32),
        ("mad.lo.s32 %r10, %r0, %r1, %r0;", lambda a, b: a * b + a),
        ("div.u32 %r10, %r0, %r1;", lambda a, b: a // b),
        ("div.s32 %r10, %r0, %r1;", lambda a, b: _rounded_to_zero(_signed(a), _signed(b))),
        ("rem.s32 %r10, %r0, %r1;", lambda a, b: _signed(a) - _rounded_to_zero(_signed(a), _signed(b)) * _signed(b)),
        ("rem.u32 %r10, %r0, %r1;", lambda a, b: a % b),
        ("min.s32 %r10, %r0, %r1;", lambda a, b: min(_signed(a), _signed(b))),
        ("max.u32 %r10, %r0, %r1;", max),
        ("and.b32 %r10, %r0, %r1;", lambda a, b: a & b),
        ("xor.b32 %r10, %r0, %r1;", lambda a, b: a ^ b),
        ("not.b32 %r10, %r0;", lambda a, b: ~a),
        ("neg.s32 %r10, %r0;", lambda a, b: -a),
        ("abs.s32 %r10, %r0;", lambda a, b: abs(_signed(a))),
        ("shl.b32 %r10, %r0, %r2;", lambda a, b: a << 40 if b & 1 else a << 3),
        ("shr.u32 %r10, %r0, %r2;", lambda a, b: a >> 40 if b & 1 else a >> 3),
        ("shr.s32 %r10, %r0, %r2;", lambda a, b: _signed(a) >> 40 if b & 1 else _signed(a) >> 3),
        ("popc.b32 %r10, %r0;", lambda a, b: bin(a).count("1")),
        ("clz.b32 %r10, %r0;", lambda a, b: 32 - a.bit_length()),
        ("bfe.u32 %r10, %r0, 5, 9;", lambda a, b: a >> 5 & 511),
        ("bfe.s32 %r10, %r0, 5, 9;", lambda a, b: _signed(a >> 5 & 511, 9)),
        ("lop3.b32 %r10, %r0, %r1, %r0, 0x6A;", lambda a, b: _lop3(a, b, a, 0x6A)),
        ("prmt.b32 %r10, %r0, %r1, 0x7610;", lambda a, b: _permuted(a, b, 0x7610)),
        ("prmt.b32 %r10, %r0, %r1, 0x94F2;", lambda a, b: _permuted(a, b, 0x94F2)),
    ],
)
def test_whole_numbers(instruction: str, meaning: Any) -> None:
    by = np.where(OTHER & 1, np.uint32(40), np.uint32(3))
    got = per_thread(instruction, WHOLE, OTHER, by)
    want = [meaning(int(a), int(b)) & 0xFFFFFFFF for a, b in zip(WHOLE, OTHER, strict=True)]
    assert got.tolist() == want


def _lop3(a: int, b: int, c: int, table: int) -> int:
    rows = ((a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1) for k in range(32))
    return sum((table >> row & 1) << k for k, row in enumerate(rows))


def _permuted(a: int, b: int, selector: int) -> int:
    of = [(b << 32 | a) >> 8 * k & 255 for k in range(8)]
    chosen = [selector >> 4 * k & 15 for k in range(4)]
    made = [(255 if of[s & 7] >> 7 else 0) if s & 8 else of[s & 7] for s in chosen]
    return sum(byte << 8 * k for k, byte in enumerate(made))


@pytest.mark.parametrize(
    ("instruction", "meaning"),
    [
        ("mul.wide.u32 %rd10, %r0, %r1;", lambda a, b: a * b),
        ("mul.wide.s32 %rd10, %r0, %r1;", lambda a, b: _signed(a) * _signed(b)),
        ("cvt.u64.u32 %rd10, %r0;", lambda a, b: a),
        ("cvt.s64.s32 %rd10, %r0;", lambda a, b: _signed(a)),
        ("cvt.s64.s8 %rd10, %r0;", lambda a, b: _signed(a & 255, 8)),
        ("mov.b64 %rd10, {%r0, %r1};", lambda a, b: b << 32 | a),
    ],
)
def test_whole_numbers_made_wider(instruction: str, meaning: Any) -> None:
    got = per_thread(instruction, WHOLE, OTHER, result="u8")
    want = [meaning(int(a), int(b)) & (1 << 64) - 1 for a, b in zip(WHOLE, OTHER, strict=True)]
    assert got.tolist() == want


def test_the_upper_half_of_a_long_product() -> None:
    a, b = (RANDOM.integers(0, 1 << 64, 32, "u8") for _ in range(2))
    got = per_thread("mul.hi.u64 %rd10, %rd0, %rd1;", a, b, result="u8")
    assert got.tolist() == [int(x) * int(y) >> 64 for x, y in zip(a, b, strict=True)]


def _bit_field(value: int, position: int, length: int, bits: int, signed: bool) -> int:
    """`bfe` bit by bit, as the ISA's text has it: beyond the value's highest bit, and beyond the field, its sign."""
    highest = value >> min(position + length - 1, bits - 1) & 1 if signed and length else 0
    inside = [i < length and position + i < bits for i in range(bits)]
    return sum((value >> position + i & 1 if inside[i] else highest) << i for i in range(bits))


@pytest.mark.parametrize("position", [0, 5, 25, 31, 40, 63, 70])
@pytest.mark.parametrize("length", [0, 1, 9, 32, 40, 64])
@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_fields_of_bits(kind: str, position: int, length: int) -> None:
    bits, wide = int(kind[1:]), kind.endswith("64")
    values = RANDOM.integers(0, 1 << bits, 32, f"u{bits // 8}")
    register = "%rd" if wide else "%r"
    instruction = f"bfe.{kind} {register}10, {register}0, {position}, {length};"
    got = per_thread(instruction, values, result=f"u{bits // 8}")
    assert got.tolist() == [_bit_field(int(v), position, length, bits, kind[0] == "s") for v in values]


def _nearest(exact: Fraction) -> np.float32:
    """Correctly rounded to fp32: through float64 with one extra comparison against the middle."""
    close = np.float32(float(exact))
    candidates = [close, np.nextafter(close, np.float32(np.inf)), np.nextafter(close, np.float32(-np.inf))]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - exact), int(np.array(c).view("u4")) & 1))


def test_a_fused_product_and_sum_is_rounded_once() -> None:
    a, b, c = (RANDOM.standard_normal(4096).astype("f4") for _ in range(3))
    c[::2] = -(a * b)[::2] * (1 + RANDOM.integers(-2, 3, 2048) * np.float32(2**-23))
    # a·b + c just beside the middle between two numbers, by less than double precision sees.
    a[:8], b[:8], c[:8] = np.float32(1 + 2**-12), np.float32(2**-12 + 2**-23), np.float32(1) + np.arange(8) / 8
    a[8], b[8], c[8] = np.float32(1 + 2**-23), np.float32(2**-24), np.float32(1 + 2**-23)
    a[9], b[9], c[9] = np.float32(2**-60), np.float32(1), np.float32(2**-24)
    got = np.concatenate(
        [
            per_thread("fma.rn.f32 %r10, %r0, %r1, %r2;", *(x[k : k + 1024] for x in (a, b, c)), result="f4")
            for k in range(0, 4096, 1024)
        ]
    )
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    want = np.array([_nearest(value) for value in exact])
    assert np.array_equal(got, want)


def test_bfloat16_is_rounded_as_torch_does() -> None:
    values = np.concatenate([RANDOM.standard_normal(1020), [np.inf, -np.inf, 0.0, 1 + 2**-8]]).astype("f4")
    got = per_thread("cvt.rn.bf16.f32 %rs10, %r0;", values, result="u2")
    want = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view("u2")
    assert np.array_equal(got, want)
    packed = per_thread("cvt.rn.bf16x2.f32 %r10, %r0, %r1;", values, values[::-1].copy())
    assert np.array_equal(packed, want.astype("u4") << 16 | want[::-1])
    assert np.array_equal(
        per_thread("cvt.f32.bf16 %r10, %rs0;", want, result="f4"), torch.from_numpy(values).bfloat16().float().numpy()
    )


@pytest.mark.parametrize(
    "how", ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "nan", "num"]
)
def test_comparisons_with_nan(how: str) -> None:
    values = [0.0, -0.0, 1.0, math.inf, math.nan]
    a, b = (np.array(column, "f4") for column in zip(*((x, y) for x in values for y in values), strict=True))
    a, b = np.resize(a, 32), np.resize(b, 32)
    got = per_thread(f"setp.{how}.f32 %p1, %r0, %r1;\nselp.b32 %r10, 1, 0, %p1;", a, b)
    unordered = np.isnan(a) | np.isnan(b)
    plain = {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    if how in ("nan", "num"):
        want = unordered if how == "nan" else ~unordered
    else:
        want = plain[how[:2]] | unordered if how.endswith("u") else plain[how] & ~unordered
    assert np.array_equal(got != 0, want)


def test_the_larger_of_a_number_and_nan() -> None:
    a, b = np.array([1, np.nan, 2, np.nan] * 8, "f4"), np.array([np.nan, 3, 1, np.nan] * 8, "f4")
    assert np.array_equal(
        per_thread("max.f32 %r10, %r0, %r1;", a, b, result="f4")[:4], [1, 3, 2, np.nan], equal_nan=True
    )
    got = per_thread("max.NaN.f32 %r10, %r0, %r1;", a, b, result="f4")[:4]
    assert np.array_equal(got, [np.nan, np.nan, 2, np.nan], equal_nan=True)


def test_to_whole_numbers_towards_zero_and_no_further_than_they_go() -> None:
    values = np.resize(np.array([1.9, -1.9, 3e9, -3e9, math.nan, math.inf], "f4"), 32)
    got = per_thread("cvt.rzi.s32.f32 %r10, %r0;", values, result="i4")[:6]
    assert got.tolist() == [1, -1, 2**31 - 1, -(2**31), 0, 2**31 - 1]


@pytest.mark.parametrize("of", ["f16", "f32", "f64"])
@pytest.mark.parametrize("to", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_nan_to_whole_numbers(to: str, of: str) -> None:
    """Zero from at most fp32 to at most 32 bits, otherwise the highest bit alone (PTX ISA 9.0, "cvt")."""
    registers, width = {16: "%rs", 32: "%r", 64: "%rd"}, int(to[1:])
    nan = np.full(32, np.nan, of.replace("f", "float"))
    text = f"cvt.rzi.{to}.{of} {registers[width]}10, {registers[8 * nan.itemsize]}0;"
    got = per_thread(text, nan, result=f"u{width // 8}")
    assert got.tolist() == [1 << width - 1 if of == "f64" or width == 64 else 0] * 32


@pytest.mark.parametrize(
    ("instruction", "given", "result", "want"),
    [
        ("cvt.rn.ftz.f32.f64 %r10, %rd0;", np.full(32, -1e-40), "f4", -0.0),
        ("cvt.rn.f32.f64 %r10, %rd0;", np.full(32, -1e-40), "f4", np.float32(-1e-40)),
        ("cvt.ftz.f64.f32 %rd10, %r0;", np.full(32, 1e-40, "f4"), "f8", 0.0),
        ("cvt.f64.f32 %rd10, %r0;", np.full(32, 1e-40, "f4"), "f8", float(np.float32(1e-40))),
    ],
)
def test_conversions_flush_where_it_is_asked_for(instruction: str, given: Any, result: str, want: float) -> None:
    got = per_thread(instruction, given, result=result)
    assert (got == want).all()
    assert (np.signbit(got) == np.signbit(want)).all()


def _nearest_half(exact: Fraction, kind: str) -> int:
    """The bits of fp16 or bfloat16 that are closest to it; ties to even. Within the range of normal numbers."""
    digits = {"f16": 11, "bf16": 8}[kind]
    size = abs(exact)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    power -= size < Fraction(2) ** power
    unit = Fraction(2) ** (power - digits + 1)
    rounded = round(exact / unit) * unit  # of Fraction: ties to even
    if kind == "f16":
        return int(np.float16(float(rounded)).view("u2"))
    return int(np.float32(float(rounded)).view("u4")) >> 16


def _half_bits(values: Any, kind: str) -> Any:
    return values.astype("f2").view("u2") if kind == "f16" else (values.astype("f4").view("u4") >> 16).astype("u2")


def _half_value(bits: int, kind: str) -> Fraction:
    return Fraction(float(np.uint16(bits).view("f2") if kind == "f16" else np.uint32(bits << 16).view("f4")))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_sums_in_half_precision_are_rounded_once(kind: str) -> None:
    """Beside the middle between two numbers by less than fp32 sees, and by less than fp64 sees."""
    a, b, c = (RANDOM.standard_normal(256) for _ in range(3))
    tiny = 2.0**-100 if kind == "bf16" else 2.0**-24
    half = {"f16": 2.0**-11, "bf16": 2.0**-8}[kind]
    for number, sign in enumerate((1, -1)):
        a[number], b[number], c[number] = 1 + 16 * half, 1 + 16 * half, sign * tiny  # 1 + 32 h + 256 h²
        a[2 + number], b[2 + number], c[2 + number] = half, 1 + 2 * half, sign  # a half and a little more
        a[4 + number], b[4 + number], c[4 + number] = 1 + 2 * half, 1.5, sign * tiny  # the middle but for c
    bits = [_half_bits(values, kind) for values in (a, b, c)]
    exact = [[_half_value(int(x), kind) for x in column] for column in bits]
    for text, meaning in (
        (f"fma.rn.{kind} %rs10, %rs0, %rs1, %rs2;", lambda x, y, z: x * y + z),
        (f"add.rn.{kind} %rs10, %rs0, %rs2;", lambda x, y, z: x + z),
        (f"sub.rn.{kind} %rs10, %rs0, %rs2;", lambda x, y, z: x - z),
        (f"mul.rn.{kind} %rs10, %rs0, %rs1;", lambda x, y, z: x * y),
    ):
        got = per_thread(text, *bits, result="u2")
        want = [_nearest_half(meaning(*values), kind) for values in zip(*exact, strict=True)]
        assert got.tolist() == want, text


def test_a_fused_product_and_sum_below_the_normal_numbers_is_rounded_once() -> None:
    """Just before the middle between two numbers that are 2⁻¹⁴⁹ apart, by less than fp64 sees."""
    a, b = (np.full(32, 2.0**-75 * (1 + side * 2.0**-23), "f4") for side in (1, -1))
    c = (2.0**-127 + np.arange(32) * 2.0**-149).astype("f4")
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    want = [float(round(value / Fraction(2) ** -149) * Fraction(2) ** -149) for value in exact]
    got = per_thread("fma.rn.f32 %r10, %r0, %r1, %r2;", a, b, c, result="f4")
    assert got.tolist() == want


def test_numbers_too_small_are_flushed_where_it_is_asked_for() -> None:
    tiny = np.full(32, 1e-40, "f4")
    assert (per_thread("add.f32 %r10, %r0, %r0;", tiny, result="f4") > 0).all()
    assert (per_thread("add.ftz.f32 %r10, %r0, %r0;", tiny, result="f4") == 0).all()


def test_products_and_sums_are_fused_where_ptxas_may() -> None:
    text = "mul.f32 %r5, %r0, %r1;\nsub.f32 %r10, %r5, %r2;"
    a, b = (RANDOM.standard_normal(32).astype("f4") for _ in range(2))
    apart = per_thread(text, a, b, a * b, result="f4")
    fused = per_thread(text, a, b, a * b, result="f4", contracted=True)
    assert (apart == 0).all()
    assert np.array_equal(fused, (a.astype("f8") * b - (a * b)).astype("f4"))
    assert (fused != 0).any()


def test_threads_that_part_meet_again() -> None:
    """Each thread goes round as often as its number says, skips the odd rounds' sum, and all shuffle afterwards."""
    rounds = """
	mov.b32 %r10, 0;
	mov.b32 %r5, 0;
$again:
	setp.ge.u32 %p1, %r5, %r900;
	@%p1 bra $done;
	and.b32 %r6, %r5, 1;
	setp.eq.u32 %p2, %r6, 1;
	@%p2 bra $skip;
	add.s32 %r10, %r10, %r5;
$skip:
	add.s32 %r5, %r5, 1;
	bra.uni $again;
$done:
	shfl.sync.bfly.b32 %r10, %r10, 1, 31, -1;
"""
    got = per_thread(rounds, threads=64)
    sums = [sum(k for k in range(n) if k % 2 == 0) for n in range(64)]
    assert got.tolist() == [sums[n ^ 1] for n in range(64)]


def test_what_is_not_known_is_refused_before_anything_runs() -> None:
    output = np.zeros(32, "u4")
    text = """
	st.global.b32 [%rd900], 1;
	setp.eq.u32 %p1, %r900, %r900;
	@%p1 bra $end;
	vadd4.u32.u32.u32 %r1, %r2, %r3, %r4;
$end:
"""
    with pytest.raises(Unsupported, match=r"vadd4\.u32"):
        run(text, output)
    assert not output.any()
