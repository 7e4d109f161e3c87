"""Small kernels, right or with one fault each, for `test_planted_faults.py`."""

import triton
import triton.language as tl


@triton.jit
def softmax_rows(x, y, width, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    values = tl.load(x + row * width + column, mask=column < width, other=-float("inf"))
    powers = tl.exp(values - tl.max(values, 0))
    tl.store(y + row * width + column, powers / tl.sum(powers, 0), mask=column < width)


@triton.jit
def sum_without_other(x, y, n, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    tl.store(y + tl.program_id(0), tl.sum(tl.load(x + column, mask=column < n), 0))


@triton.jit
def copy(x, y, n, stride, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    tl.store(y + column, tl.load(x + column * stride, mask=column < n, other=0.0), mask=column < n)


@triton.jit
def hand_over(x, y, BLOCK: tl.constexpr, BARRIER: tl.constexpr):
    """Every thread takes what another one stored."""
    column = tl.arange(0, BLOCK)
    tl.store(y + column, tl.load(x + column))
    if BARRIER:
        tl.debug_barrier()
    tl.store(x + column, tl.load(y + (BLOCK - 1 - column)))


@triton.jit
def in_pairs(x, y, BLOCK: tl.constexpr):
    """Two programs store to each place."""
    column = tl.arange(0, BLOCK)
    tl.store(y + (tl.program_id(0) // 2) * BLOCK + column, tl.load(x + column) + tl.program_id(0))


@triton.jit
def last_one_sums(x, parts, out, counter, BLOCK: tl.constexpr, ORDER: tl.constexpr):
    """The program that counts last reads what all have left."""
    program, column = tl.program_id(0), tl.arange(0, BLOCK)
    tl.store(parts + program * BLOCK + column, tl.load(x + program * BLOCK + column))
    tl.debug_barrier()
    if tl.atomic_add(counter, 1, sem=ORDER, scope="gpu") == tl.num_programs(0) - 1:
        total = tl.zeros([BLOCK], tl.float32)
        for other in range(tl.num_programs(0)):
            total += tl.load(parts + other * BLOCK + (BLOCK - 1 - column))
        tl.store(out + column, total)


@triton.jit
def number_in_line(numbers, counter):
    """Each program writes how many counted before it: another order, other numbers."""
    tl.store(numbers + tl.program_id(0), tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu"))


@triton.jit
def product(a, b, c, K: tl.constexpr, SIZE: tl.constexpr):
    """SIZE × K by K × SIZE, in a pipeline of asynchronous copies."""
    row, column = tl.arange(0, SIZE), tl.arange(0, SIZE)
    total = tl.zeros([SIZE, SIZE], tl.float32)
    for first in tl.range(0, K, 32, num_stages=3):
        inner = first + tl.arange(0, 32)
        left = tl.load(a + row[:, None] * K + inner[None, :])
        right = tl.load(b + inner[:, None] * SIZE + column[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + row[:, None] * SIZE + column[None, :], total)


@triton.jit
def two_products(a, b, c, SIZE: tl.constexpr):
    """(a · b) · b: the second product's left side comes from registers."""
    row, column = tl.arange(0, SIZE), tl.arange(0, SIZE)
    left = tl.load(a + row[:, None] * SIZE + column[None, :])
    right = tl.load(b + row[:, None] * SIZE + column[None, :])
    once = tl.dot(left, right).to(left.dtype)
    tl.store(c + row[:, None] * SIZE + column[None, :], tl.dot(once, right))
