"""An explorer: every state that a small model can reach, by every order of its steps.

Theory of operation. A *model* is a handful of processes with real machines in them, links between
them that keep order, and a bound on what their users do. A step is one event of one process. The
machines hold closures, so a state cannot be copied. It is reached again instead: a state is kept
as the steps that lead to it, and told from others by a canonical form of it. The first child of a
state continues in the same machines; each other child replays its steps.

What the canonical form leaves out must follow from what it has. If it says too much, the same state
is visited twice; if it says too little, a state is taken for another and what follows is not seen.

No step may raise. The model says what else a state promises (``broken``), and what must be left
when nothing can happen any more (``left_over``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from freehold.wire.messages import Address

Step = tuple[Any, ...]


class Explorable(Protocol):
    """One state, in which the explorer can take steps."""

    told: list[str]  #: who has been told of a loss, on this path

    def steps(self) -> list[Step]:
        """Everything that can happen next."""

    def take(self, step: Step) -> None:
        """Do one step."""

    def canonical(self) -> Hashable:
        """Equal for equal states."""

    def broken(self) -> str:
        """The first promise that this state breaks, or nothing."""

    def left_over(self) -> str:
        """What a state in which nothing can happen should not have. May change the model."""


@dataclass
class Found:
    """The outcome of an exploration. ``blamed``: steps after which someone knows of a loss."""

    states: int = 0
    steps: int = 0
    quiescent: int = 0
    blamed: int = 0
    problems: list[str] = field(default_factory=list)


def explore(begin: Callable[[], Explorable], cap: int = 400_000) -> Found:
    """Visit every state, depth first. Stops at the first problem, with its story.

    ``cap``: more states than this is a mistake in the model's bounds.
    """
    found = Found()
    seen: set[Hashable] = set()
    stack: list[list[Step]] = [[]]
    while stack:
        path = stack.pop()
        model = begin()
        for step in path:
            if attempt(model, step, path, found):
                return found
        while True:
            found.steps += 1
            found.blamed += bool(model.told)  # (a state like any other once it is over)
            state = model.canonical()
            if state in seen:
                break
            seen.add(state)
            found.states += 1
            assert found.states < cap, "larger than the program said"
            steps = model.steps()
            problem = model.broken() or ("" if steps else model.left_over())
            found.quiescent += not steps
            if problem:
                found.problems.append(story(path, problem))
                return found
            if not steps:
                break
            stack += [[*path, step] for step in steps[1:]]
            path = [*path, steps[0]]
            if attempt(model, steps[0], path, found):
                return found
    return found


def attempt(model: Explorable, step: Step, path: Sequence[Step], found: Found) -> bool:
    """Take a step; True if it raised, which no event may."""
    try:
        model.take(step)
    except (AssertionError, KeyError, AttributeError) as error:
        found.problems.append(story(path, f"{type(error).__name__}: {error}"))
        return True
    return False


def story(path: Sequence[Step], problem: str) -> str:
    """The steps to a problem, one a line."""
    lines = []
    for kind, *rest in path:
        lines.append(" ".join([kind, *(word_for(word) for word in rest)]))
    return "\n".join([*lines, f"=> {problem}"])


def word_for(word: Any) -> str:
    """A part of a step, to be read."""
    match word:
        case Address():
            return word.process.rstrip(b".").decode()
        case tuple():
            return f"losing what it sent to {', '.join(map(word_for, word))}" if word else ""
        case _:
            return str(word)
