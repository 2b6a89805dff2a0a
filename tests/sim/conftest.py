"""Helpers of the simulator's own tests."""

from __future__ import annotations

import pytest

from freehold.sim.cluster import Outcome


def explain(outcome: Outcome) -> str:
    """What to print when a run that should hold does not."""
    case = outcome.case
    return (
        f"{outcome.promise}: {outcome.detail}\n"
        f"python -m freehold.sim --seed {case.seed} --profile {case.profile}"
    )


@pytest.fixture
def must_hold():
    """Fail, with the command that replays it, unless every promise held."""

    def check(outcome: Outcome) -> None:
        if outcome.promise:
            pytest.fail(explain(outcome), pytrace=False)

    return check
