"""The planted bugs, as a table: each breaks one rule of one machine (``hunt`` tells how they are
found). They stand in the order of the machines, with the profiles that exercise the rule and the
seed that found them when the table was last gone through."""

from __future__ import annotations

from typing import Final

from freehold.core.draining import Draining
from freehold.core.entries import Gate
from freehold.core.environments import Environments
from freehold.core.estate import Estate
from freehold.core.execution import Execution
from freehold.core.fetching import Fetching, Wait
from freehold.core.grants import Granted
from freehold.core.leasing import Leasing
from freehold.core.lineage import Lineage
from freehold.core.membership import Membership
from freehold.core.moving import Moving
from freehold.core.objects import Objects
from freehold.core.ownership import Ownership
from freehold.core.rebirth import Rebirth
from freehold.core.scheduling import Scheduling
from freehold.core.spilling import Spilling
from freehold.core.submission import Submission
from freehold.core.workers import Workers
from freehold.ids import Names
from freehold.roles.owner import Owner
from freehold.sim import bugs
from freehold.sim.hunt import Mutant
from freehold.sim.mutants_acts import ACT_MUTANTS
from freehold.sim.mutants_cancels import CANCEL_MUTANTS
from freehold.sim.mutants_flows import FLOW_MUTANTS
from freehold.sim.mutants_groups import GROUP_MUTANTS
from freehold.sim.mutants_head import HEAD_MUTANTS
from freehold.sim.mutants_names import NAME_MUTANTS
from freehold.sim.mutants_relays import RELAY_MUTANTS

