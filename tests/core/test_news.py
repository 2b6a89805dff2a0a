"""News: gathered at the head, and told to all in rounds; how much that is, however many nodes."""

from __future__ import annotations

import pytest

from core.world import World, cpus, info, node, process
from freehold.core.news import (
    CREDIT_SECONDS,
    SECONDS_PER_NODE,
    Gathering,
    note,
    report_of,
    round_seconds,
)
from freehold.ids import NodeId
from freehold.wire.attendance import unpack_reports
from freehold.wire.messages import Message, News, NodeReport

EVERYBODY = node("everybody")


def gathering(world: World, nodes: int) -> Gathering:
    """News that are told to everybody, who are so many."""

    def tell(message: Message) -> None:
        world.send(EVERYBODY, message)

    return Gathering(world, tell, lambda: nodes)


def report(number: int, free: int = 1) -> NodeReport:
    return NodeReport(NodeId(number.to_bytes(8, "big")), cpus(free))


def told(news: News) -> list[NodeReport]:
    return unpack_reports(news.reports)


def test_a_round_now_and_then_no_oftener(world: World) -> None:
    """Goal: after a quiet time news go out at once, then in rounds, and of a node's reports the
    last counts. Method: a report and a death at one moment, then reports for two rounds' time, of
    which the first is due earlier by what the quiet time has paid for."""
    news = gathering(world, 200)
    news.report(report(1))
    news.process_ended(process("w").process)
    world.advance(0.0)
    first = world.one(News)
    assert (told(first), first.ended) == ([report(1)], [process("w").process])
    for step in range(4):
        for tenth in range(10):
            news.report(report(2, 10 * step + tenth))
        world.advance(0.51 * round_seconds(200))
    assert [told(each) for each in world.take(News)] == [[report(2, 9)], [report(2, 29)]]
    world.advance(1.0)
    assert told(world.one(News)) == [report(2, 39)]


def test_news_of_a_small_cluster_are_told_at_once(world: World) -> None:
    """Goal: a report is known everywhere before the next request is sent on by it. Method: the
    nodes of a small cluster report one after the other; the rounds that a quiet time pays for
    follow at once, one more must wait."""
    news = gathering(world, 10)
    paid_for = round(CREDIT_SECONDS / round_seconds(10)) + 1
    for number in range(paid_for):
        news.report(report(number))
        world.advance(0.0)
        assert told(world.one(News)) == [report(number)]
    news.report(report(paid_for))
    world.advance(0.0)
    world.expect()
    world.advance(round_seconds(10))
    assert told(world.one(News)) == [report(paid_for)]


@pytest.mark.parametrize("nodes", [100, 1000, 4000])
def test_what_the_head_sends_grows_with_the_nodes_no_more_than_they_do(
    world: World, nodes: int
) -> None:
    """Goal: at most 1,000 messages a second, in a cluster of any size, and nobody is forgotten.
    Method: every node has news all the time, for ten rounds' time."""
    news = gathering(world, nodes)
    for _ in range(10):
        for number in range(nodes):
            news.report(report(number))
        world.advance(round_seconds(nodes))
    rounds = world.take(News)
    assert len(rounds) in (10, 11)  # (the first came at once)
    assert nodes / round_seconds(nodes) <= 1 / SECONDS_PER_NODE
    assert {len(told(each)) for each in rounds} == {nodes}


def test_a_newer_word_is_not_followed_by_an_older(world: World) -> None:
    """Goal: a report that waits is dropped when its node has said more, or is gone."""
    news = gathering(world, 2)
    news.report(report(1))
    news.report(report(2))
    news.forget(report(1).node)
    world.advance(0.0)
    assert told(world.one(News)) == [report(2)]
    news.report(report(1))
    news.forget(report(1).node)
    world.advance(1.0)
    world.expect()


def test_a_report_is_all_that_changes() -> None:
    """Goal: who has heard of a node and then its report knows what the node would say. Method:
    one of all fields, noted in an older picture."""
    old = info(node("one"), cpus(4), queued=1)
    new = info(
        node("one"), cpus(4), free=cpus(1), queued=2, store_used=3, spilled_bytes=4, workers=5,
        bundles={b"group": cpus(1)},
    )  # fmt: skip
    note(report_of(new), old)
    assert old == new
