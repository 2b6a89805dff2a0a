"""The training loader: every row once an epoch, in new order, the next epoch made behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import freehold as fh
from freehold.shuffle import loader, tables

pytestmark = pytest.mark.processes

#: 400 rows in pieces of different lengths, one empty; the column is the number of the row.
PIECES = [pa.table({"row": np.arange(a, b)}) for a, b in [(0, 7), (7, 7), (7, 300), (300, 400)]]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    fh.init(num_cpus=2, object_store_memory=64 << 20)
    yield
    fh.shutdown()


def rows(batches: Any) -> list[int]:
    return [row for batch in batches for row in batch["row"].to_pylist()]


def test_an_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    """Goal: each epoch is a permutation, another one each time, the same for the same seed, and
    well mixed. Method: three epochs twice and with another seed; in a full shuffle, neighbours of
    400 rows are 133 apart on average.
    """
    made = [[rows(fh.get(refs)) for refs in loader.Epochs(PIECES, 3, 5, seed=s)] for s in (1, 1, 2)]
    assert made[0] == made[1]
    different = {tuple(epoch) for epochs in made for epoch in epochs}
    assert len(different) == 6
    for epoch in different:
        assert sorted(epoch) == list(range(400))
        assert 110 < np.abs(np.diff(epoch)).mean() < 156


def test_the_next_epoch_is_made_while_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: only the first epoch is waited for, none beyond the last is made, and no more than two
    exist. Method: note which are asked for; wait until the next one is made before asking for it.
    """
    made: list[int] = []
    original = tables.random_shuffle

    def noted(*args: Any, **named: Any) -> list[Any]:
        refs = original(*args, **named)
        made.append(len(refs))
        return refs

    monkeypatch.setattr(tables, "random_shuffle", noted)
    epochs = loader.Epochs(PIECES, 4)
    for number, refs in enumerate(epochs, 1):
        assert len(refs) == len(PIECES)
        until = time.monotonic() + 60
        while len(made) < min(4, number + 1):
            assert time.monotonic() < until
            time.sleep(0.005)
        assert len(made) == min(4, number + 1)
    assert len(epochs.stalls) == 4


@pytest.mark.parametrize("size", [1, 7, 400, 1000])
def test_batches_are_full_but_for_the_last(size: int) -> None:
    """Goal: rows keep their order in batches of the size asked for, whatever the pieces' lengths.
    Method: sizes that divide, straddle and exceed the pieces.
    """
    made = list(loader.batches([fh.put(piece) for piece in PIECES], size))
    assert [len(batch) for batch in made[:-1]] == [size] * (len(made) - 1)
    assert 1 <= len(made[-1]) <= size
    assert rows(made) == list(range(400))


@pytest.mark.parametrize(("size", "window"), [(1, 1), (10, 10), (10, 55), (30, 1000)])
def test_a_window_shuffles_no_further_than_it_reaches(size: int, window: int) -> None:
    """Goal: every row once; none comes earlier than the window allows; a window over everything is
    a full shuffle. Method: a row that comes as the n-th was among the first n + window read.
    """
    made = rows(loader.local_batches(PIECES, size, window, seed=3))
    assert sorted(made) == list(range(400))
    assert all(row < place + window for place, row in enumerate(made))
    assert (made == list(range(400))) is (window == 1)
    assert rows(loader.local_batches(PIECES[:2], 1, 2, seed=3))[-1] < 7


def test_torch_gets_an_epoch_for_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the dataset gives one epoch per ``iter``, converted, and tells when there are no more.
    Method: a stand-in for PyTorch's class, then no PyTorch.
    """
    data = ModuleType("torch.utils.data")
    data.IterableDataset = object  # type: ignore[attr-defined]
    for name, module in [
        ("torch", ModuleType("torch")),
        ("torch.utils", ModuleType("torch.utils")),
    ]:
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)
    feed = loader.dataset(([n, n + 1] for n in (10, 20)), str)
    assert [list(feed), list(feed)] == [["10", "11"], ["20", "21"]]
    with pytest.raises(RuntimeError, match="no more epochs"):
        iter(feed)
    monkeypatch.setitem(sys.modules, "torch.utils.data", None)
    with pytest.raises(ImportError, match="pip install torch"):
        loader.dataset([], str)


def test_bad_numbers_are_refused() -> None:
    """Goal: an error names the number. Method: each of them."""
    with pytest.raises(ValueError, match="at least 1 epoch, not 0"):
        loader.Epochs(PIECES, 0)
    with pytest.raises(ValueError, match="rows must be at least 1 in a batch, not 0"):
        next(loader.batches([], 0))
    with pytest.raises(ValueError, match="a window of 5 rows has no room for batches of 6"):
        next(loader.local_batches([], 6, 5))
    with pytest.raises(ValueError, match="partitions must be at least 1, not 0"):
        next(iter(loader.Epochs(PIECES, 1, 0)))
