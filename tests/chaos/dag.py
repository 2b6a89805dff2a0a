"""A random program whose every value can be checked: what it computes is known beforehand.

Each task is given a tag and other tasks' values, and its value is a function of both alone. A value
is a *leaf*, an array that repeats its own ten-byte digest, or a *branch*, a list of references to
further values. Whoever reads one checks it down to its leaves, so that a damaged, mixed up or
stale value is noticed where it is first read. ``expected`` computes the same digests without
running anything.

The kinds of task are the ways in which references travel: as arguments of their own, in lists, to
children, in results of children (of children), in puts, borrowed and given back.

Knows: only the public interface. Must not know: that anything is killed meanwhile.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np

import freehold as fh

DIGEST: Final = 10  # bytes; no leaf is shorter
#: Leaves by size in bytes, and how often each is made: from inside a message to above what two
#: workers could pass on in one. Below 100 KiB a value rides in messages.
SIZES: Final = ((10, 40), (1_000, 20), (60_000, 10), (150_000, 15), (1_000_000, 10), (5_000_000, 5))
KINDS: Final = ("plain", "nested", "parent", "giver", "deep", "putter", "carry", "several")
OUTPUTS: Final = {"several": 3}
#: Leaves below one value at most: a branch of branches would otherwise grow without end.
WEIGHT: Final = 8

Output = tuple[int, int]  # a task's index, and which of its results


def digest_of(*parts: bytes) -> bytes:
    """The digest of some digests and tags."""
    together = blake2b(digest_size=DIGEST)
    for part in parts:
        together.update(len(part).to_bytes(4, "big") + part)
    return together.digest()


def leaf(digest: bytes, size: int) -> Any:
    """The leaf of this digest."""
    return np.frombuffer((digest * (size // DIGEST + 1))[:size], np.uint8)


def read(value: Any) -> bytes:
    """The digest of a value, after a look at all of it. Raises AssertionError if it is damaged."""
    if isinstance(value, list):
        return digest_of(b"branch", *map(read, fh.get(value)))
    digest = value[:DIGEST].tobytes()
    assert np.array_equal(value, leaf(digest, value.size)), "a value is not what was stored"
    return digest


# --- the tasks ----------------------------------------------------------------------------------

remote: Any = fh.remote(max_retries=-1)


@remote
def plain(tag: bytes, size: int, nap: float, *values: Any) -> Any:
    """A leaf made of the values."""
    time.sleep(nap)
    return leaf(digest_of(tag, *map(read, values)), size)


@remote
def nested(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """The same, of values that it gets itself."""
    time.sleep(nap)
    return leaf(digest_of(tag, *map(read, fh.get(refs))), size)


def brood(tag: bytes, size: int, nap: float, refs: Iterable[Any]) -> list[Any]:
    """Two children of the same references, of which one gets them in a list."""
    refs = list(refs)
    return [
        plain.remote(tag + b"/0", size, nap, *refs),
        nested.remote(tag + b"/1", DIGEST, nap, refs),
    ]


@remote
def parent(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """A leaf made of what two children have made."""
    return leaf(digest_of(tag, *map(read, fh.get(brood(tag, size, nap, refs)))), size)


@remote
def giver(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """A branch of two children, which may be running still."""
    children = brood(tag, size, nap, refs)
    if tag[-1] % 2:
        fh.wait(children, num_returns=2)
    return children


@remote
def deep(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """A branch of a child that is a branch of children."""
    return [giver.remote(tag + b"/2", size, nap, refs)]


@remote
def putter(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """A branch of values that it puts, one of them a branch of what it was given."""
    time.sleep(nap)
    return [fh.put(leaf(digest_of(tag, b"put"), size)), fh.put(list(refs))]


@remote
def carry(tag: bytes, size: int, nap: float, refs: list[Any]) -> Any:
    """A branch of what it was given: borrowed, and given back."""
    time.sleep(nap)
    return list(refs)


@fh.remote(max_retries=-1, num_returns=3)
def several(tag: bytes, size: int, nap: float, *values: Any) -> Any:
    """Three leaves, of which one is large."""
    time.sleep(nap)
    digests = [*map(read, values)]
    for index in range(3):
        yield leaf(digest_of(tag, bytes([index]), *digests), size if index == 1 else DIGEST)


TASKS: Final = {
    "plain": plain,
    "nested": nested,
    "parent": parent,
    "giver": giver,
    "deep": deep,
    "putter": putter,
    "carry": carry,
    "several": several,
}
IN_A_LIST: Final = set(KINDS) - {"plain", "several"}


# --- the plan -----------------------------------------------------------------------------------


@dataclass
class Call:
    """One task of the plan. ``last_use``: results that no later task needs."""

    index: int
    kind: str
    size: int
    nap: float
    inputs: list[Output]
    last_use: list[Output] = field(default_factory=list)

    @property
    def tag(self) -> bytes:
        return self.index.to_bytes(4, "big")

    def outputs(self) -> list[Output]:
        return [(self.index, which) for which in range(OUTPUTS.get(self.kind, 1))]

    def weight(self, of: dict[Output, int]) -> int:
        """Leaves below its result."""
        inputs = sum(of[output] for output in self.inputs)
        return {"giver": 2, "deep": 2, "putter": 1 + inputs, "carry": inputs}.get(self.kind, 1)

    def submit(self, refs: dict[Output, Any]) -> None:
        """Begin it; its results are entered among the references."""
        given = [refs[output] for output in self.inputs]
        call = TASKS[self.kind].remote
        if self.kind in IN_A_LIST:
            made = call(self.tag, self.size, self.nap, given)
        else:
            made = call(self.tag, self.size, self.nap, *given)
        refs.update(zip(self.outputs(), made if self.kind == "several" else [made]))


def plan(seed: int, tasks: int) -> list[Call]:
    """A program of so many tasks at the top, a third as many again below them. Most take what was
    made just before, some what was made long ago; one result in five is kept to the end.
    """
    chance = random.Random(seed)
    calls: list[Call] = []
    weights: dict[Output, int] = {}
    recent: list[Output] = []
    old: list[Output] = []
    last: dict[Output, int] = {}
    for index in range(tasks):
        kind = chance.choice(KINDS)
        pool = [*recent[-40:], *chance.sample(old, min(10, len(old)))]
        inputs = chance.sample(pool, min(len(pool), chance.randrange(4)))
        (size,) = chance.choices([size for size, _ in SIZES], [often for _, often in SIZES])
        call = Call(index, kind, size, chance.choice((0.0, 0.01, 0.05, 0.2)), inputs)
        while call.weight(weights) > WEIGHT:
            call.inputs.pop()
        for output in call.inputs:
            last[output] = index
        for output in call.outputs():
            weights[output] = call.weight(weights)
            last[output] = index
            (old if chance.random() < 0.2 else recent).append(output)
        calls.append(call)
    kept = set(old)
    for output, index in last.items():
        if output not in kept:
            calls[index].last_use.append(output)
    return calls


def expected(calls: list[Call]) -> dict[Output, bytes]:
    """The digest of each result."""
    digests: dict[Output, bytes] = {}
    for call in calls:
        tag = call.tag
        given = [digests[output] for output in call.inputs]
        young = [digest_of(tag + b"/0", *given), digest_of(tag + b"/1", *given)]
        younger = [digest_of(tag + b"/2" + end, *given) for end in (b"/0", b"/1")]
        results = {
            "parent": [digest_of(tag, *young)],
            "giver": [digest_of(b"branch", *young)],
            "deep": [digest_of(b"branch", digest_of(b"branch", *younger))],
            "putter": [digest_of(b"branch", digest_of(tag, b"put"), digest_of(b"branch", *given))],
            "carry": [digest_of(b"branch", *given)],
            "several": [digest_of(tag, bytes([index]), *given) for index in range(3)],
        }.get(call.kind, [digest_of(tag, *given)])
        digests.update(zip(call.outputs(), results))
    return digests
