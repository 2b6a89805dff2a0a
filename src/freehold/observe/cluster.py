"""What a cluster consists of, asked from outside it: no driver, no job, no thread.

Knows: the head's address and the cluster's token. A question is one blocking connection: the
handshake, one message there, one back. Whoever asks is no process of the cluster; the head and the
nodes only see a peer that comes and goes. Must not know: how the answers are shown.

The head knows of a node what the node last reported, and it reports only what others need to
choose between nodes. So ``state`` asks each node itself as well, and takes the head's word for
those that do not answer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from freehold.errors import AuthenticationError, ClusterUnreachableError, ProtocolError
from freehold.ids import NodeId, ProcessId
from freehold.runtime.descriptors import greet_blocking
from freehold.runtime.places import place
from freehold.runtime.settings import head_address
from freehold.wire import frames
from freehold.wire.handshake import NONCE, ClientSide, Hello
from freehold.wire.messages import (
    Address,
    Describe,
    DescribeNode,
    Description,
    FindGroups,
    Groups,
    JobStarted,
    Message,
    NodeDescription,
    NodeInfo,
)
from freehold.wire.placement import REMOVED, GroupInfo

T = TypeVar("T", bound=Message)

UNREACHABLE = (ClusterUnreachableError, AuthenticationError, ProtocolError)


class State(NamedTuple):
    """The nodes, also those that have gone, in the order in which they joined; the jobs; and the
    placement groups that have not been removed.
    """

    nodes: list[NodeInfo]
    jobs: list[JobStarted]
    groups: list[GroupInfo] = []


def state(host: str, port: int, token: bytes, timeout: float = 5.0) -> State:
    """The state of the cluster whose head is at ``host:port``; ``timeout`` in seconds, per answer.

    Raises ClusterUnreachableError if nothing answers there, ProtocolError if that is no head of
    our version, AuthenticationError if it holds another token.
    """
    answer = describe(host, port, token, timeout)
    found = _ask(head_address(host, port), FindGroups(1), Groups, token, timeout)
    groups = [group for group in found.groups if group.state != REMOVED]
    return State([_fresh(info, token, timeout) for info in answer.nodes], answer.jobs, groups)


def describe(host: str, port: int, token: bytes, timeout: float = 5.0) -> Description:
    """What the head at ``host:port`` knows. Raises as ``state`` does."""
    return _ask(head_address(host, port), Describe(1), Description, token, timeout)


def _fresh(info: NodeInfo, token: bytes, timeout: float) -> NodeInfo:
    """What the node itself says, if it does."""
    if not info.alive:
        return info
    try:
        return _ask(info.address, DescribeNode(1), NodeDescription, token, timeout).info
    except UNREACHABLE:
        return info


def _ask(to: Address, question: Message, kind: type[T], token: bytes, timeout: float) -> T:
    """One question and its answer."""
    for answer in conversation(to, question, kind, token, timeout):
        return answer
    raise ClusterUnreachableError(f"{place(to)} hung up without an answer", address=place(to))


def conversation(
    to: Address, question: Message, kind: type[T], token: bytes, timeout: float = 5.0
) -> Iterator[T]:
    """One question and its answers, until the other end hangs up; ``timeout`` in seconds, per
    answer. Raises as ``state`` does.
    """
    try:
        with socket.create_connection((to.host, to.port), timeout) as sock:
            _greet(sock, to, token, timeout)
            sock.settimeout(timeout)
            sock.sendall(frames.encode([question]))
            stream = frames.Frames()
            while data := sock.recv(1 << 16):
                for messages in stream.feed(data):
                    for message in messages:
                        if isinstance(message, kind):
                            yield message
    except TimeoutError:
        raise ClusterUnreachableError(
            f"no answer from {place(to)} within {timeout:g} s: is it a Freehold head, and does a "
            "firewall stand between?",
            address=place(to),
        ) from None
    except ClusterUnreachableError:
        raise
    except OSError as error:
        raise ClusterUnreachableError(
            f"nothing can be reached at {place(to)}: {error.strerror or error}", address=place(to)
        ) from None


def _greet(sock: socket.socket, to: Address, token: bytes, timeout: float) -> None:
    me = Address(ProcessId(os.urandom(8)), NodeId(b""), "", 0)
    greeting = ClientSide(token, os.urandom(NONCE), Hello(me, to.process))
    try:
        greet_blocking(sock, greeting, timeout)
    except ProtocolError as error:
        raise ProtocolError(f"{place(to)}: {error}") from None
    except (ClusterUnreachableError, ConnectionResetError):
        if greeting.expected is None:
            raise
        raise AuthenticationError(  # it heard our proof and hung up
            f"{place(to)} refused us: our token is not that of the cluster, or it is stopping"
        ) from None
