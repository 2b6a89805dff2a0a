"""The checker: it must find what is wrong, where it is, wherever the slices were cut."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.shuffle import gensort, records, validate
from freehold.shuffle.files import RecordFileError
from freehold.shuffle.records import KEY, Block
from freehold.shuffle.validate import Summary


def block_of(keys: list[bytes]) -> Block:
    return records.as_block(b"".join(key + bytes(90) for key in keys))


def plain_summary(keys: list[bytes]) -> Summary:
    """The same facts, one record at a time."""
    if not keys:
        return Summary()
    below = [i for i in range(1, len(keys)) if keys[i] < keys[i - 1]]
    return Summary(
        records=len(keys),
        checksum=sum(zlib.crc32(key + bytes(90)) for key in keys),
        duplicates=sum(keys[i] == keys[i - 1] for i in range(1, len(keys))),
        unordered=len(below),
        first_unordered=below[0] if below else None,
        first=keys[0],
        last=keys[-1],
    )


near_keys = st.lists(
    st.tuples(
        st.sampled_from([b"\x00", b"\x7f", b"\x80", b"\xff"]), st.sampled_from(b"\x00\x01\xff")
    ).map(lambda ends: ends[0] + bytes(8) + bytes([ends[1]])),
    max_size=12,
)


@given(st.lists(near_keys, max_size=5))
@settings(deadline=None)
def test_summaries_of_pieces_join_to_the_summary_of_the_whole(pieces: list[list[bytes]]) -> None:
    """Goal: where a file is cut never changes the verdict. Method: summarise pieces (empty ones
    among them), join, compare with a record-by-record count over all.
    """
    joined = validate.join(validate.summarise(block_of(piece)) for piece in pieces)
    assert joined == plain_summary([key for piece in pieces for key in piece])


def test_one_swapped_pair_is_found_and_placed(tmp_path: Path) -> None:
    """Goal: a single fault in a file of many batches is seen. Method: swap two neighbours at
    every kind of place: first, last, and both sides of a batch's edge.
    """
    n = validate.BATCH + 10
    block = gensort.records(0, n)
    block = records.take(block, records.sort_order(block))
    path = tmp_path / "part-00000"
    for place in (1, validate.BATCH, validate.BATCH + 1, n - 1):
        wrong = block.copy()
        wrong[[place - 1, place]] = wrong[[place, place - 1]]
        wrong.tofile(path)
        summary = validate.summarise_file(path)
        assert (summary.unordered, summary.first_unordered) == (1, place)
    block.tofile(path)
    assert validate.summarise_file(path).in_order


def test_a_changed_payload_changes_the_checksum() -> None:
    """Goal: lost or altered records show. Method: flip one bit of one payload; drop a record."""
    block = gensort.records(0, 500)
    whole = validate.summarise(block)
    altered = block.copy()
    altered[250, 99] ^= 1
    assert validate.summarise(altered).records == whole.records
    assert not validate.summarise(altered).same_records(whole)
    assert not validate.summarise(block[1:]).same_records(whole)
    assert validate.summarise(block[::-1]).same_records(whole)


def test_duplicate_keys_are_counted_once_each_after_the_first() -> None:
    """Goal: the benchmark's meaning of duplicates. Method: one key three times, another twice."""
    a, b = b"a" * KEY, b"b" * KEY
    assert validate.summarise(block_of([a, a, a, b, b])).duplicates == 3


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    """Goal: no silent end. Method: 250 bytes; and 3 records where 5 are asked for."""
    path = tmp_path / "part-00000"
    path.write_bytes(bytes(250))
    with pytest.raises(RecordFileError, match=r"part-00000 holds 250 bytes"):
        validate.summarise_file(path)
    np.zeros((3, 100), dtype=np.uint8).tofile(path)
    with pytest.raises(RecordFileError, match=r"part-00000 ends at byte 300"):
        validate.summarise_file(path, 0, 5)
