"""``freehold start``, ``stop`` and ``status``: a cluster that outlives the program that uses it.

Theory of operation
-------------------
``start`` checks all that can be wrong before it starts a daemon (address, token, version, port), so
that the error is one line; then it launches the node in a session of its own and returns when the
node has joined. With ``--block`` it stays, and the node ends with it.

Nothing listens beyond loopback unless ``--host`` names another address of this machine. A daemon
listens on one address, the one it tells others: "every address" is refused, since nobody can be
told to connect to 0.0.0.0.

The token never stands on a command line, which every user of a machine can read: it comes from a
file of ours, from standard input, from $FREEHOLD_TOKEN, or from the session's folder when the
cluster has a node on this machine already.

``stop`` finds nodes and heads by the files in their folders and ends them by signal: it needs no
token, and works on a daemon whose cluster is gone. ``status`` asks the head and each node.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import click

from freehold.cli.sort import size
from freehold.cli.words import count
from freehold.cli.words import size as bytes_of
from freehold.core.membership import DEAD_AFTER
from freehold.errors import FreeholdError
from freehold.observe import cluster as observe
from freehold.resources import CPU, GPU, MEMORY, UNIT
from freehold.runtime import launch, machine, places
from freehold.runtime.settings import NodeSettings, head_address
from freehold.store.spill import local_folder
from freehold.wire.messages import Address, NodeInfo
from freehold.wire.placement import GroupInfo

Place = tuple[Path, places.NodeFile]

LOOPBACK = "127.0.0.1"
#: Seconds that daemons have to end in good order before they are killed.
PATIENCE = 5.0


class Join(NamedTuple):
    """What a new node joins: the session's folder here, and the head's address."""

    session: Path
    head: Address


def _fail(message: str) -> NoReturn:
    """One line for the user; status 1."""
    raise click.ClickException(message)


# ------------------------------------------------------------------ start


def _labels(text: str) -> dict[str, str]:
    """zone=a,disk=ssd"""
    pairs = [part.partition("=") for part in text.split(",") if part]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE,NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _resources(text: str) -> dict[str, float]:
    """{"disk": 4}"""
    try:
        amounts = json.loads(text)
    except ValueError:
        amounts = None
    if not isinstance(amounts, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object: write '{{\"disk\": 4}}'")
    return amounts


@click.command()
@click.option("--head", is_flag=True, help="Start a new cluster: a head and its first node.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster with this head.")
@click.option("--host", metavar="ADDRESS", help="Listen on this address of this machine.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the head [default: any free one].")
@click.option("--session", metavar="FOLDER", help="With --head: bring the head of it back.")
@click.option("--token-file", metavar="FILE", help="The cluster's token; - reads standard input.")
@click.option("--num-cpus", type=float, help="[default: what this machine has]")
@click.option("--num-gpus", type=float)
@click.option("--memory", type=size, metavar="SIZE", help="For tasks: 16GiB.")
@click.option("--resources", type=_resources, metavar="JSON", help="Custom ones: '{\"disk\": 4}'.")
@click.option("--labels", type=_labels, metavar="K=V,...", help="For placement by label.")
@click.option("--object-store-memory", "store", type=size, metavar="SIZE", help="4GiB.")
@click.option("--spill-folder", "spill", multiple=True, metavar="DIR|URL", help="May be repeated.")
@click.option("--spill-quota", type=size, metavar="SIZE", help="At most this much on disk.")
@click.option("--dead-after", type=float, metavar="SECONDS", help="[default: 10] With --head.")
@click.option("--block", is_flag=True, help="Stay in the foreground; Ctrl-C stops the node.")
def start(
    head: bool,
    address: str | None,
    host: str | None,
    port: int | None,
    session: str | None,
    token_file: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    memory: int | None,
    resources: dict[str, float] | None,
    labels: dict[str, str] | None,
    store: int | None,
    spill: Sequence[str],
    spill_quota: int | None,
    dead_after: float | None,
    block: bool,
) -> None:
    """Start a cluster on this machine (--head), or a node that joins one (--address).

    It runs in the background until 'freehold stop'. Only this machine can reach it unless --host
    names another of its addresses. Where all of a head and its machine's nodes has died, --session
    brings the head back where it was, and the nodes elsewhere come back to it.
    """
    _check_mixture(head, address, host, port, session, token_file, dead_after)
    patience = DEAD_AFTER if dead_after is None else dead_after
    try:
        machine.check_patience(patience)
        offer = machine.offer(num_cpus, num_gpus, memory, resources)
        store_bytes = machine.store_bytes(store)
        fuse_bytes, prefetch = machine.spill_file_bytes(), machine.prefetch()
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    folders = [_folder(name) for name in spill]
    join, listen = _where(address, host, port, session, _given_token(token_file))
    settings = NodeSettings(
        session=str(join.session),
        node=launch.new_node_id(),
        head=join.head,
        host=listen,
        resources=offer,
        store_bytes=store_bytes,
        labels=labels or {},
        spill_folders=folders,
        spill_quota=spill_quota,
        fuse_bytes=fuse_bytes,
        prefetch=prefetch,
        start_head=head,
        shared=True,
        dead_after=patience,
    )
    try:
        started = launch.start(settings, tied=block)
    except FreeholdError as error:
        _fail(str(error))
    started.process.returncode = None if block else 0  # it outlives us: nothing to wait for
    _tell(started, head=head, store=store_bytes, offer=offer)
    if block:
        _stay(started)


def _check_mixture(
    head: bool,
    address: str | None,
    host: str | None,
    port: int | None,
    session: str | None,
    token_file: str | None,
    dead_after: float | None,
) -> None:
    """Refuse options that do not go together."""
    if head == (address is not None):
        raise click.UsageError("say either --head (a new cluster) or --address HOST:PORT (join)")
    if address is not None and (port, session, dead_after) != (None, None, None):
        raise click.UsageError(
            "--port is the head's (a node that joins takes any free one), and so are --session "
            "and --dead-after"
        )
    if session is not None and (host, port, token_file) != (None, None, None):
        raise click.UsageError("--session says where the head was, and its token: it goes alone")


def _where(
    address: str | None,
    host: str | None,
    port: int | None,
    session: str | None,
    token: bytes | None,
) -> tuple[Join, str]:
    """What the new node joins, and the address that it listens on."""
    listen = _own_address(host or LOOPBACK)
    _home()
    if session is not None:
        join = _dead_session(Path(session))
        return join, join.head.host
    if address is None:
        return _new_cluster(listen, port or 0, token), listen
    return _running_cluster(_head_at(address), token, host), listen


def _home() -> None:
    """Have the home folder checked and cleared of what the dead left."""
    try:
        places.sweep()
    except PermissionError as error:
        _fail(str(error))


def _folder(name: str) -> str:
    """A spill folder, absolute: daemons run in /. URLs elsewhere are tried by the node."""
    try:
        folder = local_folder(name)
    except ValueError as error:
        _fail(str(error))
    if folder is None:
        return name
    path = folder.absolute()
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        _fail(f"--spill-folder {path} is not a folder that you can write to")
    return str(path)


def _given_token(name: str | None) -> bytes | None:
    """The token from --token-file or $FREEHOLD_TOKEN, if given."""
    if name == "-":
        token = sys.stdin.buffer.read()
    elif name is not None:
        try:
            with open(name, "rb") as file:  # noqa: PTH123  # also a pipe: <(ssh head cat token)
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_ISREG(mode) and mode & 0o077:
                    _fail(f"{name} can be read by others: run chmod 600 {name}")
                token = file.read()
        except OSError as error:
            _fail(f"--token-file {name}: {error.strerror}")
    else:
        token = os.environ.get("FREEHOLD_TOKEN", "").encode()
        if not token:
            return None
    token = token.strip()
    if len(token) < 16:  # whoever guesses it runs code as us
        _fail(f"the token has {len(token)} bytes: that is none, or too short to be a secret")
    return token


def _own_address(host: str) -> str:
    """The IPv4 address to listen on: one of this machine, not "all of them"."""
    numeric = _resolve(host)
    if ipaddress.ip_address(numeric).is_unspecified:
        _fail(
            f"--host {host} is no address that others can be told: name the one by which they "
            "reach this machine"
        )
    try:
        socket.create_server((numeric, 0)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        _fail(f"cannot listen on {host}: {why}; name an address of this machine")
    return numeric


def _resolve(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError):
        _fail(f"{host!r} is not a host that is known here (IPv4 only)")


def _head_at(address: str) -> Address:
    """HOST:PORT as the head's address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        _fail(f"{address!r} is not HOST:PORT")
    return head_address(_resolve(host), int(port))


