"""The short form of ``tests.chaos.nemesis``: half a minute of failures, then nothing is left."""

from __future__ import annotations

import pytest
from tests.chaos import dag, nemesis


def test_a_plan_is_a_function_of_its_seed() -> None:
    """Goal: what is checked against is known beforehand. Method: two plans of a seed are the same,
    each kind and size occurs, references are dropped after their last use and not before."""
    calls = dag.plan(5, 500)
    assert calls == dag.plan(5, 500)
    assert {call.kind for call in calls} == set(dag.KINDS)
    assert {call.size for call in calls} == {size for size, _ in dag.SIZES}
    dropped = set()
    for call in calls:
        assert not dropped & set(call.inputs)
        dropped |= set(call.last_use)
    assert len(dag.expected(calls)) == sum(len(call.outputs()) for call in calls)
    assert len(set(dag.expected(calls).values())) > 0.8 * len(calls)  # (carries are alike)


def test_a_damaged_leaf_is_noticed() -> None:
    """Goal: the check can fail. Method: one byte of a leaf is changed."""
    value = dag.leaf(b"0123456789", 1000)
    assert dag.read(value) == b"0123456789"
    value = value.copy()
    value[999] ^= 1
    with pytest.raises(AssertionError, match="not what was stored"):
        dag.read(value)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_random_program_under_random_failures() -> None:
    """Goal: workers, nodes and pauses cannot change a value, and leave nothing behind. Method: 300
    tasks and their children on four nodes, a failure every 0.7 s for 20 s; all values are
    compared, then everything is counted until it is zero."""
    outcome = nemesis.trial(seed=1, seconds=20, tasks=300, period=0.7)
    assert not outcome.failures, outcome.report()
    assert outcome.checked > 80
    assert sum(outcome.done.values()) >= 10
