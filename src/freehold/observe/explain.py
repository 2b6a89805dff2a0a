"""What a task or value waits for, asked from outside the cluster by the first digits of its id.

Knows: the head's address and the cluster's token. The head names the nodes, each node its
processes, and each process what of its own has such an id; a visitor asks them all in one walk,
which goes on from what was found to what that waits for (``core.explaining``). Must not know: how
the answers are shown.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from freehold.core.explaining import Inquiry
from freehold.ids import ProcessId
from freehold.observe.cluster import describe
from freehold.runtime.visiting import visit
from freehold.wire.inquiry import MAY, NAMED, OBJECT, TASK, Question

#: Questions of one search: one for each process of the cluster, and what follows from the matches.
QUESTIONS: Final = 20_000


class Match(NamedTuple):
    """A task or value with such an id: its full id in hex, whose it is, and the text about it."""

    id: str
    owner: str
    lines: list[str]


class Answer(NamedTuple):
    """``matches``, one for each task or value; ``asked``: how many processes; ``silent``: how many
    of them did not answer in time.
    """

    matches: list[Match]
    asked: int
    silent: int


def find(host: str, port: int, token: bytes, digits: str, seconds: float = 2.0) -> Answer:
    """What has an id that begins with these hex digits, in the cluster whose head is at
    ``host:port``, and what it waits for. Raises as ``observe.cluster.state`` does.
    """
    key = digits.lower().encode()
    nodes = [info.address for info in describe(host, port, token).nodes if info.alive]
    inquiry = Inquiry([Question(MAY, node, NAMED, key) for node in nodes], most=QUESTIONS)
    visit(inquiry, token, seconds)
    owners = {}
    found: dict[bytes, Question] = {}
    for (process, about, _), finding in inquiry.findings.items():
        if about == NAMED and finding.text:  # (a node's has none: it only names its processes)
            owners[process] = finding.text
            for question in finding.questions:
                found.setdefault(task_part(question), question)
    matches = [match(inquiry, question, owners) for question in found.values()]
    silent = sum(question.about == NAMED for question in inquiry.asked.values())
    return Answer(matches, len(owners) + silent, silent)


def task_part(question: Question) -> bytes:
    """The same for all results of one task."""
    return question.id[:16]


def match(inquiry: Inquiry, question: Question, owners: dict[ProcessId, str]) -> Match:
    """The text about one of those that were found."""
    inquiry.roots = [question]
    assert question.about in (OBJECT, TASK)
    return Match(question.id.hex(), owners[question.to.process], inquiry.lines())
