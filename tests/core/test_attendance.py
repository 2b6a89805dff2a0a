"""Attendance: calling the head, again and again, and being heard by it."""

from __future__ import annotations

import pytest

from core.world import World, cpus, info, node
from freehold.core.attendance import FIRST_PAUSE, LONGEST_PAUSE, Attendance
from freehold.core.membership import BEATS, DEAD_AFTER
from freehold.wire.messages import Heartbeat, JobEnded, JoinCluster, Joined

ME, HEAD = node("me"), node("head")
CALL = JoinCluster(info(ME, cpus(1)))
NEWS = JobEnded(b"job")  # type: ignore[arg-type]


@pytest.fixture
def attendance(world: World) -> Attendance:
    return Attendance(world, HEAD, lambda: CALL)


def test_call_and_beat(attendance: Attendance, world: World) -> None:
    """Goal: called at once, joined with the answer; a heartbeat every tenth of the patience, which
    is the default's until the head has said its own."""
    attendance.call()
    world.expect((HEAD, CALL))
    assert not attendance.joined
    world.advance(DEAD_AFTER / BEATS)
    world.expect((HEAD, Heartbeat()))
    attendance.on_joined(Joined([], dead_after=2.0))
    assert attendance.joined
    world.advance(2.0 + 1e-6)
    world.expect(*[(HEAD, Heartbeat())] * BEATS)


def test_calling_again(attendance: Attendance, world: World) -> None:
    """Goal: the first call within 50 ms of the loss, then at pauses that double up to a second,
    for as long as it takes; after an answer, anew. Method: every call is lost at once; count the
    pauses."""
    attendance.call()
    pauses = []
    for _ in range(10):
        world.sent.clear()
        attendance.lost()
        (again,) = [alarm for alarm in world.alarms if alarm.action == attendance.call]
        pauses.append(round(again.when - world.clock, 6))
        world.advance(pauses[-1] + 1e-6)
        world.one(JoinCluster, HEAD)
    assert pauses[0] == FIRST_PAUSE <= 0.05
    assert pauses[:4] == [0.02, 0.04, 0.08, 0.16]
    assert pauses[-1] == LONGEST_PAUSE
    attendance.on_joined(Joined([]))
    attendance.lost()
    world.advance(FIRST_PAUSE)
    world.expect((HEAD, CALL))


def test_nothing_is_said_while_the_head_is_away(attendance: Attendance, world: World) -> None:
    """Goal: a message to a head that is away would dial it; none is sent, and no heartbeat. News
    after a call follow on its stream, before the answer too. A loss that is told twice is one."""
    attendance.tell(NEWS)
    world.expect()
    attendance.call()
    attendance.tell(NEWS)
    world.expect((HEAD, CALL), (HEAD, NEWS))
    attendance.lost()
    attendance.lost()
    attendance.tell(NEWS)
    attendance.beat()
    world.expect()
    world.advance(FIRST_PAUSE)
    world.expect((HEAD, CALL))


def test_one_heart(attendance: Attendance, world: World) -> None:
    """Goal: however often the node has called, it beats once a time. Method: three calls, then
    one patience."""
    for _ in range(3):
        attendance.call()
        attendance.lost()
    attendance.call()
    attendance.on_joined(Joined([]))
    world.advance(LONGEST_PAUSE)
    world.sent.clear()
    world.advance(DEAD_AFTER + 1e-6)
    assert len(world.take(Heartbeat)) == BEATS
    world.sent.clear()
