"""The simulator itself: a seed is one run, a failure shrinks, planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from freehold.core.ownership import Ownership
from freehold.sim.campaign import Tally, campaign, one, repeat, report
from freehold.sim.causes import Causes
from freehold.sim.cluster import Cluster, run_case
from freehold.sim.compose import FAMILIES
from freehold.sim.errors import Failure
from freehold.sim.generate import NAMES, PROFILES, Fault, make_case
from freehold.sim.hunt import Mutant, hunt, planted
from freehold.sim.mutants import MUTANTS
from freehold.sim.ops import Call, Get
from freehold.sim.reach import expectations, watched
from freehold.sim.shrink import minimal, shrink, sizes
from freehold.sim.world import World

pytestmark = pytest.mark.sim

SEEDS = range(24)
#: Weights of operations that are not called what the operation is called.
NAMED = {"timed get": "Get", "descend": "Get", "toil": "Sleep", "end": "Cancel", "broadcast": "Put"}
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


def mutant_called(name: str) -> Mutant:
    """The planted bug of that name."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def test_the_canary_fails():
    """Goal: the harness can fail at all. Method: a bug that no run survives is planted; the run
    must fail, and hold again without it."""
    canary = mutant_called("a worker leased twice")
    case = make_case(0, "calm")
    with planted(canary):
        assert run_case(case).promise == "one lease"
    assert run_case(case).promise == ""


# A planted bug, and how many operations are left at most.
SHRINKABLE = [
    ("arguments stay pinned", 2),
    ("a refusal is lost", 2),
    ("cancel leaves it queued", 6),
    ("endless retries", 4),
    ("the dead hold on", 6),
]


@pytest.mark.parametrize(("name", "most"), SHRINKABLE)
def test_a_failure_shrinks_to_a_handful(name, most):
    """Goal: a finder reads the bug off the report. Method: planted bugs, found in large cases,
    shrink to so few operations, 2 faults and 2 nodes, of which none can be left out, and the
    report names all that is needed."""
    mutant = mutant_called(name)
    found = hunt(mutant, mutant.seed)
    case = make_case(found.seed, found.profile)
    with planted(mutant):
        small = shrink(case, found.promise)
        print(f"{name}: from {sizes(case)} to {sizes(small)}")  # noqa: T201 (shown with -s)
        assert run_case(small).promise == found.promise
        assert minimal(small, found.promise)
        ops = [op for program in small.programs for body in program.functions for op in body.ops]
        assert len(ops) <= most
        assert len(small.faults) <= 2
        assert len(small.nodes) <= 2
        text = report(run_case(small))
    assert f"--seed {found.seed} --profile {found.profile} --trace" in text
    assert found.promise in text
    assert "main:" in text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_bugs_are_found(mutant):
    """Goal: the simulator sees. Method: each planted bug breaks a promise, which holds without it,
    at the seed that found it, or within the hunt's seeds from there on if the code has changed."""
    assert hunt(mutant, mutant.seed).seeds, f"{mutant.name}: not found"


def test_a_bug_that_changes_nothing_is_not_found():
    """Goal: a hunt proves something. Method: a bug that is none gets away."""
    nothing = Mutant("nothing", Ownership, "own", ("calm",), 0, lambda true: true)
    assert not hunt(nothing, most=5).seeds


def test_a_campaign_counts_and_runs_again():
    """Goal: a campaign says what it has seen. Method: one of 40 seeds in two processes, against
    the same seeds run here; the two that it ran again elsewhere gave the same digests."""
    told = []
    tally = campaign(range(40), "crash", 2, lambda outcome: told.append(outcome.digest))
    assert told == [one((seed, "crash")).digest for seed in range(40)]
    assert tally.seeds == {"crash": 40}
    assert tally.repeated == 2
    assert tally.differ == []
    assert tally.good
    assert "run again in a fresh interpreter: 0 mismatches of 2" in tally.lines()


