"""Explanations of whole clusters: whatever the state, they end, and they change nothing.

A run is stopped every so many steps, and everything that anyone waits for is explained, through
every process that is alive, by the machines that answer in a real cluster. Those that are dead are
gone for the walk too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from freehold.core.explaining import LINES, Inquiry
from freehold.ids import ObjectId, ProcessId
from freehold.sim.cluster import Cluster, knobs, run_case
from freehold.sim.generate import make_case
from freehold.sim.user import UserProcess
from freehold.sim.world import Violation
from freehold.wire.inquiry import NAMED, OBJECT, SAME, Explain, Explanation, Question
from freehold.wire.messages import Address

pytestmark = pytest.mark.sim

#: Steps between two looks: a run has some thousands, and a look at everything takes as long as 20.
EVERY = 31
#: 1020: a node had not heard yet that a task had lent its CPU, and called it a deadlock.
SEEDS = [*range(700, 719), 1020]


class Witness:
    """Explains what is waited for in one cluster, now and again."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.texts: list[list[str]] = []
        self.sent: list[tuple[Address, Explain]] = []
        step = cluster.world.step
        self.steps = 0

        def stepped() -> bool:
            more = step()
            self.steps += 1
            if self.steps % EVERY == 0:
                self.look_around()
            return more

        cluster.world.step = stepped  # type: ignore[method-assign]

    def look_around(self) -> None:
        for process, waited in list(self.waits()):
            self.texts.append(self.explain(process, waited))
        for process in self.cluster.processes.values():
            role = getattr(process, "role", None)
            if process.alive and hasattr(role, "telling"):
                role.telling.explain(NAMED, b"00")

    def waits(self) -> Iterator[tuple[UserProcess, ObjectId]]:
        """What the threads of living processes wait for."""
        for process in self.cluster.users():
            thread = process.thread
            pending = getattr(thread.waiting, "pending", ()) if thread is not None else ()
            if process.alive:
                yield from ((process, waited) for waited in pending)

    def explain(self, process: UserProcess, waited: ObjectId) -> list[str]:
        """The walk from one wait, every message of it delivered at once."""
        root = Question(SAME, process.address, OBJECT, waited)
        inquiry = Inquiry(
            [root],
            send=lambda to, question: self.sent.append((to, question)),
            home=process.address.process,
            look=process.role.telling.explain,
        )
        inquiry.begin()
        while self.sent:
            to, question = self.sent.pop()
            there = self.cluster.processes.get(ProcessId(to.process))
            if there is None or not there.alive:
                inquiry.on_lost(to)
                continue
            role = there.role  # type: ignore[attr-defined]
            findings = role.telling.explain(question.about, question.id)
            inquiry.on_message(Explanation(question.request, findings), to)
        assert inquiry.done
        return inquiry.lines()


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_can_be_explained_at_any_time_and_nothing_changes(seed: int) -> None:
    """Goal: no state of no machine makes an explanation raise, run on or come out empty, and a run
    that is explained all the time is step by step the run that is not. Method: the digests of both
    are equal; every text has a line, none too many, and none calls a live run a deadlock."""
    case = make_case(seed)
    plain = run_case(case)
    with knobs(case):
        cluster = Cluster(case)
        witness = Witness(cluster)
        broken = ""
        try:
            cluster.run()
        except Violation as violation:
            broken = violation.promise
    assert (broken, cluster.world.digest.hexdigest()) == (plain.promise, plain.digest)
    assert all(1 <= len(text) <= LINES + 1 for text in witness.texts)
    if not plain.promise:  # everything went on in the end, so nothing was stuck
        stuck = [text for text in witness.texts if text[0].startswith("Deadlock")]
        assert stuck == []


def test_there_was_something_to_explain() -> None:
    """Goal: the test above cannot pass for want of waits. Method: among the texts of its seeds are
    those about the main reasons."""
    texts: list[str] = []
    for seed in SEEDS:
        case = make_case(seed)
        with knobs(case):
            cluster = Cluster(case)
            witness = Witness(cluster)
            try:
                cluster.run()
            except Violation:
                continue
        texts += ["\n".join(text) for text in witness.texts]
    for reason in ("was sent to", "where it has run", "and waits in get()", "is queued", "of its"):
        assert any(reason in text for text in texts), reason
