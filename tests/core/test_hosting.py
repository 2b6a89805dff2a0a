"""The calls that lie at an actor's worker: lanes, groups, cancelling, what is not given back."""

from __future__ import annotations

import pytest

from core.test_execution import Bench
from core.world import World, lease, node, object_id, process, stored, task_id
from freehold.core.execution import Run
from freehold.core.hosting import Hosting
from freehold.ids import ObjectId
from freehold.wire.messages import (
    Address,
    Argument,
    Call,
    CancelFetch,
    CancelTask,
    Creation,
    FetchObject,
    ObjectMissing,
    ObjectReady,
    PushTask,
    Reference,
    TaskDone,
    TaskReturned,
)

OWNER, ANN, BOB = process("owner"), process("ann"), process("bob")
NODE = node()
X = object_id("x")


class Home(Bench):
    """A worker that hosts an actor, whose user code is the test."""

    def __init__(self, world: World, creation: Creation) -> None:
        super().__init__(world)
        self.hosting = Hosting(self.execution, creation, OWNER)
        self.execution.hosting = self.hosting
        self.started: list[Run] = []
        self.hosting.start = self.started.append
        self.looked_for: list[ObjectId] = []
        self.fetching.missing = lambda key, owner, tried: self.looked_for.append(key)

    def call(
        self,
        name: str,
        by: Address = ANN,
        *,
        needs: bool = False,
        group: str = "",
        number: int = 0,
        line: bytes = b"",
    ) -> None:
        """A call comes; one that ``needs`` has an argument in a store."""
        message = PushTask(task_id(name), 0, lease(1), b"", b"", 1)  # type: ignore[arg-type]
        message.actor = Call("m", group, number, line)
        if needs:
            message.deps = [Argument(Reference(X, by), stored(100, NODE))]
        self.execution.on_push(message, by)

    def running(self) -> list[str]:
        """Names of the calls that were begun beside each other, since last asked."""
        names = [run.message.task.rstrip(b".").decode() for run in self.started]
        self.started.clear()
        return names

    def end(self, name: str) -> None:
        """A call that was begun beside others has ended."""
        run = self.execution.runs[task_id(name)]
        self.execution.finished(run, [], 0, False)
        self.hosting.finished(run)


@pytest.fixture
def serial(world: World) -> Home:
    return Home(world, Creation())


def test_each_caller_has_a_lane(serial: Home) -> None:
    """Goal: calls of one caller run in the order sent, though the argument of one is late; another
    caller's pass. Method: Ann's first waits for a stored value; Bob's and Ann's second come."""
    serial.call("a1", needs=True)
    serial.call("a2")
    serial.call("b1", BOB)
    assert (serial.next(), serial.next()) == ("b1", "")
    serial.world.one(FetchObject)
    serial.fetching.on_ready(ObjectReady(X, 0, 100))
    assert (serial.next(), serial.next(), serial.next()) == ("a1", "a2", "")


def test_each_line_of_a_caller_has_a_lane(serial: Home) -> None:
    """Goal: calls of two tasks in one worker do not wait for each other, and lanes do not pile up.
    Method: the argument of one task's call is late; another task's passes; then all have run."""
    serial.call("a1", needs=True, line=b"one")
    serial.call("a2", line=b"two")
    serial.call("a3", line=b"one")
    assert (serial.next(), serial.next()) == ("a2", "")
    serial.world.one(FetchObject)
    serial.fetching.on_ready(ObjectReady(X, 0, 100))
    assert (serial.next(), serial.next()) == ("a1", "a3")
    assert serial.hosting.lanes == {}


def test_a_call_that_comes_again_takes_its_old_place(serial: Home) -> None:
    """Goal: nobody waits for a call that stands behind it. Method: the argument of Ann's second
    call was the result of her first and is lost, so that the first comes again: it runs, though
    the second has come before it and waits, and what it gives lets the second run."""
    serial.call("a2", needs=True, number=1)
    serial.call("a3", number=2)
    serial.world.one(FetchObject)
    serial.call("a1", number=0)
    assert (serial.next(), serial.next()) == ("a1", "")
    serial.fetching.on_ready(ObjectReady(X, 0, 100))
    assert (serial.next(), serial.next(), serial.next()) == ("a2", "a3", "")


def test_a_missing_argument_keeps_its_place(serial: Home) -> None:
    """Goal: a call is not sent back when a store does not have its argument: it would lose its
    place.
    Method: the node has it not; its owner is asked; no TaskReturned."""
    serial.call("a1", needs=True)
    serial.call("a2")
    serial.world.one(FetchObject)
    serial.fetching.on_missing(ObjectMissing(X, "gone", [NODE.node]))
    assert serial.looked_for == [X]
    assert serial.next() == ""
    assert serial.world.take(TaskReturned) == []


