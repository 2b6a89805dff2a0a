"""The generator against the Sort Benchmark's own: digests and checksums of gensort 1.5 output."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from freehold.shuffle import gensort, validate

FIRST_BINARY = bytes.fromhex(
    "4a696d4772617952495065080060836b392cd58b"
    "8f5e55961855e79b87f02283a466b6aab1f9e0ca"
    "cf1e26b3292afd1064bb18b56ac07d6f656b1d2f"
    "430d57bde7e47d81f36a6dd267948bbc2397bfe2"
    "8c334e4ad82b8e70166293cfaa0116bfda3bb1ab"
)
FIRST_ASCII = (
    b"AsfAGHM5om  00000000000000000000000000000000  "
    b"0000222200002222000022220000222200002222000000001111\r\n"
    b"~sHd0jDv6X  00000000000000000000000000000001  "
    b"77779999444488885555CCCC777755555555BBBB666644446666\r\n"
)

#: SHA-256 of what the benchmark's generator writes: first record, records, ascii, digest.
DIGESTS = [
    (0, 1000, False, "f524474116510d1debac6d38152e793a7e3cb71b1dd2bb45b6610e3c17698177"),
    (10**12, 200, False, "e2353e42ad9c8ef8d7c01ea4fe252c1e16418fbbf77ee3936faf691a390e688a"),
    (0, 1000, True, "6c26b26a61464dd78038f9c60907c851ac043c07584b12835fe065cbca31aad2"),
]

#: The benchmark's checksums of longer runs: first record, records, ascii, checksum.
CHECKSUMS = [
    (0, 1000, False, 0x1EA6370B955),
    (0, 1_000_000, False, 0x7A0E0D4868CD4),
    (5_000_000, 1_000_000, False, 0x7A18DB6E39EC1),
    (0, 1000, True, 0x1F5DFB3631A),
    (0, 1_000_000, True, 0x7A19CFF467438),
]


def test_the_first_records_read_as_published() -> None:
    """Goal: a failure below has a readable sibling. Method: compare the first records in full."""
    assert gensort.records(0, 1).tobytes() == FIRST_BINARY
    assert gensort.records(0, 2, text=True).tobytes() == FIRST_ASCII


@pytest.mark.parametrize(("first", "count", "text", "digest"), DIGESTS)
def test_records_are_the_benchmarks_bytes(first: int, count: int, text: bool, digest: str) -> None:
    """Goal: byte for byte the reference, also far out. Method: digests of its output."""
    made = gensort.records(first, count, text=text)
    assert hashlib.sha256(made.tobytes()).hexdigest() == digest


@pytest.mark.parametrize(("first", "count", "text", "checksum"), CHECKSUMS)
def test_checksums_are_the_benchmarks(first: int, count: int, text: bool, checksum: int) -> None:
    """Goal: long runs agree across batches, and our checksum is the benchmark's.
    Method: sum over batches; compare with the figures its generator prints.
    """
    batches = gensort.batches(first, count, gensort.BATCH, text=text)
    assert sum(validate.checksum(batch) for batch in batches) == checksum


@pytest.mark.parametrize("skew", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_any_range_is_the_same_as_part_of_the_whole(text: bool, skew: bool) -> None:
    """Goal: tasks may make ranges in parallel. Method: odd ranges over a batch's edge."""
    whole = gensort.records(0, 2 * gensort.BATCH + 5, text=text, skew=skew)
    for first, count in [(0, 0), (1, 1), (gensort.BATCH - 3, 7), (100, gensort.BATCH + 50)]:
        part = gensort.records(first, count, text=text, skew=skew)
        assert np.array_equal(part, whole[first : first + count])


def test_a_jump_is_that_many_steps() -> None:
    """Goal: skip-ahead is exact. Method: 1,000 single steps in plain integers beside it."""
    a, c = gensort.jump(1)
    state = 0
    high, low = gensort.states(0, 1000)
    for n in range(1000):
        state = (a * state + c) % 2**128
        assert (int(high[n]) << 64 | int(low[n])) == state


@pytest.mark.parametrize("text", [False, True])
def test_skewed_keys_pile_up_and_a_quarter_do_not(text: bool) -> None:
    """Goal: skew is as documented: about a quarter of keys untouched, half of the others sharing
    the prefix of the greatest bit length, payload never touched. Method: count, 65,536 records.
    """
    count = 1 << 16
    plain = gensort.records(count, count, text=text)
    skewed = gensort.records(count, count, text=text, skew=True)
    assert np.array_equal(plain[:, 6:], skewed[:, 6:])
    # A prefix of few bits may leave a key as it was by chance, hence the margin above.
    untouched = np.mean((plain == skewed).all(axis=1))
    assert 0.24 < untouched < 0.30
    common = Counter(row.tobytes() for row in skewed[:, :3]).most_common(1)[0][1]
    assert common / count > 0.35


@pytest.mark.parametrize("first", [-1, 2**64 - 5])
def test_a_range_out_of_bounds_is_refused(first: int) -> None:
    """Goal: no silent wrap-around. Method: below zero, and across 2**64."""
    with pytest.raises(ValueError, match="outside"):
        gensort.records(first, 10)
