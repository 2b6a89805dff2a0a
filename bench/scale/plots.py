"""Which figures of each experiment are drawn as which lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.scale.drawing import Points

Rows = dict[str, Any]
#: Title, name of the upright axis, lines, and whether that axis is linear.
Plot = tuple[str, str, dict[str, Points], bool]


def points(rows: Rows, value: Callable[[Any], float]) -> Points:
    """One line: a point for each number of nodes."""
    return [(int(nodes), value(row)) for nodes, row in rows.items()]


def messages(rows: Rows, before: Rows) -> dict[str, Plot]:
    """Per task, and at the head."""
    each = {
        "driver": points(rows, lambda row: row["twice"]["messages"]["driver"]),
        "worker": points(rows, lambda row: row["twice"]["messages"]["worker"]),
        "node": points(rows, lambda row: sum(row["twice"]["node_messages"].values())),
        "head": points(rows, lambda row: row["twice"]["head_about_tasks"]),
    }
    sizes = {
        kind: points(rows, lambda row, kind=kind: row["twice"]["bytes"][kind])  # type: ignore[misc]
        for kind in ("driver", "worker")
    }
    return {
        "messages": ("Messages for each task, sent and received", "messages", each, True),
        "bytes": ("Bytes for each task, sent and received", "bytes", sizes, True),
    }


def scheduling(rows: Rows, before: Rows) -> dict[str, Plot]:
    """Utilisation and hops, by load."""
    names = next(iter(rows.values())) if rows else {}
    used = {
        name: points(rows, lambda row, n=name: row[n]["utilisation"])  # type: ignore[misc]
        for name in names
    }
    hops = {
        name: points(rows, lambda row, n=name: row[n]["hops"])  # type: ignore[misc]
        for name in names
        if name != "locality"
    }
    return {
        "utilisation": ("The ideal over the makespan", "utilisation", used, True),
        "hops": ("Redirections for each lease", "redirections", hops, True),
    }


def recovery(rows: Rows, before: Rows) -> dict[str, Plot]:
    """How much longer the job takes."""
    longer = {
        how: points(rows, lambda row, how=how: row[how]["longer"])  # type: ignore[misc]
        for how in ("killed", "cut")
    }
    return {"recovery": ("A node dies half-way: the job takes longer", "s", longer, True)}


def broadcast(rows: Rows, before: Rows) -> dict[str, Plot]:
    """Together and in turn."""
    both = {
        "tree": points(rows, lambda row: row["together"]),
        "one after another": points(rows, lambda row: row["one_by_one"]),
    }
    return {"broadcast": ("1 GiB to every node over 10 Gbit/s", "s", both, False)}


def heartbeats(rows: Rows, before: Rows) -> dict[str, Plot]:
    """What the head sends and hears in a second."""
    sent: dict[str, Points] = {}
    size: dict[str, Points] = {}
    for suffix, found in (("", rows), (" before", before)):
        sent[f"sent, busy{suffix}"] = points(found, lambda row: row["busy"]["sent"])
        sent[f"heard, busy{suffix}"] = points(found, lambda row: row["busy"]["received"])
        size[f"sent, busy{suffix}"] = points(found, lambda row: row["busy"]["bytes_out"])
        size[f"heard, busy{suffix}"] = points(found, lambda row: row["busy"]["bytes_in"])
    sent["heard, idle"] = points(rows, lambda row: row["idle"]["received"])
    return {
        "head-messages": ("At the head, messages a second", "messages/s", sent, False),
        "head-bytes": ("At the head, bytes a second", "bytes/s", size, False),
    }


PLOTS: dict[str, Callable[[Rows, Rows], dict[str, Plot]]] = {
    "messages": messages,
    "scheduling": scheduling,
    "recovery": recovery,
    "broadcast": broadcast,
    "heartbeats": heartbeats,
}
