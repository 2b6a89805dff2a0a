"""What a task costs in a larger cluster: small ones, as ``bench.scale`` makes them."""

from __future__ import annotations

import pytest
from bench.scale import broadcast, heartbeats, messages

pytestmark = pytest.mark.sim


def test_a_task_costs_the_head_nothing_and_others_the_same_in_any_cluster() -> None:
    """Goal: no process is on the path of every task. Method: the same load for each node, on 4 and
    on 16 nodes, and then with twice as many tasks."""
    small, large = messages.measure(4), messages.measure(16)
    for found in (small, small["twice"], large, large["twice"]):
        assert found["tasks"] == found["pushed"] == found["done"]
        assert found["head_about_tasks"] == 0
    for kind in ("driver", "worker"):
        for what in ("messages", "bytes"):
            assert large["twice"][what][kind] < 1.3 * small["twice"][what][kind]
    at_nodes = [sum(found["twice"]["node_messages"].values()) for found in (small, large)]
    assert at_nodes[1] < 1.0  # (leases; a task itself sends a node nothing)


def test_the_head_hears_and_sends_in_proportion_to_the_nodes() -> None:
    """Goal: news of every node to every node are not n² messages. Method: nodes that have news all
    the time, 4 and 16 of them; at most one round in 1 ms for each node."""
    for nodes in (4, 16):
        found = heartbeats.measure(nodes)
        assert found["idle"]["kinds"] == {"Heartbeat": nodes}
        busy = found["busy"]
        assert busy["received"] <= (1 + 10) * nodes
        assert busy["sent"] <= 1000 + nodes  # (a round may begin just before the second is over)


def test_a_broadcast_takes_about_two_copies_however_many_want_it() -> None:
    """Goal: the tree of ``core.relaying`` grows by itself. Method: 3, 16 and 128 nodes."""
    for nodes in (3, 16, 128):
        found = broadcast.measure(nodes)
        assert found["one"] < found["together"] < 2.3 * found["one"]
