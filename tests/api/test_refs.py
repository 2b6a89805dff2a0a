"""References: where they may go, what arrives, when values are freed, how many a task returns."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

import freehold as fh

from .conftest import returns_to, run_script, tables, until

pytestmark = pytest.mark.usefixtures("two_cpus")

BIG = 200_000  # elements of float64: 1.6 MB, far above what travels inside messages


@fh.remote
def same(x: Any) -> Any:
    return x


@fh.remote
def kind(x: Any) -> str:
    return type(x).__name__


@fh.remote
def add(a: Any, b: Any) -> Any:
    return a + b


@fh.remote
def big(fill: float = 1.0) -> Any:
    return np.full(BIG, fill)


# -- references as arguments ----------------------------------------------------------------------


def test_top_level_references_arrive_as_values() -> None:
    """Goal: an argument that is a ref is its value. Method: positional and keyword, of task and
    put, small and large."""
    assert fh.get(add.remote(same.remote(1), fh.put(2))) == 3
    assert fh.get(add.remote(a=fh.put(3), b=same.remote(4))) == 7
    assert fh.get(kind.remote(big.remote())) == "ndarray"
    assert fh.get(kind.remote(x=fh.put(np.zeros(BIG)))) == "ndarray"


def test_the_same_reference_twice() -> None:
    """Goal: one value in two places. Method: small and large, positional and keyword."""
    small, large = fh.put(5), big.remote(2.0)
    assert fh.get(add.remote(small, small)) == 10
    assert fh.get(add.remote(small, b=small)) == 10
    assert float(fh.get(add.remote(large, large))[0]) == 4.0
    assert float(fh.get(add.remote(large, b=large))[-1]) == 4.0


def test_nested_references_stay_references() -> None:
    """Goal: inside a container a ref is a ref. Method: list, dict, tuple, dataclass-like object."""

    class Box:
        def __init__(self, ref: Any) -> None:
            self.ref = ref

    @fh.remote
    def open_all(items: list[Any], box: Any, **named: Any) -> list[Any]:
        refs = [*items, box.ref, named["d"]["k"]]
        assert all(isinstance(ref, fh.ObjectRef) for ref in refs)
        return fh.get(refs)

    refs = [fh.put(i) for i in range(4)]
    result = open_all.remote(refs[:2], Box(refs[2]), d={"k": refs[3]})
    assert fh.get(result) == [0, 1, 2, 3]


def test_references_returned_by_tasks() -> None:
    """Goal: a result may hold refs, made by put or by a task of the task. Method: both, dropped
    by the maker as it returns."""

    @fh.remote
    def make() -> dict[str, Any]:
        return {"put": fh.put("p"), "task": same.remote("t"), "big": fh.put(np.ones(BIG))}

    made = fh.get(make.remote())
    gc.collect()
    assert fh.get(made["put"]) == "p"
    assert fh.get(made["task"]) == "t"
    assert float(fh.get(made["big"]).sum()) == BIG


def test_references_to_references() -> None:
    """Goal: refs nest to any depth. Method: five deep by put, then one unwrapped per get."""
    ref: Any = fh.put("core")
    for _ in range(5):
        ref = fh.put([ref])
    for _ in range(5):
        ref = fh.get(ref)[0]
    assert fh.get(ref) == "core"


def test_a_bare_reference_as_a_result() -> None:
    """Goal: a task may return another's ref as it is. Method: get twice."""

    @fh.remote
    def outer() -> Any:
        return same.remote("inner")

    inner = fh.get(outer.remote())
    assert isinstance(inner, fh.ObjectRef)
    assert fh.get(inner) == "inner"


def test_a_reference_passed_three_tasks_deep() -> None:
    """Goal: borrowers may pass a ref on and end before it is used. Method: driver -> a -> b -> c,
    where nobody but c gets it, and the driver drops its handle first."""

    @fh.remote
    def down(box: list[Any], depth: int) -> Any:
        if depth:
            return [down.remote(box, depth - 1)]
        return float(fh.get(box[0]).sum())

    result: Any = down.remote([fh.put(np.ones(BIG))], 3)
    for _ in range(3):
        result = fh.get(result)[0]
    assert fh.get(result) == BIG