def _new_cluster(host: str, port: int, token: bytes | None) -> Join:
    """A session for a new cluster."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        _fail(f"port {port} on {host} cannot be used: {why}; choose another --port")
    for folder, file in places.dead_heads():
        click.echo(
            f"Note: the head at {places.place(file.head)} has died. 'freehold start --head "
            f"--session {folder.parent}' brings it back, 'freehold stop' clears it away.",
            err=True,
        )
    others = [places.place(file.head) for _, file in places.heads_here() if file.shared]
    if others:
        click.echo(
            f"Note: this machine already runs a head at {', '.join(others)}; this is another "
            "cluster, beside it.",
            err=True,
        )
    return Join(places.new_session(token)[0], head_address(host, port))


def _dead_session(session: Path) -> Join:
    """A session of ours whose head has died, to be brought back where it was."""
    file = places.head_file(session)
    if file is None:
        _fail(f"{session} is not the folder of a session whose head died here")
    if places.alive(file.pid):
        _fail(f"the head of {session} runs: pid {file.pid}")
    return Join(session.absolute(), file.address)


def _running_cluster(head: Address, token: bytes | None, host: str | None) -> Join:
    """A session here that belongs to a running cluster, which is asked first."""
    session = _session_of(head)
    if session is not None and token is None:
        token = places.read_token(session)
    if token is None:
        _fail(
            f"no token for the cluster at {places.place(head)}. On the head's machine it is in the "
            "file that 'freehold start --head' named; give it with --token-file FILE, "
            "--token-file - (standard input) or $FREEHOLD_TOKEN"
        )
    try:
        observe.describe(head.host, head.port, token)
    except observe.UNREACHABLE as error:
        _fail(str(error))
    if host is None and not ipaddress.ip_address(head.host).is_loopback:
        _fail(
            "the head is on another machine, and nodes connect to each other both ways: say "
            f"--host {_way_to(head)} to listen there"
        )
    if session is None or places.read_token(session) != token:
        session, _ = places.new_session(token)
    return Join(session, head)


def _session_of(head: Address) -> Path | None:
    """The folder here of the session with that head."""
    for folder, file in [*places.nodes_here(), *places.heads_here()]:
        if places.place(file.head) == places.place(head):
            return folder.parent
    return None


def _way_to(head: Address) -> str:
    """Our address on the way to the head. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((head.host, head.port))
            return str(sock.getsockname()[0])
        except OSError:
            return "ADDRESS"


