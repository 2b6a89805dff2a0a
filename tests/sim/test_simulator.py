"""The simulator itself: a seed is one run, a failure shrinks, planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from freehold.sim.campaign import report
from freehold.sim.cluster import run_case
from freehold.sim.generate import Fault, make_case
from freehold.sim.mutants import MUTANTS, hunt, planted
from freehold.sim.shrink import shrink
from freehold.sim.world import World

pytestmark = pytest.mark.sim

SEEDS = range(24)
DIGESTS = """
from freehold.sim.cluster import run_case
from freehold.sim.generate import make_case
for seed in range(24):
    print(run_case(make_case(seed)).digest)
"""


def test_a_seed_is_one_run_under_any_hash_seed():
    """Goal: a failure replays from its number. Method: the digests of all steps, made here and in
    two interpreters that hash bytes and strings differently, are equal."""
    here = [run_case(make_case(seed)).digest for seed in SEEDS]
    for hash_seed in ("1", "271828"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", DIGESTS], env=environment, capture_output=True, check=True
        )
        assert there.stdout.decode().split() == here


def test_streams_of_chance_are_independent():
    """Goal: one draw more in one stream changes no other. Method: draw, and compare."""
    one, other = World("7"), World("7")
    one.stream("faults").random()
    assert one.stream("network").random() == other.stream("network").random()
    assert one.stream("faults").random() != other.stream("network").random()


def test_the_canary_fails():
    """Goal: the harness can fail at all. Method: a bug that no run survives is planted; the run
    must fail, and hold again without it."""
    canary = next(mutant for mutant in MUTANTS if mutant.name == "a worker leased twice")
    case = make_case(0, "calm")
    with planted(canary):
        assert run_case(case).promise == "one lease"
    assert run_case(case).promise == ""


def test_a_failure_shrinks_to_a_handful():
    """Goal: a finder reads the bug off the report. Method: a planted bug, found in large cases,
    shrinks to at most 6 operations and 2 faults, and the report names all that is needed."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "arguments stay pinned")
    with planted(mutant):
        found = hunt(mutant, start=5)
        outcome = run_case(make_case(found.seed, found.profile))
        small = shrink(outcome.case, outcome.promise)
        ops = [op for program in small.programs for body in program.functions for op in body.ops]
        assert len(ops) <= 6
        assert len(small.faults) <= 2
        text = report(outcome)
    assert f"--seed {found.seed} --profile {found.profile} --trace" in text
    assert "no leak" in text
    assert "main:" in text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_bugs_are_found(mutant):
    """Goal: the simulator sees. Method: each planted bug breaks a promise within its seeds."""
    assert hunt(mutant).seeds, f"{mutant.name}: not found"


def test_faults_print_as_people_read_them():
    """Goal: a report can be understood. Method: one fault's text."""
    assert str(Fault(0.5, "kill node", 0.25, 0.1)) == (
        "0.5000 s: kill node (pick 0.250, for 0.100 s)"
    )