def test_a_run_that_differs_elsewhere_fails_the_campaign():
    """Goal: nondeterminism is an error. Method: a campaign is told another digest than the fresh
    interpreter finds."""
    tally = Tally()
    tally.add(run_case(make_case(20, "calm")))
    tally.digests[20, "calm"] = "of another run"
    repeat(tally, 1)
    assert tally.differ == [(20, "calm")]
    assert not tally.good


def test_a_campaign_that_reaches_too_little_fails():
    """Goal: a simulator that cannot reach a path does not pass for one that finds no bug there.
    Method: a tally of many seeds in which every path was reached but one, and that of so few that
    nothing is due."""
    tally = Tally()
    tally.seeds.update(dict.fromkeys(NAMES, 100))
    tally.reached.update(name for name, _, _ in expectations())
    assert tally.missing() == []
    del tally.reached["a release crosses a hand-out"]
    assert tally.missing() == ["a release crosses a hand-out"]
    assert not tally.good
    tally.seeds.clear()
    tally.seeds["calm"] = 10
    assert tally.missing() == []


def test_watching_changes_nothing():
    """Goal: what is marked is what would have happened. Method: digests with and without, and the
    marks that are added."""
    cases = [make_case(seed, "crash") for seed in range(5)]
    plain = [run_case(case) for case in cases]
    with watched():
        marked = [run_case(case) for case in cases]
    assert [run.digest for run in marked] == [run.digest for run in plain]
    added = {mark for one, other in zip(marked, plain) for mark in one.marks.keys() - other.marks}
    assert "a job ends" in added


@pytest.mark.parametrize("profile", NAMES)
def test_every_operation_is_made(profile):
    """Goal: programs differ in kind. Method: the operations of a hundred seeds; each that the
    profile gives a weight must be among them, and so must calls that no node can hold, references
    three levels deep, and calls with more than ten arguments."""
    seen = set()
    for seed in range(100):
        case = make_case(seed, profile)
        for program in case.programs:
            for op in (op for body in program.functions for op in body.ops):
                seen.add(type(op).__name__)
                if isinstance(op, Get) and any(name.count(".") >= 3 for name in op.vars):
                    seen.add("deep")
                if isinstance(op, Call) and op.cpus > case.most_cpus:
                    seen.add("greedy")
                if isinstance(op, Call) and len(op.deps) > 10:
                    seen.add("wide")
    families = [FAMILIES[name].ops for name in PROFILES[profile].families]
    ops = {name for family in (PROFILES[profile].ops, *families) for name in family}
    wanted = {NAMED.get(name, name.title()) for name in ops} | {"deep"}
    if "wide" in PROFILES[profile].families:
        wanted |= {"greedy", "wide"}
    assert wanted - seen == set()


def test_an_error_without_a_cause_is_told():
    """Goal: the judge of errors judges. Method: a run in which nothing struck; each kind of system
    error is put before it."""
    cluster = Cluster(make_case(0, "calm"))
    cluster.run()
    causes = Causes(cluster)
    driver = cluster.drivers[0]
    call = next(iter(cluster.lenient[0].calls), "")
    owner = next(node for node in cluster.live_nodes()).address.process.hex()
    assert causes.missing(Failure("freed", "")) == "a value that could be named was freed"
    assert causes.missing(Failure("lost", "0: gone")) == "no node died and no disk failed"
    assert causes.missing(Failure("owner_died", owner)) == "n0 is alive"
    assert causes.missing(Failure("worker_died", call)) == "no worker died"
    assert causes.missing(Failure("store_full", "")) == "the stores are large"
    assert causes.missing(Failure("unschedulable", f"{call}: no")) == "there was a node for it"
    assert causes.missing(Failure("user", driver.name)) == ""


def test_faults_print_as_people_read_them():
    """Goal: a report can be understood. Method: one fault's text."""
    assert str(Fault(0.5, "kill node", 0.25, 0.1)) == (
        "0.5000 s: kill node (pick 0.250, for 0.100 s)"
    )