def _tell(started: launch.Started, *, head: bool, store: int, offer: dict[str, int]) -> None:
    """What has been started, and how to go on."""
    file = started.file
    address = places.place(file.head)
    words = ", ".join(_amount(name, amount) for name, amount in offer.items())
    verb = "Started a cluster" if head else "Joined the cluster"
    click.echo(f"{verb} at {address}: node {file.address.node.hex()} offers {words}")
    click.echo(f"with {bytes_of(store)} of memory for objects. Logs: {started.folder / 'logs'}\n")
    click.echo(f'From Python on this machine:  freehold.init(address="{address}")')
    if head:
        click.echo(f"A further node here:          freehold start --address {address}")
        token = started.folder.parent / "token"
        if ipaddress.ip_address(file.head.host).is_loopback:
            click.echo("From other machines:          start the head with --host ADDRESS first")
        else:
            click.echo(
                "From another machine (the token goes over ssh and is on no command line):\n"
                f"  ssh {file.head.host} cat {token} | freehold start --address {address} "
                "--host ITS_ADDRESS --token-file -\n"
                "Whoever has the token can run code as you. Traffic is not encrypted: use a "
                "network that you trust."
            )
    click.echo(f"To see it:                    freehold status --address {address}")
    click.echo(f"To end it:                    freehold stop --address {address}")