def test_a_reference_kept_by_a_worker_outlives_its_task() -> None:
    """Goal: a borrower that keeps a ref keeps the value. Method: store it in module state on the
    worker, drop it here, ask for it again."""

    @fh.remote
    def keep(box: list[Any] | None) -> Any:
        import sys

        if box is not None:
            sys.kept_by_test = box[0]  # type: ignore[attr-defined]
            return None
        held = getattr(sys, "kept_by_test", None)
        return None if held is None else float(fh.get(held).sum())

    ref = fh.put(np.ones(BIG))
    fh.get(keep.remote([ref]))
    del ref
    gc.collect()
    answers = fh.get([keep.remote(None) for _ in range(40)])
    assert BIG in answers
    assert set(answers) <= {None, BIG}

    @fh.remote
    def forget() -> None:
        import sys

        sys.kept_by_test = None  # type: ignore[attr-defined]

    fh.get([forget.remote() for _ in range(40)])


# -- references as Python objects -----------------------------------------------------------------


def test_identity_hash_and_repr() -> None:
    """Goal: refs work as keys. Method: a copy is equal and hashes alike, another is not."""
    a, b = fh.put(1), fh.put(1)
    assert copy.copy([a])[0] == a
    assert a != b
    assert len({a, b, a}) == 2
    assert a.hex() in repr(a)
    assert len(a.hex()) == 40
    assert a.binary().hex() == a.hex()


def test_a_copied_reference_is_a_handle_of_its_own() -> None:
    """Goal: copy.copy and copy.deepcopy of a ref work: programs deep-copy their configuration.
    Method: drop the original, use the copies."""
    ref = fh.put("v")
    twins = [copy.copy(ref), copy.deepcopy({"r": ref})["r"]]
    del ref
    assert fh.get(twins) == ["v", "v"]


def test_unpacking_and_truth_are_refused_with_advice() -> None:
    """Goal: two common slips are explained. Method: unpack one ref; use one as a condition."""
    with pytest.raises(TypeError, match="num_returns"):
        _a, _b = same.remote((1, 2))
    with pytest.raises(TypeError, match="get"):
        assert same.remote(False)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_pickling_a_reference_outside_raises(pickler: Any) -> None:
    """Goal: a ref that would not be counted cannot leave. Method: two picklers."""
    with pytest.raises(fh.errors.SerializationError, match="reference"):
        pickler.dumps({"ref": fh.put(1)})


# -- lifetime -------------------------------------------------------------------------------------


def test_dropping_references_frees() -> None:
    """Goal: what nobody can name is gone, here and at the node. Method: counts before and after
    puts, results, nested values and unread results."""
    fh.get([big.remote() for _ in range(4)])
    gc.collect()
    before = tables()
    refs = [fh.put(np.ones(BIG)) for _ in range(5)] + [big.remote() for _ in range(5)]
    nested = [fh.put({"r": [ref, fh.put("leaf")]}) for ref in refs]
    fh.get(refs)
    assert tables()["owner objects"] >= before["owner objects"] + 20
    del refs
    gc.collect()
    assert fh.get(fh.get(nested[0])["r"][1]) == "leaf"
    big.remote()  # a result that nobody ever names
    del nested
    gc.collect()
    assert returns_to(before, "objects tasks pinned stored bytes") == {}


def test_a_view_pins_its_value() -> None:
    """Goal: an array stays good after its last ref is gone. Method: drop the ref, fill the store
    with others, look again."""
    view = fh.get(big.remote(7.0))
    tail = view[-3:]
    del view
    gc.collect()
    for _ in range(20):
        fh.get(big.remote(1.0))
    assert tail.tolist() == [7.0] * 3


def test_dropping_inside_a_task_frees() -> None:
    """Goal: workers free too. Method: a task makes and drops many, then all tables come back."""

    @fh.remote
    def churn() -> float:
        total = 0.0
        for i in range(20):
            ref = fh.put(np.full(BIG, float(i)))
            total += float(fh.get(same.remote(ref))[0])
        return total

    fh.get(churn.remote())
    gc.collect()
    before = tables()
    assert fh.get([churn.remote() for _ in range(2)]) == [190.0, 190.0]
    gc.collect()
    assert returns_to(before, "objects tasks pinned stored bytes") == {}


