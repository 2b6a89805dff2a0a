"""Whole simulated clusters: fixed seeds of every profile, and a few that nobody has run before."""

from __future__ import annotations

import os

import pytest

from freehold.sim.campaign import Tally
from freehold.sim.cluster import run_case
from freehold.sim.generate import NAMES, PROFILES, make_case

pytestmark = pytest.mark.sim

FIXED = 60
FRESH = 15


@pytest.mark.parametrize("profile", NAMES)
def test_fixed_seeds(profile, must_hold):
    """Goal: every promise holds under each profile's faults. Method: the same seeds each time; the
    profile's faults and errors must really have happened, or the test has tested nothing."""
    tally = Tally()
    for seed in range(FIXED):
        outcome = run_case(make_case(seed, profile))
        must_hold(outcome)
        tally.add(outcome)
    assert tally.outcomes["value"] > FIXED
    for kind in PROFILES[profile].faults:
        assert tally.marks[kind], f"no fault of kind {kind} struck in {FIXED} seeds"
    assert sum(tally.known.values()) <= FIXED // 10, tally.known


@pytest.mark.parametrize("profile", NAMES)
def test_fresh_seeds(profile, must_hold):
    """Goal: find what the fixed seeds do not. Method: seeds nobody has run; a failure prints the
    command that replays it for ever."""
    start = int.from_bytes(os.urandom(4), "big")
    for seed in range(start, start + FRESH):
        must_hold(run_case(make_case(seed, profile)))


# Seeds that found bugs in the core while they were there; each stays, with what it found.
FOUND = [
    ("calm", 44, "a worker that leases itself freed its own reference under way"),
    ("calm", 52, "a stored result with references inside leaked when nobody wanted it"),
    ("calm", 56, "a copy whose pull ended after the free leaked"),
    ("calm", 121, "a pull before the seal arrived declared the value lost"),
    ("calm", 247, "a dead worker's last seal was ignored, the value dropped"),
    ("borrow", 79, "a task given back went straight back, for ever"),
    ("storm", 104, "a request that came after its job's end stayed queued for ever"),
    ("storm", 144, "a request that came after its owner's death was granted for ever"),
    ("nodes", 110, "a stale attempt's references entered the table under the new owner's names"),
    ("nodes", 197, "a request asked anew under its old id was granted twice"),
    ("pressure", 559, "an argument lost while its task was queued was read as a value"),
    ("drivers", 187, "a result stored for a dead owner leaked"),
    ("crash", 335, "a worker that registered after its death was told of deaths, for ever"),
    ("crash", 230, "a young worker waited for an introduction by an owner long dead"),
    ("storm", 257, "so it did when its giver had not heard of that death either"),
    ("storm", 903895, "a fetch without fetchers stayed open when its object had been freed"),
    ("storm", 903817, "a stream dialled just before a death was heard after the burial"),
]


@pytest.mark.parametrize(("profile", "seed"), [(p, s) for p, s, _ in FOUND])
def test_seeds_that_found_bugs(profile, seed, must_hold):
    """Goal: bugs stay mended. Method: rerun what found them (as far as the generator still makes
    the same case of the seed; docs/track-record.md names the tests that pin each bug down)."""
    must_hold(run_case(make_case(seed, profile)))