@pytest.mark.parametrize("again", [True, False])
def test_a_call_that_went_back_holds_up_those_behind(serial: Home, again: bool) -> None:
    """Goal: calls run in the order sent, also when the argument of one is lost with its owner and
    its caller has to find it. Method: the owner dies before the value is here; a call was there
    behind the first by then, another comes later; the first comes again, or never."""
    serial.call("a1", needs=True, number=1)
    serial.call("a2", number=2)
    serial.world.one(FetchObject)
    serial.fetching.withdraw(X)
    [back] = serial.world.take(TaskReturned, ANN)
    assert back.task == task_id("a1")
    serial.world.take(CancelFetch)
    serial.call("a3", number=3)
    serial.call("a0", number=0)
    assert (serial.next(), serial.next()) == ("a0", "")
    if again:
        serial.call("a1", needs=True, number=1)
        serial.world.one(FetchObject)
        assert serial.next() == ""
        serial.fetching.on_ready(ObjectReady(X, 0, 100))
        assert serial.next() == "a1"
    else:
        serial.execution.on_cancel(CancelTask(task_id("a1"), False, False))
    assert (serial.next(), serial.next(), serial.next()) == ("a2", "a3", "")
    assert (serial.hosting.lanes, serial.hosting.away) == ({}, {})


def test_the_caller_of_a_call_that_went_back_dies(serial: Home) -> None:
    """Goal: nothing of it is left. Method: as above, then its stream ends."""
    serial.call("a1", needs=True)
    serial.world.one(FetchObject)
    serial.fetching.withdraw(X)
    serial.world.take(TaskReturned), serial.world.take(CancelFetch)
    serial.table.lost.add(ANN.process)
    serial.execution.peer_lost(ANN.process)
    assert (serial.hosting.lanes, serial.hosting.away) == ({}, {})


def test_cancel_lets_those_behind_go(serial: Home) -> None:
    """Goal: a cancelled call at the head of a lane does not block it. Method: cancel the one that
    waits for its argument."""
    serial.call("a1", needs=True)
    serial.call("a2")
    serial.execution.on_cancel(CancelTask(task_id("a1"), False, False))
    assert serial.next() == "a2"
    assert len(serial.world.take(TaskDone, ANN)) == 1
    serial.world.take(FetchObject), serial.world.take(CancelFetch)


def test_nothing_is_given_back(serial: Home) -> None:
    """Goal: an actor is the only place for its calls, however slow it is. Method: it gives back."""
    serial.call("a1")
    serial.execution.give_back()
    serial.world.expect()
    assert serial.next() == "a1"


def test_a_caller_dies(serial: Home) -> None:
    """Goal: what it had queued does not run; what runs ends as it would have: an exception out of
    nowhere would tear the actor's state. Method: one of each."""
    serial.call("a1")
    serial.call("a2")
    assert serial.next() == "a1"
    serial.table.lost.add(ANN.process)
    serial.execution.peer_lost(ANN.process)
    assert serial.interrupted == []
    assert serial.next() == ""
    assert serial.hosting.lanes == {}


def test_groups_are_limits(world: World) -> None:
    """Goal: as many calls at once as the actor allows, and as each group does, none waiting for the
    other's. Method: three calls of each; two and one run; an end begins the next."""
    home = Home(world, Creation(limit=2, groups={"io": 1}))
    for number in (1, 2, 3):
        home.call(f"a{number}")
        home.call(f"io{number}", group="io")
    assert home.running() == ["a1", "io1", "a2"]
    home.end("io1")
    assert home.running() == ["io2"]
    home.end("a2")
    assert home.running() == ["a3"]
    world.take(TaskDone)


def test_calls_pass_one_that_waits(world: World) -> None:
    """Goal: an actor that runs several calls at a time does not wait for late arguments. Method:
    the
    first call's is late."""
    home = Home(world, Creation(coroutines=True, limit=10))
    home.call("a1", needs=True)
    home.call("a2")
    assert home.running() == ["a2"]
    world.one(FetchObject)
    home.fetching.on_ready(ObjectReady(X, 0, 100))
    assert home.running() == ["a1"]


def test_an_actor_that_ends_begins_nothing(world: World) -> None:
    """Goal: after ``exit_actor`` what runs finishes and nothing else begins. Method: close it with
    one call running, one queued and one to come."""
    home = Home(world, Creation(limit=1, groups={"io": 1}))
    home.call("a1")
    home.call("a2")
    assert home.running() == ["a1"]
    home.hosting.closing = True
    home.end("a1")
    home.call("a3")
    assert home.running() == []
    world.take(TaskDone)
