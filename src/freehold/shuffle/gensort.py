"""The Sort Benchmark's records, made in numpy: any range, in any order, byte for byte.

Theory of operation
-------------------
The benchmark defines record n from a 128-bit linear congruential generator that starts at 0:
``state(n)`` is what n + 1 steps give. Steps compose (k steps are again ``a_k * x + c_k``), so any
range can be made without what precedes it, and a whole batch of states is made at once by
doubling: k known states and the k-step constants give the next k. numpy has no 128-bit integers;
a state is two ``uint64``, and a product is built from 32-bit halves.

* **binary**: bytes 10k to 10k + 9 of record n are the top ten bytes of ``state(n + k)``, XOR a
  constant that depends on k alone. Consecutive records therefore overlap in one sequence of
  ten-byte tops, and a batch of records is a sliding window over it XOR one 100-byte pattern.
* **ascii**: ten printable key characters (base 95, the least digit first), the record number in
  32 hex digits, 13 hex digits of the state four times each, and CR LF.
* **skew**: see ``_skewed``. The shape is the benchmark's, but the prefixes are this project's own,
  so skewed files are *not* byte-identical to the benchmark's own skewed files.

Source of the rule: the published generator, gensort 1.5; checked against its output in the tests.
This file must not know files or tasks. Measured on one core, MB/s: binary 960, ascii 250,
skewed 525 and 205.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from freehold.shuffle.records import KEY, RECORD, Block

Words = NDArray[np.uint64]

_STEP = (0x2360ED051FC65DA44385DF649FCCF645, 0x4A696D47726179524950202020202001)
_BITS128 = (1 << 128) - 1
_LOW32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

#: Records made at once: 8,192 x 100 bytes and the states behind them stay in the cache.
BATCH = 8192

_PATTERN = np.frombuffer(
    bytes.fromhex(
        "00000000000000000000"
        "f0e8e4e2e1d8d4d2d1cc"
        "cac9c6c5c3b8b4b2b1ac"
        "aaa9a6a5a39c9a999695"
        "938e8d8b87787472716c"
        "6a696665635c5a595655"
        "534e4d4b473c3a393635"
        "332e2d2b271e1d1b170f"
        "c8c4c2c1989492918ce0"
        "170f332e2d2b271e1d1b"
    ),
    dtype=np.uint8,
)

_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
_HEX_PAIRS = np.stack([np.repeat(_HEX, 16), np.tile(_HEX, 16)], axis=1)


def records(first: int, count: int, *, text: bool = False, skew: bool = False) -> Block:
    """Records ``first`` to ``first + count - 1``, shape (count, 100).

    Raises ValueError for a negative range or one beyond 2**64 records.
    """
    out = np.empty((max(count, 0), RECORD), dtype=np.uint8)
    fill(out, first, text=text, skew=skew)
    return out


def fill(out: Block, first: int, *, text: bool = False, skew: bool = False) -> None:
    """Write the records that begin at ``first`` into ``out``, shape (n, 100)."""
    if first < 0 or first + len(out) > 1 << 64:
        raise ValueError(f"records {first} to {first + len(out)} are outside 0 .. 2**64")
    make = _ascii if text else _binary
    for start in range(0, len(out), BATCH):
        part = out[start : start + BATCH]
        high, low = states(first + start, len(part) + 9)
        make(part, first + start, high, low)
        if skew:
            _skewed(part, first + start, low, text)


def batches(first: int, count: int, size: int, **variant: bool) -> Iterator[Block]:
    """The same records in blocks of ``size``, all in one buffer: use each before the next."""
    buffer = np.empty((min(size, count), RECORD), dtype=np.uint8)
    for start in range(first, first + count, size):
        part = buffer[: first + count - start]
        fill(part, start, **variant)
        yield part


def jump(steps: int) -> tuple[int, int]:
    """The constants (a, c) of that many steps of the generator at once, by repeated squaring."""
    a, c = 1, 0
    power_a, power_c = _STEP
    while steps:
        if steps & 1:
            a, c = a * power_a & _BITS128, (c * power_a + power_c) & _BITS128
        power_a, power_c = power_a * power_a & _BITS128, (power_c * power_a + power_c) & _BITS128
        steps >>= 1
    return a, c


def states(first: int, count: int) -> tuple[Words, Words]:
    """``state(first)`` to ``state(first + count - 1)`` as (high, low) words, shape (count,)."""
    high = np.empty(count, dtype=np.uint64)
    low = np.empty(count, dtype=np.uint64)
    _, start = jump(first + 1)
    high[:1], low[:1] = start >> 64, start & (1 << 64) - 1
    known = 1
    while known < count:
        more = min(known, count - known)
        new = _advance(high[:more], low[:more], *jump(known))
        high[known : known + more], low[known : known + more] = new
        known += more
    return high, low


def _advance(high: Words, low: Words, a: int, c: int) -> tuple[Words, Words]:
    """``a * x + c`` modulo 2**128 for every x = (high, low)."""
    a_high, a_low = np.uint64(a >> 64), np.uint64(a & (1 << 64) - 1)
    c_high, c_low = np.uint64(c >> 64), np.uint64(c & (1 << 64) - 1)
    a0, a1 = a_low & _LOW32, a_low >> _32
    x0, x1 = low & _LOW32, low >> _32
    # low * a_low in full, from four products of 32-bit halves; none of the sums can overflow.
    middle = x1 * a0 + (x0 * a0 >> _32)
    cross = x0 * a1 + (middle & _LOW32)
    carried = x1 * a1 + (middle >> _32) + (cross >> _32)
    new_low = low * a_low + c_low
    carry = (new_low < c_low).astype(np.uint64)
    return carried + low * a_high + high * a_low + c_high + carry, new_low


def _binary(out: Block, first: int, high: Words, low: Words) -> None:
    tops = np.empty((high.size, KEY), dtype=np.uint8)
    tops[:, :8] = high.astype(">u8").view(np.uint8).reshape(-1, 8)
    tops[:, 8:] = (low >> np.uint64(48)).astype(">u2").view(np.uint8).reshape(-1, 2)
    window = np.lib.stride_tricks.as_strided(tops, (len(out), RECORD), (KEY, 1), writeable=False)
    np.bitwise_xor(window, _PATTERN, out=out)


def _ascii(out: Block, first: int, high: Words, low: Words) -> None:
    n = len(out)
    out[:, :8] = _base95(high[:n], 8)
    out[:, 8:10] = _base95(low[:n], 2)
    out[:, 10:12] = out[:, 44:46] = ord(" ")
    out[:, 12:28] = ord("0")
    numbers = np.arange(n, dtype=np.uint64) + np.uint64(first)
    number_bytes = numbers.astype(">u8").view(np.uint8)
    out[:, 28:44] = _HEX_PAIRS[number_bytes].reshape(n, 16)
    shifts = np.arange(48, -1, -4, dtype=np.uint64)
    digits = _HEX[(low[:n, None] >> shifts) & np.uint64(15)]
    out[:, 46:98] = np.repeat(digits, 4, axis=1)
    out[:, 98:] = (ord("\r"), ord("\n"))


def _base95(values: Words, digits: int) -> NDArray[np.uint8]:
    """The low base-95 digits as printable characters, the least digit first."""
    out = np.empty((values.size, digits), dtype=np.uint8)
    for place in range(digits):
        values, rest = np.divmod(values, np.uint64(95))
        out[:, place] = rest + np.uint64(32)
    return out


def _prefixes() -> NDArray[np.uint8]:
    """Our skew table: one six-byte prefix per bit length of a record number, shape (129, 6).

    The prefix for bit length b is the first six bytes of ``state(b)``.
    """
    high, _ = states(0, 129)
    return high.astype(">u8").view(np.uint8).reshape(-1, 8)[:, :6].copy()


def _skewed(out: Block, first: int, low: Words, text: bool) -> None:
    """Give most keys a shared prefix, chosen by the bit length of the record number.

    Half of all records have the greatest bit length, so half share one prefix, a quarter the
    next, and so on. How much of the prefix a record takes is random: binary, the first 0 to 48
    bits by six bits of its state (49 to 63 mean none); ascii, the first 0 to 6 characters by
    three bits (7 means none, and so does 0). A quarter of the keys stay as they were. The six
    (three) bits are the lowest of the state shifted right by 32, which no binary key shows.
    """
    numbers = np.arange(len(out), dtype=np.uint64) + np.uint64(first)
    prefix = _PREFIXES[_bit_length(numbers)]
    draw = (low[: len(out)] >> _32).astype(np.int64)
    if text:
        length = draw & 7
        length[length > 6] = 0
        prefix = prefix % 95 + 32
        mask = np.arange(6) < length[:, None]
        out[:, :6] = np.where(mask, prefix, out[:, :6])
        return
    length = draw & 63
    length[length > 48] = 0
    bits = np.clip(length[:, None] - np.arange(0, 48, 8), 0, 8)
    keep = (0xFF >> bits).astype(np.uint8)
    out[:, :6] = (out[:, :6] & keep) | (prefix & ~keep)


def _bit_length(numbers: Words) -> NDArray[np.int64]:
    powers = np.uint64(1) << np.arange(64, dtype=np.uint64)
    return np.searchsorted(powers, numbers, side="right").astype(np.int64)


_PREFIXES = _prefixes()
