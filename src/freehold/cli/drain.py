"""``freehold drain``: have a node give away what it has and leave its cluster.

The command finds the node (by the head's list), asks it, and shows what it says until it is gone.
All of it happens in the node: the command may be ended at any time, and the drain goes on.
"""

from __future__ import annotations

import sys
import time
from typing import Final, NamedTuple, NoReturn

import click

from freehold.cli.cluster import chosen
from freehold.cli.words import count, size
from freehold.observe import cluster as observe
from freehold.wire.draining import CANCELLED, LEAVES, REFUSED
from freehold.wire.messages import Address, DrainNode, DrainProgress, NodeInfo

#: Seconds between two lines of progress.
EVERY: Final = 1.0


class Found(NamedTuple):
    """A node, with its cluster's head and token."""

    info: NodeInfo
    head: Address
    token: bytes


@click.command()
@click.argument("node")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="When they are over it leaves, whatever is still there.",
)
@click.option("--force", is_flag=True, help="End the programs connected through it, too.")
@click.option("--cancel", is_flag=True, help="Let a node stay that is being drained.")
@click.option("--address", metavar="HOST:PORT", help="[default: every cluster with a node here]")
@click.option("--token-file", metavar="FILE", help="The cluster's token; - reads standard input.")
def drain(
    node: str,
    timeout: float,
    force: bool,
    cancel: bool,
    address: str | None,
    token_file: str | None,
) -> None:
    """Empty NODE and have it leave its cluster, with nothing lost.

    NODE is a node's id as 'freehold status' shows it, or the beginning of one, or the name of a
    machine with one node. It takes no new tasks, its running ones end, its values move to other
    nodes. Ctrl-C ends this command and not the drain; --cancel ends the drain.
    """
    found = find(node, address, token_file)
    name = found.info.address.node.hex()
    try:
        follow(found, DrainNode(1, timeout, force, cancel), name)
    except KeyboardInterrupt:
        click.echo(
            f"The drain goes on without this command. To undo it: freehold drain {name} --cancel"
        )
        sys.exit(130)
    except observe.UNREACHABLE as error:
        fail(str(error))


def find(node: str, address: str | None, token_file: str | None) -> Found:
    """The node that the user means."""
    known = []
    for head, token in chosen(address, token_file):
        try:
            nodes = observe.describe(head.host, head.port, token).nodes
        except observe.UNREACHABLE as error:
            fail(str(error))
        known += [Found(info, head, token) for info in nodes]
    begin = [f for f in known if f.info.address.node.hex().startswith(node.lower())]
    found = begin or [f for f in known if f.info.hostname == node and f.info.alive]
    if not node or not found:
        living = ", ".join(f.info.address.node.hex() for f in known if f.info.alive)
        fail(f"no node {node!r} is known; there are {living or 'none'}")
    if len(found) > 1:
        several = ", ".join(describe(f.info) for f in found)
        fail(f"{node!r} may be any of {several}: say more of the id")
    if not found[0].info.alive:
        fail(f"node {describe(found[0].info)} is gone: it {found[0].info.reason}")
    return found[0]


def describe(info: NodeInfo) -> str:
    """A node, for people who have to tell it from others."""
    return f"{info.address.node.hex()} on {info.hostname}{'' if info.alive else ' (gone)'}"


def follow(found: Found, question: DrainNode, name: str) -> None:
    """Ask the node, and show how it goes until it is gone."""
    told, text = 0.0, ""
    last: DrainProgress | None = None
    try:
        to = found.info.address
        for last in observe.conversation(to, question, DrainProgress, found.token, timeout=10.0):
            if last.state == REFUSED:
                fail(f"node {name}: {last.reason}")
            if last.state == CANCELLED:
                click.echo(f"Node {name} stays. {moved(last)} meanwhile.")
                return
            now, words = time.monotonic(), progress(last)
            if last.state != LEAVES and words != text and now - told >= EVERY:
                click.echo(f"Node {name}: {words}")
                told, text = now, words
    except observe.UNREACHABLE:
        if last is None or last.state != LEAVES:
            raise
    if last is None or last.state != LEAVES:
        fail(f"node {name} ended before it was empty: see 'freehold status'")
    finish(last, name)


def finish(last: DrainProgress, name: str) -> None:
    """The facts, as the last line."""
    left = remains(last)
    if left:
        words = f"Its time was over: node {name} has left with {left}."
        click.echo(f"{words} {last.note}".rstrip())
        click.echo(f"{moved(last)} in {last.seconds:.1f} s. What was lost is made again if it can.")
        sys.exit(1)
    click.echo(f"Node {name} is drained and has left. {moved(last)} in {last.seconds:.1f} s.")


def progress(last: DrainProgress) -> str:
    """What it waits for."""
    waits = remains(last) or "nothing more"
    text = f"{moved(last)}; waits for {waits}"
    if last.drivers:
        text += "; a program connected here must end first, or say --force"
    return f"{text}. {last.note}".rstrip(". ")


def remains(last: DrainProgress) -> str:
    """What still keeps it."""
    values = f"{count(last.values, 'value')} ({size(last.value_bytes)})"
    parts = (
        (last.leases, count(last.leases, "lease")),
        (last.values, values),
        (last.workers, count(last.workers, "worker")),
        (last.drivers, count(last.drivers, "program")),
    )
    return ", ".join(words for number, words in parts if number)


def moved(last: DrainProgress) -> str:
    """What it has given away."""
    return f"{count(last.moved, 'value')} moved ({size(last.moved_bytes)})"


def fail(message: str) -> NoReturn:
    """One line for the user; status 1."""
    raise click.ClickException(message)
