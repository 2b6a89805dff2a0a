"""Questions to the head: ``runtime.process.ask`` and the loops around it, in the simulated world.

User code that asks goes on when it has its answer. While the head is away it asks again, as often
as it takes, and so does a program here whose patience would be over in the real world: what it
does must not depend on how long a head is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from freehold.sim.world import MILLI, SECOND
from freehold.wire.messages import Message

if TYPE_CHECKING:
    from freehold.sim.user import Thread, UserProcess

PAUSE = 50 * MILLI  # as api.session and api.named, between two questions
PATIENCE = 5 * SECOND  # as api.session: for one answer


class Question:
    """One question, asked until it is answered. ``number``: of its last asking."""

    def __init__(
        self, thread: Thread, make: Callable[[int], Message], then: Callable[[Any], None]
    ) -> None:
        self.process: UserProcess = thread.process
        self.thread = thread
        self.make = make
        self.then = then
        self.number = 0
        thread.rounds += 1
        self.rounds = thread.rounds
        self.ask()

    def ask(self) -> None:
        """Once, or once more."""
        process = self.process
        if self.rounds != self.thread.rounds:
            return  # it was interrupted
        process.questions.pop(self.number, None)
        process.asked += 1
        self.number = process.asked
        process.questions[self.number] = self
        process.send(process.cluster.head.address, self.make(self.number))
        if not self.thread.beside:
            process.deaf_until = 0  # the waiting thread reads the sockets
        number = self.number
        process.arrange(PATIENCE, lambda: self.late(number), "no answer of the head")

    def late(self, number: int) -> None:
        """No answer has come in time."""
        if self.process.questions.get(number) is self:
            self.process.world.mark("the head does not answer")
            self.ask()

    def head_lost(self) -> None:
        """The head is gone."""
        self.process.arrange(PAUSE, self.ask, "asks the head again")

    def answered(self, message: Any) -> None:
        """User code goes on."""
        if self.rounds == self.thread.rounds:
            self.thread.wake(lambda: self.go_on(message), "has the head's answer")

    def go_on(self, message: Any) -> None:
        """On the thread that asked."""
        self.thread.rounds += 1
        if not self.thread.beside:
            self.process.computes()
        self.then(message)