ANYWHERE: Final = ("calm", "borrow")
CRASHES: Final = ("crash", "nodes", "handoff")
DRAINS: Final = ("drains",)
PLACES: Final = ("places",)
MUTANTS: Final = (
    Mutant("name before count", Ownership, "accept", ("borrow",), 5, bugs.name_before_count),
    Mutant("release as a boolean", Ownership, "on_release", ANYWHERE, 7, bugs.boolean_release),
    Mutant("handed out uncounted", Ownership, "hand_out", ANYWHERE, 0, bugs.uncounted),
    Mutant("takers uncounted", Ownership, "on_provide", ANYWHERE, 2, bugs.taker_uncounted),
    Mutant("inner references uncounted", Ownership, "for_peer", ANYWHERE, 0, bugs.inner_uncounted),
    Mutant("gates open at the first", Gate, "introduced", ("handoff",), 36, bugs.gate_half_open),
    Mutant("release of one of many", Ownership, "collect", ANYWHERE, 5, bugs.release_of_one),
    Mutant("borrowers are not told", Ownership, "resolve", ANYWHERE, 2, bugs.forgets_watchers),
    Mutant("the dead hold on", Ownership, "peer_lost", CRASHES, 0, bugs.dead_hold_on),
    Mutant("a cut hand-off hangs", Ownership, "on_gone", ("handoff",), 65, bugs.ignored),
    Mutant("the reborn leave waiters", Ownership, "merge", CRASHES, 30, bugs.waiters_left_behind),
    Mutant("arguments stay pinned", Submission, "finish", ANYWHERE, 0, bugs.keeps_arguments),
    Mutant("endless retries", Submission, "may_retry", ("crash",), 3, bugs.endless_retries),
    Mutant("lost arguments are pushed", Submission, "still_ready", ("handoff",), 75, bugs.always),
    Mutant(
        "cancel leaves it queued", Leasing, "withdraw", ("cancel",), 12, bugs.cancel_leaves_queued
    ),
    Mutant("leases are kept", Leasing, "give_back", ANYWHERE, 0, bugs.keeps_lease),
    Mutant(
        "requests die with a node", Leasing, "node_lost", ("nodes", "homes"), 6, bugs.dies_with_node
    ),
    Mutant("a redirection is lost", Leasing, "on_redirected", ("nodes",), 0, bugs.ignored),
    Mutant("a refusal is lost", Leasing, "on_refused", ANYWHERE, 17, bugs.ignored),
    Mutant("a returned task is lost", Leasing, "on_returned", ANYWHERE, 5, bugs.ignored),
    Mutant("tasks given back silently", Execution, "give_back", ANYWHERE, 5, bugs.silent_give_back),
    Mutant("cancel answers twice", Execution, "on_cancel", ("cancel",), 15, bugs.double_answer),
    Mutant("tasks run too early", Execution, "arrived", ANYWHERE, 0, bugs.runs_too_early),
    Mutant("a worker leased twice", Workers, "bind", ANYWHERE, 0, bugs.leased_twice),
    Mutant("a worker of another job", Workers, "pick", ("drivers",), 116, bugs.any_worker),
    Mutant("a worker of another environment", Workers, "serves", PLACES, 0, bugs.always),
    Mutant("who was to describe dies", Environments, "process_lost", PLACES, 0, bugs.ignored),
    Mutant("what is made is not told", Environments, "made", PLACES, 0, bugs.ignored),
    Mutant("workers outlive their job", Workers, "end_job", ("drivers",), 0, bugs.job_lives_on),
    Mutant(
        "lent CPUs given twice",
        Scheduling,
        "release",
        ("crash", "drivers"),
        15,
        bugs.resources_kept,
    ),
    Mutant("lent CPUs still held", Granted, "held", ANYWHERE, 1, bugs.lent_twice),
    Mutant("redirected requests vanish", Scheduling, "redirect", ("nodes",), 7, bugs.forgets_queue),
    Mutant("the impossible waits", Scheduling, "infeasible", ANYWHERE, 17, bugs.ignored),
    Mutant(
        "the dead stay in the queue", Scheduling, "forget_owner", CRASHES, 14, bugs.dead_in_queue
    ),
    Mutant("pins are never returned", Fetching, "release", ANYWHERE, 0, bugs.keeps_pins),
    Mutant(
        "late pins are kept", Fetching, "on_ready", ("calm", "cancel"), 2, bugs.nobody_pinned_it
    ),
    Mutant("pinned values are freed", Objects, "free", ("pressure",), 248, bugs.frees_pinned),
    Mutant("the dying live on", Objects, "unused", ANYWHERE, 0, bugs.dying_is_forgotten),
    Mutant("new copies are not told", Objects, "pulled", ("nodes", "calm"), 2, bugs.silent_pull),
    Mutant("values outlive owners", Objects, "process_lost", ("crash",), 6, bugs.keeps_of_the_dead),
    Mutant(
        "the only copy is evicted", Spilling, "evict_one", ("pressure",), 1, bugs.evicts_primaries
    ),
    Mutant("a spill slot is lost", Spilling, "leave_arena", ("pressure",), 1, bugs.slot_is_lost),
    Mutant("running again is free", Lineage, "begin_again", CRASHES, 2061, bugs.free_of_charge),
    Mutant(
        "arguments are not remade",
        Lineage,
        "begin_again",
        ("handoff",),
        30,
        bugs.arguments_not_made,
    ),
    Mutant("children are never gone", Lineage, "on_children_gone", ANYWHERE, 1, bugs.ignored),
    Mutant("the reborn are uncounted", Rebirth, "give", CRASHES, 30, bugs.reborn_uncounted),
    Mutant("given away before it is known", Moving, "on_taken", DRAINS, 84, bugs.hasty_drop),
    Mutant("taken over as a mere copy", Objects, "on_take", DRAINS, 249, bugs.taken_as_copy),
    Mutant(
        "the new place is forgotten", Owner, "on_object_moved", DRAINS, 41, bugs.place_forgotten
    ),
    Mutant("the old copy stays", Owner, "on_object_moved", DRAINS, 41, bugs.both_copies_stay),
    Mutant("refusals are not told", Objects, "not_taken", DRAINS, 522, bugs.ignored),
    Mutant("a drained node grants", Scheduling, "can_grant", DRAINS, 25, bugs.grants_when_drained),
    Mutant("leaves before it is empty", Draining, "empty", DRAINS, 2, bugs.leaves_too_early),
    Mutant("holders are forgotten", Ownership, "collect", ANYWHERE, 0, bugs.holders_forgotten),
    Mutant("names are given again", Names, "next_task", ANYWHERE, 0, bugs.names_again),
    Mutant("an attempt is pushed twice", Submission, "push", ("crash",), 1, bugs.pushed_twice),
    Mutant("raised is not retried", Submission, "on_done", ANYWHERE, 90, bugs.never_again),
    Mutant(
        "cancelled tasks are pushed", Submission, "cancel", ("cancel",), 12, bugs.cancelled_in_queue
    ),
    Mutant("a wait ends too early", Wait, "settle", ANYWHERE, 7, bugs.one_too_few),
    Mutant("room is not given back", Spilling, "leave_arena", ("pressure",), 1, bugs.room_is_lost),
    Mutant("slots are given back twice", Objects, "drop", ("pressure",), 1, bugs.discarded_twice),
    Mutant("heartbeats are not heard", Membership, "heard", ("head", "fence"), 0, bugs.ignored),
    Mutant("the fenced are let in", Membership, "fenced", ("fence",), 0, bugs.never),
    Mutant("copies die with the leaver", Estate, "give", DRAINS, 1001, bugs.ignored),
    *ACT_MUTANTS,
    *CANCEL_MUTANTS,
    *FLOW_MUTANTS,
    *GROUP_MUTANTS,
    *HEAD_MUTANTS,
    *NAME_MUTANTS,
    *RELAY_MUTANTS,
    Mutant("remains are left", Owner, "on_object_at", ("crash",), 21, bugs.remains_stay),
)
