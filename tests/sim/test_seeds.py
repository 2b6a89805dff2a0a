"""Whole simulated clusters: fixed seeds of every profile, and a few that nobody has run before."""

from __future__ import annotations

import os

import pytest

from freehold.sim.campaign import Tally, one
from freehold.sim.cluster import run_case
from freehold.sim.generate import NAMES, PROFILES, make_case
from freehold.sim.reach import unreached

pytestmark = pytest.mark.sim

FIXED = 68  # of each of 22 profiles: with the fresh ones, about 1,700
FRESH = 10


@pytest.mark.parametrize("profile", NAMES)
def test_fixed_seeds(profile, must_hold):
    """Goal: every promise holds under each profile's faults, and within its bound after them.
    Method: the same seeds each time. What the profile is meant to reach in so many must really
    have been reached, and values read, or the test has tested nothing."""
    tally = Tally()
    for seed in range(FIXED):
        outcome = one((seed, profile))
        must_hold(outcome)
        tally.add(outcome)
    assert tally.outcomes["value"] > FIXED
    assert unreached(tally.seeds, tally.reached)[0] == []
    for kind in PROFILES[profile].faults:
        assert tally.marks[kind], f"no fault of kind {kind} struck in {FIXED} seeds"


@pytest.mark.parametrize("profile", NAMES)
def test_fresh_seeds(profile, must_hold):
    """Goal: find what the fixed seeds do not. Method: seeds nobody has run; a failure prints the
    command that replays it for ever."""
    start = int.from_bytes(os.urandom(4), "big")
    for seed in range(start, start + FRESH):
        must_hold(run_case(make_case(seed, profile)))


# Seeds that found bugs while those were there; each stays, with what it found.
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
    ("borrow", 1423, "a worker that left with leases in hand took their workers along"),
    ("crash", 1776, "what a dead attempt had stored stayed in the store"),
    ("handoff", 32173, "so it did on the node where the next attempt ran"),
    ("storm", 40072, "a claim went back and forth between a submitter and the dead, for ever"),
    ("handoff", 42656, "what a run made again was freed before the run had it in hand"),
    ("borrow", 62791, "an error that came between a get and its reader was read as a value"),
    ("handoff", 66114, "a dead owner's last word undid the claim for what it had owned"),
    ("handoff", 800811, "a value made again elsewhere between a get and its reader was no value"),
    ("tours", 904142, "a request that had gone far enough stayed where it could not be granted"),
    ("lives", 904226, "a claim on what a constructor had made raised in its owner"),
    ("tours", 910313, "calls that ran again waited for one another"),
    ("tours", 1000481, "a call at its host waited for one that ran again and came behind it"),
    ("actors", 7006916, "a call waited for one of another task in its worker, which waited for it"),
    ("streams", 8013607, "a closed stream whose run raised was made once more"),
    ("guilds", 104, "a program that had died got a name by its last word"),
    ("relays", 12006849, "a free of a copy that had gone blamed the source of the next one"),
    ("graces", 12009078, "what an ended child had started outlived a recursive cancel"),
    ("tours", 13015921, "an actor lived again before it had ended with its node"),
    ("actors", 16005298, "a call overtook one whose argument had died with its owner"),
    ("actors", 310001618, "an actor ended though a call of it waited for its argument"),
    ("guilds", 7063, "a name stayed whose end a head had not read before it died"),
]


@pytest.mark.parametrize(("profile", "seed"), [(p, s) for p, s, _ in FOUND])
def test_seeds_that_found_bugs(profile, seed, must_hold):
    """Goal: bugs stay mended. Method: rerun what found them (as far as the generator still makes
    the same case of the seed; docs/track-record.md names the tests that pin each bug down)."""
    must_hold(run_case(make_case(seed, profile)))