def _stay(started: launch.Started) -> None:
    """Wait until the node ends or we are told to stop it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        click.echo("\nCtrl-C stops it.")
        code = started.process.wait()
    except KeyboardInterrupt:
        launch.stop(started)
        click.echo("Stopped.")
        return
    _fail(f"the node has ended by itself (status {code}): stopped, or its head is gone")


# ------------------------------------------------------------------ stop


@click.command()
@click.option("--address", metavar="HOST:PORT", help="Only what belongs to this cluster.")
@click.option("--all", "everything", is_flag=True, help="Programs' own clusters as well.")
def stop(address: str | None, everything: bool) -> None:
    """Stop the nodes and heads on this machine that 'freehold start' started.

    Where the head is here, the cluster's nodes on other machines stop as well. With --all, also
    clusters that running programs have started for themselves.
    """
    wanted = places.place(_head_at(address)) if address else None
    found = [
        (folder, file)
        for folder, file in [*_here(places.heads_here), *_here(places.nodes_here)]
        if (file.shared or everything) and wanted in (None, places.place(file.head))
    ]
    dead = [
        folder
        for folder, file in _here(places.dead_heads)
        if wanted in (None, places.place(file.head))
    ]
    if not found and not dead:
        click.echo("Nothing to stop" + (f" of the cluster at {address}." if address else "."))
        return
    heads = sum(folder.name == places.HEAD_FOLDER for folder, _ in found)
    _end(found, signal.SIGTERM)
    if any(places.alive(file.pid) for _, file in found):
        _end(found, signal.SIGKILL)
    for folder in [*(folder for folder, _ in found), *dead]:
        if folder.exists():
            places.remove_node(folder)
    for folder in dead:
        click.echo(f"Cleared away: {folder.parent}, whose head had died.")
    click.echo(f"Stopped: {count(len(found) - heads, 'node')}, {count(heads, 'head')}.")


def _here(living: Callable[[], Iterable[Place]]) -> list[Place]:
    try:
        return list(living())
    except PermissionError as error:
        _fail(str(error))


def _end(found: Iterable[Place], number: signal.Signals) -> None:
    """Send the signal and wait until the processes are gone and their folders too."""
    pending = list(found)
    for _, file in pending:
        if places.alive(file.pid):
            os.kill(file.pid, number)
    deadline = time.monotonic() + PATIENCE
    while pending and time.monotonic() < deadline:
        pending = [(at, file) for at, file in pending if places.alive(file.pid) or at.exists()]
        time.sleep(0.02)


# ------------------------------------------------------------------ status


@click.command()
@click.option("--address", metavar="HOST:PORT", help="[default: every cluster with a node here]")
@click.option("--token-file", metavar="FILE", help="The cluster's token; - reads standard input.")
def status(address: str | None, token_file: str | None) -> None:
    """Show the nodes of a cluster, what they have and use, and the jobs.

    For a cluster with no node here, the token is needed: --token-file or $FREEHOLD_TOKEN.
    """
    failed = False
    for head, token in chosen(address, token_file):
        try:
            _show(places.place(head), observe.state(head.host, head.port, token))
        except observe.UNREACHABLE as error:
            click.echo(f"Error: {error}", err=True)
            failed = True
    if failed:
        sys.exit(1)


def chosen(address: str | None, token_file: str | None) -> list[tuple[Address, bytes]]:
    """The heads of the cluster at an address, or of all with a node here, with their tokens. None
    at all ends the command.
    """
    given = _given_token(token_file)
    sessions = {
        places.place(file.head): folder.parent
        for folder, file in [*_here(places.nodes_here), *_here(places.heads_here)]
    }
    if address is None and not sessions:
        click.echo("No cluster runs on this machine. Start one: freehold start --head")
        sys.exit(1)
    heads = [_head_at(place) for place in ([address] if address is not None else sessions)]
    found = []
    for head in heads:
        session = sessions.get(places.place(head))
        token = given or (places.read_token(session) if session else None)
        if token is None:
            _fail(f"no token for {places.place(head)}: give --token-file or $FREEHOLD_TOKEN")
        found.append((head, token))
    return found


def _show(address: str, state: observe.State) -> None:
    living = [info for info in state.nodes if info.alive]
    counts = f"{count(len(living), 'node')}, {count(len(state.jobs), 'job')}"
    click.echo(f"Cluster at {address}: {counts}")
    head = "node address pid used/total store spilled workers queued state"
    rows: list[tuple[str, ...]] = [tuple(head.split())]
    rows += [_row(info) for info in living]
    _table(rows)
    for info in state.nodes:
        if not info.alive:
            click.echo(f"  gone: node {info.address.node.hex()} on {info.hostname}: {info.reason}")
    if state.jobs:
        jobs = [("job", "driver", "node", "folder")]
        for job in state.jobs:
            driver = f"detached {job.detached}" if job.detached else f"pid {job.pid}"
            jobs.append((job.job.hex(), driver, job.driver.node.hex(), job.cwd))
        _table(jobs)
    if state.groups:
        groups = [("placement group", "name", "strategy", "bundles", "state")]
        groups += [
            (group.group.hex(), group.name, group.strategy, str(len(group.bundles)), _placed(group))
            for group in state.groups
        ]
        _table(groups)


def _placed(group: GroupInfo) -> str:
    """Whether a placement group has its places, and what it waits for."""
    waits = group.state.lower()
    return f"{waits}: {group.reason}" if group.reason and waits != "created" else waits


def _row(info: NodeInfo) -> tuple[str, ...]:
    used = [
        f"{name} {_plain(name, total - info.free.get(name, 0))}/{_plain(name, total)}"
        for name, total in sorted(info.total.items())
    ]
    return (
        info.address.node.hex(),
        f"{places.place(info.address)} ({info.hostname})",
        str(info.pid),
        ", ".join(used) or "nothing",
        f"{bytes_of(info.store_used)}/{bytes_of(info.store_bytes)}",
        bytes_of(info.spilled_bytes),
        str(info.workers),
        str(info.queued),
        "drains" if info.draining else "up",
    )


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Columns, each as wide as its widest cell: nothing is cut, whatever the terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        click.echo("  " + "  ".join(cells).rstrip())


# ------------------------------------------------------------------ words


def _plain(name: str, amount: int) -> str:
    return bytes_of(amount / UNIT) if name == MEMORY else f"{amount / UNIT:g}"


def _amount(name: str, amount: int) -> str:
    word = {CPU: "CPUs", GPU: "GPUs"}.get(name, name)
    text = _plain(name, amount)
    return f"{text} {word}"
