"""Resources are conserved under any sequence of events: a stateful property test.

Promise: for every resource, total = free + what grants hold, at all times; free is below zero only
while a worker that lent its CPUs out has taken them back; nothing is granted into the negative.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.test_scheduling import Bench
from core.world import World, info, lease, node, process
from freehold.resources import UNIT
from freehold.wire.messages import LeaseGranted, LeaseRedirected, LeaseRefused

OWNERS = [process(name) for name in ("one", "two", "three")]
TOTAL = {"CPU": 4 * UNIT, "GPU": UNIT}
pick = st.integers(0, 9)


class Conserves(RuleBasedStateMachine):
    """A node of 4 CPUs and a GPU, three owners, one peer."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(node())
        self.bench = Bench(self.world, TOTAL)
        self.scheduling = self.bench.scheduling
        self.count = 0
        self.open: dict[int, int] = {}  # lease number -> owner's index, not answered for good

    @rule(
        owner=st.integers(0, 2),
        quarters=st.integers(0, 20),
        gpu=st.booleans(),
        depth=st.integers(0, 2),
        hire=st.booleans(),
    )
    def request(self, owner: int, quarters: int, gpu: bool, depth: int, hire: bool) -> None:
        self.count += 1
        self.bench.hire = hire
        wanted = {"CPU": quarters * UNIT // 4} if quarters else {}
        if gpu:
            wanted["GPU"] = UNIT // 2
        self.open[self.count] = owner
        self.bench.request(self.count, wanted, owner=OWNERS[owner], depth=depth)

    @precondition(lambda self: self.open)
    @rule(which=pick)
    def give_back(self, which: int) -> None:
        number = sorted(self.open)[which % len(self.open)]
        self.bench.give_back(number, OWNERS[self.open.pop(number)])

    @precondition(lambda self: self.bench.workers)
    @rule(which=pick, block=st.booleans())
    def block(self, which: int, block: bool) -> None:
        workers = list(self.bench.workers.values())
        worker = workers[which % len(workers)]
        (self.scheduling.block if block else self.scheduling.unblock)(worker)

    @precondition(lambda self: self.scheduling.granted)
    @rule(which=pick)
    def refuse_or_hire(self, which: int) -> None:
        grants = list(self.scheduling.granted.items())
        lease_id, granted = grants[which % len(grants)]
        if granted.worker is None:
            if which % 2:
                self.scheduling.refuse(lease_id, "no")
            else:
                self.bench.hire = True
                self.bench.want(lease_id, granted.wire.job)

    @rule(owner=st.integers(0, 2), seldom=pick)
    def owner_gone(self, owner: int, seldom: int) -> None:
        if not seldom:
            self.open = {n: at for n, at in self.open.items() if at != owner}
            self.scheduling.forget_owner(OWNERS[owner].process)

    @rule(cpus=st.integers(0, 8))
    def peer_reports(self, cpus: int) -> None:
        near = node("near")
        self.scheduling.peers[near.node] = info(near, TOTAL, {"CPU": cpus * UNIT})
        self.scheduling.dispatch()

    @rule(seconds=st.sampled_from([0.01, 0.06, 6.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @invariant()
    def conserved(self) -> None:
        self.bench.conserved()
        for name, amount in self.scheduling.free.items():
            assert amount >= 0 or name == "CPU"

    @invariant()
    def each_request_is_somewhere_once(self) -> None:
        """Queued, granted or sent away: never two of these, never none."""
        for kind in (LeaseRefused, LeaseRedirected):
            for message in self.world.take(kind):
                del self.open[int.from_bytes(message.lease, "big")]
        for granted in self.world.take(LeaseGranted):
            assert granted.lease in self.scheduling.granted
        self.world.sent.clear()
        places = [queued.wire.lease for queued in self.scheduling.queue]
        places += list(self.scheduling.granted)
        assert sorted(places) == [lease(number) for number in sorted(self.open)]

    def teardown(self) -> None:
        """When every owner is gone, everything is free."""
        for owner in OWNERS:
            self.scheduling.forget_owner(owner.process)
        assert self.scheduling.free == TOTAL
        assert not self.scheduling.queue


# A failure is told in seconds; without the last argument it is made small, which takes minutes.
Conserves.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, phases=[Phase.generate]
)
TestConserves = Conserves.TestCase