# -- num_returns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_num_returns(count: int) -> None:
    """Goal: n values under n references. Method: n from 0 to 7; 1 gives a ref, not a list."""
    made = collect_n.options(num_returns=count).remote(count)
    if count == 1:
        assert fh.get(made) == [0]
    else:
        assert fh.get(made) == list(range(count))


@fh.remote
def collect_n(n: int) -> list[int]:
    return list(range(n))


@pytest.mark.parametrize(
    ("made", "words"),
    [([1], "3.*1"), ([1, 2, 3, 4], "3.*more"), (None, "3.*NoneType"), (5, "3.*int")],
)
def test_a_wrong_number_of_values_fails_every_reference(made: Any, words: str) -> None:
    """Goal: a mismatch is an error in each ref, in words. Method: too few, too many, none."""
    refs = same.options(num_returns=3).remote(made)
    for ref in refs:
        with pytest.raises(ValueError, match=words):
            fh.get(ref)


def test_a_generator_fills_its_returns_one_by_one() -> None:
    """Goal: ``yield`` with num_returns=n gives n values. Method: large ones, in order; and one
    that raises half-way fails all, and leaves nothing of the first in the store."""

    @fh.remote(num_returns=4)
    def parts() -> Iterator[Any]:
        for i in range(4):
            yield np.full(BIG, float(i))

    @fh.remote(num_returns=2)
    def broken() -> Iterator[Any]:
        yield np.full(BIG, 1.0)
        raise KeyError("half-way")

    assert [float(a[0]) for a in fh.get(parts.remote())] == [0.0, 1.0, 2.0, 3.0]
    before = tables()
    for ref in broken.remote():
        with pytest.raises(KeyError, match="half-way"):
            fh.get(ref)
    del ref
    assert returns_to(before, "objects tasks pinned stored bytes") == {}


def test_a_generator_without_num_returns_is_explained() -> None:
    """Goal: forgetting num_returns on a generator is told in words. Method: read the error."""

    @fh.remote
    def stream() -> Iterator[int]:
        yield 1

    with pytest.raises(Exception, match=r"generator.*|num_returns"):
        fh.get(stream.remote())


def test_large_results_are_views_of_shared_memory() -> None:
    """Goal: zero-copy and read-only. Method: no data of its own, cannot be written, two gets share
    one place, a copy can be written."""
    ref = big.remote(3.0)
    one, two = fh.get(ref), fh.get(ref)
    assert not one.flags.writeable
    assert not one.flags.owndata
    assert one.__array_interface__["data"][0] == two.__array_interface__["data"][0]
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
    mine = one.copy()
    mine[0] = 1
    assert two[0] == 3.0


def test_large_arguments_are_read_only_views_too() -> None:
    """Goal: a task cannot change another's argument. Method: try it inside the task; sent both as
    a ref and as a plain large argument."""

    @fh.remote
    def write(a: Any) -> str:
        try:
            a[0] = 99
        except ValueError as error:
            return str(error)
        return "written"

    array = np.zeros(BIG)
    assert "read-only" in fh.get(write.remote(fh.put(array)))
    assert "read-only" in fh.get(write.remote(array))
    assert array[0] == 0


# -- the end of a session -------------------------------------------------------------------------


def test_references_that_outlive_the_session(tmp_path: Any) -> None:
    """Goal: dropping old refs after shutdown, and at exit, is harmless. Method: a program that
    does both and must be silent."""
    done = run_script(
        tmp_path,
        """
        import freehold as fh
        import numpy as np
        fh.init(num_cpus=1)
        kept = [fh.put(np.ones(100_000)), fh.put(1), fh.remote(lambda: 0).remote()]
        view = fh.get(kept[0])
        fh.shutdown()
        del kept[:1]
        print(view.sum())
        fh.init(num_cpus=1)
        print(fh.get(fh.put("again")))
        """,
    )
    assert done.stdout.split() == ["100000.0", "again"], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


def test_results_nobody_waits_for_are_freed() -> None:
    """Goal: fire and forget leaves nothing. Method: 200 tasks whose refs are dropped at once."""
    fh.get(same.remote(0))
    gc.collect()
    before = tables()
    for i in range(200):
        same.remote(i)
    assert returns_to(before, "objects tasks") == {}
    assert until(lambda: tables()["owner tasks"] == before["owner tasks"])
