"""An explorer: every state that a small model can reach, by every order of its steps.

Theory of operation. A *model* is a handful of processes with real machines in them, links between
them that keep order, and a bound on what their users do. A step is one event of one process. The
machines hold closures, so a state cannot be copied. It is reached again instead: a state is kept
as the steps that lead to it, and told from others by a canonical form of it. The first child of a
state continues in the same machines; each other child replays its steps.

What the canonical form leaves out must follow from what it has. If it says too much, the same state
is visited twice; if it says too little, a state is taken for another and what follows is not seen.

Two steps of different processes commute: either may come first, and the state after both is the
same. So when both have been tried first, one of the orders leads to nothing new, and is left out: a
step that was tried before in a state *sleeps* in the states behind its later siblings until
something touches what it touches (Godefroid's sleep sets; ``touches`` says what is dependent). This
leaves out steps and not states. A state that is met again with fewer sleepers than before has those
tried that slept then.

No step may raise. The model says what else a state promises (``broken``), and what must be left
when nothing can happen any more (``left_over``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
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

    def touches(self, step: Step) -> frozenset[str]:
        """What a step reads or changes that another may: its process, or a bound that all share.
        Steps that touch different things commute, and neither makes the other possible or
        impossible.
        """

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
    seen: dict[Hashable, frozenset[Step]] = {}  # with the steps that slept at every visit
    stack: list[tuple[list[Step], frozenset[Step]]] = [([], frozenset())]
    while stack:
        path, asleep = stack.pop()
        model = begin()
        for step in path:
            if attempt(model, step, path, found):
                return found
        while True:
            found.steps += 1
            found.blamed += bool(model.told)  # (a state like any other once it is over)
            state = model.canonical()
            before = seen.get(state)
            if before is not None and before <= asleep:
                break
            steps = model.steps()
            if before is None:
                seen[state] = asleep
                found.states += 1
                assert found.states < cap, "larger than the program said"
                problem = model.broken() or ("" if steps else model.left_over())
                found.quiescent += not steps
                if problem:
                    found.problems.append(story(path, problem))
                    return found
                steps = [step for step in steps if step not in asleep]
            else:
                steps = [step for step in steps if step in before and step not in asleep]
                asleep = seen[state] = before & asleep
            if not steps:
                break
            children = list(with_sleepers(model, steps, asleep))
            stack += [([*path, step], slept) for step, slept in reversed(children[1:])]
            step, asleep = children[0]
            path = [*path, step]
            if attempt(model, step, path, found):
                return found
    return found


def with_sleepers(
    model: Explorable, steps: Sequence[Step], asleep: frozenset[Step]
) -> Iterator[tuple[Step, frozenset[Step]]]:
    """Each step with those that need not be tried behind it."""
    tried = {step: model.touches(step) for step in asleep}
    for step in steps:
        touched = model.touches(step)
        yield step, frozenset(other for other, what in tried.items() if not what & touched)
        tried[step] = touched


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
