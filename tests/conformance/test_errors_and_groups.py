"""What a Ray Core program relies on: exceptions that travel, placement groups, strategies; and what
Ray users suffer from that is promised to be better here."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import freehold as fh
from api.conftest import until

pytestmark = pytest.mark.usefixtures("two_cpus")


class NeedsTwo(Exception):
    """Its constructor takes what its args do not hold."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


@fh.remote(max_retries=0)
def throw(kind: str) -> None:
    if kind == "two":
        raise NeedsTwo(4, reason="gone")
    if kind == "group":
        raise ExceptionGroup("both", [KeyError("a"), OSError("b")])
    if kind == "chained":
        try:
            raise KeyError("first")
        except KeyError as error:
            raise OSError("second") from error
    if kind == "unpicklable":
        error = OSError("holds a lock")
        error.lock = __import__("threading").Lock()  # type: ignore[attr-defined]
        raise error
    if kind == "exit":
        raise SystemExit(3)
    os._exit(7)


# -- exceptions -----------------------------------------------------------------------------------


def test_exceptions_arrive_as_their_own_type_and_as_task_error() -> None:
    """Goal: ``except`` works as without remote calls: constructors with arguments, groups, chains,
    parts that cannot be pickled."""
    with pytest.raises(NeedsTwo, match="4: gone") as two:
        fh.get(throw.remote("two"))
    assert isinstance(two.value, fh.errors.TaskError)
    assert two.value.code == 4
    with pytest.raises(ExceptionGroup) as group:
        fh.get(throw.remote("group"))
    assert [type(part) for part in group.value.exceptions] == [KeyError, OSError]
    with pytest.raises(OSError, match="second") as chained:
        fh.get(throw.remote("chained"))
    assert "KeyError: 'first'" in str(chained.value)
    with pytest.raises(OSError, match="holds a lock"):
        fh.get(throw.remote("unpicklable"))


def test_exits_in_tasks() -> None:
    """Goal: SystemExit in a task is an error of the task; a process that really ends is named with
    its exit code."""
    with pytest.raises(fh.errors.TaskError, match="SystemExit: 3"):
        fh.get(throw.remote("exit"))
    with pytest.raises(fh.errors.WorkerDiedError, match="exit code 7"):
        fh.get(throw.remote("os"))


def test_families_of_errors() -> None:
    """Goal: what a program catches by a base class. Method: the table."""
    errors = fh.errors
    for kind, bases in (
        (errors.GetTimeoutError, (TimeoutError,)),
        (errors.TaskTimeoutError, (TimeoutError,)),
        (errors.ActorAlreadyExistsError, (ValueError,)),
        (errors.ClusterUnreachableError, (ConnectionError,)),
        (errors.NotInitializedError, (RuntimeError,)),
        (errors.SerializationError, (TypeError,)),
        (errors.OwnerDiedError, (errors.ObjectLostError,)),
    ):
        assert issubclass(kind, (errors.FreeholdError,)), kind
        assert all(issubclass(kind, base) for base in bases), kind


# -- placement groups and strategies --------------------------------------------------------------


def test_a_placement_group_reserves_all_or_nothing_and_frees_on_removal() -> None:
    """Goal: bundles are reserved together, used by index, pending while they do not fit, and free
    again after removal; what runs in a removed group ends with an error that says so."""
    group = fh.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK")
    assert group.wait(20)
    assert (group.bundle_count, len(group.bundle_specs)) == (2, 2)
    second = fh.placement_group([{"CPU": 1}])
    assert second.wait(0.05) is False

    @fh.remote
    def inside() -> str | None:
        return fh.get_runtime_context().get_placement_group_id()

    strategy = fh.PlacementGroupSchedulingStrategy(group, 1)
    assert fh.get(inside.options(scheduling_strategy=strategy).remote()) == group.id
    ref = fh.remote(time.sleep).options(scheduling_strategy=strategy).remote(1000)
    fh.remove_placement_group(group)
    with pytest.raises(fh.errors.PlacementGroupRemovedError):
        fh.get(ref, timeout=20)
    assert second.wait(20)
    fh.remove_placement_group(second)
    assert until(lambda: fh.available_resources().get("CPU") == 2.0)


def test_impossible_groups_and_strategies_are_refused() -> None:
    """Goal: empty or zero bundles, unknown strategies, indices that do not exist: at once."""
    for bundles in ([], [{}], [{"CPU": 0}]):
        with pytest.raises(ValueError, match="bundle"):
            fh.placement_group(bundles)
    with pytest.raises(ValueError, match="STRICT_SPREAD"):
        fh.placement_group([{"CPU": 1}], strategy="TIGHT")
    group = fh.placement_group([{"CPU": 1}])
    with pytest.raises(ValueError, match="bundle"):
        fh.PlacementGroupSchedulingStrategy(group, 1)
    fh.remove_placement_group(group)
    with pytest.raises(ValueError, match="nobody"):
        fh.get_placement_group("nobody")


def test_node_affinity() -> None:
    """Goal: hard affinity to a node that is not there is an error, soft runs elsewhere."""

    @fh.remote
    def where() -> str:
        return fh.get_runtime_context().get_node_id()

    here = fh.get_runtime_context().get_node_id()
    gone = "ab" * (len(here) // 2)
    strategy = fh.NodeAffinitySchedulingStrategy
    assert fh.get(where.options(scheduling_strategy=strategy(here, soft=False)).remote()) == here
    assert fh.get(where.options(scheduling_strategy=strategy(gone, soft=True)).remote()) == here
    with pytest.raises(fh.errors.UnschedulableError, match=gone[:8]):
        fh.get(where.options(scheduling_strategy=strategy(gone, soft=False)).remote())


# -- pains ----------------------------------------------------------------------------------------


def test_what_can_never_run_fails_and_says_what_is_missing() -> None:
    """Pain: infeasible work waits for ever. Goal: an error that names what is asked for and the
    nearest miss."""
    with pytest.raises(fh.errors.UnschedulableError, match=r"CPU 64 is needed.*short of CPU 62"):
        fh.get(throw.options(num_cpus=64).remote("two"), timeout=20)


def test_a_get_that_times_out_says_what_it_waits_for() -> None:
    """Pain: a hung program that says nothing. Goal: the error has the reason."""
    ref = fh.remote(time.sleep).remote(1000)
    with pytest.raises(fh.errors.GetTimeoutError, match="sleep"):
        fh.get(ref, timeout=1)
    fh.cancel(ref, force=True)


def test_an_argument_that_cannot_be_pickled_is_named_where_it_is_passed() -> None:
    """Pain: pickling errors without a place. Goal: the path inside the argument, at ``.remote``."""
    import threading

    config: dict[str, Any] = {"model": {"lock": threading.Lock()}}
    with pytest.raises(TypeError, match=r"\['model'\]\['lock'\]"):
        throw.remote(config)  # type: ignore[arg-type, call-overload]


def test_arrays_can_be_had_writable() -> None:
    """Pain: "assignment destination is read-only". Goal: one keyword."""
    import numpy as np

    array = fh.get(fh.put(np.zeros(4)), writable=True)
    array[0] = 1
    assert array.sum() == 1


def test_options_of_ray_that_are_absent_say_what_to_do() -> None:
    """Pain: a ported program that fails in an unclear way. Goal: the remedy is in the message."""
    with pytest.raises(ValueError, match="only actors have one"):
        throw.options(lifetime="detached")
    with pytest.raises(ValueError, match="called backpressure"):
        throw.options(_generator_backpressure_num_objects=1)
