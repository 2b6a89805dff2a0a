"""Arrow tables in pieces, on one real node: against the same work on one table in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import freehold as fh
from freehold.shuffle import auto, tables

pytestmark = pytest.mark.processes

every_strategy = pytest.mark.parametrize("strategy", auto.STRATEGIES)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    fh.init(num_cpus=2, object_store_memory=64 << 20)
    yield
    fh.shutdown()


def sales(seed: int, rows: int) -> Any:
    """Rows with a text key, an integer key, an amount, and nulls in all of them but the last."""
    chance = np.random.default_rng(seed)
    towns = [None, "Aa", "Bö", "Cç", "D", "E", "F"]
    number = chance.integers(0, 50, rows)
    return pa.table(
        {
            "town": pa.array([towns[i] for i in chance.integers(0, 7, rows)], pa.string()),
            "shop": pa.array(number, mask=number == 7),
            "amount": pa.array(chance.integers(-99, 99, rows), mask=chance.random(rows) < 0.1),
            "row": np.arange(rows) + 1_000_000 * seed,
        }
    )


PIECES = [sales(seed, rows) for seed, rows in enumerate([400, 0, 1, 250, 90])]


def rows_of(refs: list[Any]) -> list[dict[str, Any]]:
    return [row for table in fh.get(refs) for row in table.to_pylist()]


WHOLE = [row for piece in PIECES for row in piece.to_pylist()]


@every_strategy
@pytest.mark.parametrize("partitions", [1, 3, 900])
def test_repartition_keeps_the_order(strategy: str, partitions: int) -> None:
    """Goal: the same rows in the same order, in lengths that differ by one at most; also with
    more partitions than rows. Method: compare all rows; half of the pieces are given as refs.
    """
    if partitions == 900 and strategy != "push_pipelined":
        partitions = 7  # many partitions once, not with every strategy
    pieces = [fh.put(piece) if i % 2 else piece for i, piece in enumerate(PIECES)]
    refs = tables.repartition(pieces, partitions, strategy=strategy)
    lengths = [table.num_rows for table in fh.get(refs)]
    assert len(lengths) == partitions
    assert max(lengths) - min(lengths) <= 1
    assert rows_of(refs) == WHOLE


@every_strategy
def test_random_shuffle_is_the_same_rows_in_another_order(strategy: str) -> None:
    """Goal: a permutation that depends on the seed alone. Method: three shuffles, two of one
    seed; every partition draws on every larger piece.
    """
    one, same, other = (
        rows_of(tables.random_shuffle(PIECES, 4, seed=seed, strategy=strategy))
        for seed in (5, 5, 6)
    )
    key = lambda row: row["row"]  # noqa: E731
    assert sorted(one, key=key) == sorted(WHOLE, key=key)
    assert one == same != other
    refs = tables.random_shuffle(PIECES, 4, seed=5, strategy=strategy)
    for table in fh.get(refs):
        sources = {row // 1_000_000 for row in table["row"].to_pylist()}
        assert {0, 3, 4} <= sources
    moved = np.abs(np.argsort([key(row) for row in one]) - np.arange(len(one)))
    assert moved.mean() > len(one) / 5  # a third, if every order is as likely


@every_strategy
def test_groupby_is_that_of_one_table(strategy: str) -> None:
    """Goal: every aggregate of every group, nulls passed over, null keys a group. Method: against
    plain Python; each group stands in one partition only.
    """
    wanted = {"amount": ["sum", "count", "min", "max", "mean"], "row": "max"}
    refs = tables.groupby(PIECES, ["town", "shop"], wanted, 3, strategy=strategy)
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in WHOLE:
        groups[row["town"], row["shop"]].append(row)
    found = rows_of(refs)
    assert len(found) == len(groups)
    for row in found:
        members = groups[row["town"], row["shop"]]
        amounts = [m["amount"] for m in members if m["amount"] is not None]
        assert row == {
            "town": row["town"],
            "shop": row["shop"],
            "amount_sum": sum(amounts) if amounts else None,
            "amount_count": len(amounts),
            "amount_min": min(amounts, default=None),
            "amount_max": max(amounts, default=None),
            "amount_mean": pytest.approx(sum(amounts) / len(amounts)) if amounts else None,
            "row_max": max(m["row"] for m in members),
        }


@every_strategy
@pytest.mark.parametrize("how", tables.JOINS)
def test_join_is_that_of_one_table(strategy: str, how: str) -> None:
    """Goal: partition by partition gives what one join of all does. Method: against Arrow's own
    join of the whole; the key is text and a number of another width at the right.
    """
    right = [
        pa.table({"town": ["Aa", "Bö", "Zz", None], "shop": [1, 2, 3, 7], "row": [1, 2, 3, 4]}),
        pa.table({"town": ["Aa", "Aa"], "shop": [1, 4], "row": [5, 6]}),
    ]
    refs = tables.join(PIECES, right, ["town", "shop"], 3, how=how, strategy=strategy)
    at_once = pa.concat_tables(PIECES).join(
        pa.concat_tables(right), ["town", "shop"], join_type=how, right_suffix="_right"
    )
    assert sorted(map(repr, rows_of(refs))) == sorted(map(repr, at_once.to_pylist()))


def test_equal_numbers_of_any_width_share_a_partition() -> None:
    """Goal: the hash is of the value. Method: the same numbers in four types; text in two forms."""
    values = [0, 5, None, 77, 5]
    plain = pa.table({"key": pa.array(values, pa.int64())})
    for kind in (pa.int8(), pa.uint16(), pa.int32()):
        other = pa.table({"key": pa.array(values, kind)})
        assert (tables._hashed(other, ["key"], 9) == tables._hashed(plain, ["key"], 9)).all()
    text = pa.array(["a", None, "b", "a"])
    tables_of_text = [pa.table({"key": text}), pa.table({"key": text.dictionary_encode()})]
    one, two = (tables._hashed(table, ["key"], 9).tolist() for table in tables_of_text)
    assert one == two


def test_mistakes_are_told() -> None:
    """Goal: an error names what is wrong. Method: one of each."""
    with pytest.raises(ValueError, match="cannot aggregate 'amount' by 'median': choose sum"):
        tables.groupby(PIECES, "town", {"amount": "median"})
    with pytest.raises(ValueError, match="cannot join by 'cross'"):
        tables.join(PIECES, PIECES, "town", how="cross")
    with pytest.raises(ValueError, match="partitions must be at least 1, not 0"):
        tables.repartition(PIECES, 0)
    with pytest.raises(ValueError, match=r"piece 1 has other columns.*: \(town int64\), not"):
        tables.repartition([PIECES[0], pa.table({"town": [1]})], 2)
    for call in (
        lambda: tables.join(PIECES, [], "town"),
        lambda: tables.random_shuffle([], 2),
    ):
        with pytest.raises(ValueError, match="give it an empty piece"):
            call()
