"""Explaining: one walk through the processes that know what a value waits for, and its text.

Theory of operation
-------------------
A walk collects *findings*: what one process says of one thing (``wire.inquiry``). A finding names
the questions that lead on: the owner of a borrowed object, the worker that a task was sent to, the
node that queues a request, the values that a blocked task wants. Each question is asked once. The
findings make a graph; when no answer is missing, or the asker's patience is over, ``lines`` tells
it as text, and ``stuck`` finds what in it can never go on: it is what is left when all that can go
on is taken away, beginning with what waits for nothing.

What it must not know: tasks, tables, sockets, time. It sends by a function that it is given, and
whoever drives it decides how long to wait for ``done``. Findings of the asker's own process are
had by a call (``look``), not by a message. Without ``send`` the walk stays at home.

Nobody stops while we look, so the findings are of different moments; a deadlock found is one all
the same. Of those that are stuck, take the one that went on first in truth: something that it waits
for had come by then, whose maker is stuck too, so it was found waiting; if before that, it would
have gone on first, and if after that, it was done. (A task that is cancelled, or run again, may
prove us wrong.) What goes on by itself, as a get with a timeout does, is a MAY and never stuck.

Races considered: the answer of a process that dies (the end of its stream: ``on_lost``; its node
is asked what became of it); an answer after the text was made (nobody looks at it); a process that
is asked for something it has forgotten meanwhile (it says so).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from freehold.ids import ProcessId, short
from freehold.wire.inquiry import (
    MAY,
    MORE,
    NEEDS,
    OBJECT,
    ONE_OF,
    PROCESS,
    SAME,
    Explain,
    Explanation,
    Finding,
    Question,
)
from freehold.wire.records import Address

Key: TypeAlias = tuple[ProcessId, str, bytes]
Look: TypeAlias = Callable[[str, bytes], list[Finding]]
Send: TypeAlias = Callable[[Address, Explain], None]

#: Questions of one walk: each is a message and, at worst, a connection (0.2 ms). A chain of 50
#: tasks, each blocked in another process, is deeper than any that a person would read about.
QUESTIONS: Final = 64
#: Things of which one walk takes note: as long as the longest local chain that it goes down.
FINDINGS: Final = 2000
#: Lines of one text: more than a screen is not read.
LINES: Final = 24
#: From this depth on the middle of a chain in which each waits for one other is left out.
DEEP: Final = 6
#: Tasks of a deadlock that are named.
MEMBERS: Final = 8


def key_of(question: Question) -> Key:
    """What is asked of whom."""
    return question.to.process, question.about, question.id


def node_of(process: Address) -> Address:
    """The node that a process belongs to: it is reached through that."""
    return Address(ProcessId(bytes(process.node)), process.node, process.host, process.port)


class Inquiry:
    """One walk. ``roots``: what to begin with; ``home``: the process that ``look`` looks into;
    ``send``: None to stay there; ``most``: questions to others.
    """

    def __init__(
        self,
        roots: Sequence[Question],
        *,
        send: Send | None = None,
        home: ProcessId | None = None,
        look: Look | None = None,
        most: int = QUESTIONS,
    ) -> None:
        self.roots = roots
        self.send = send
        self.home = home
        self.look = look
        self.most = most
        self.findings: dict[Key, Finding] = {}
        self.asked: dict[int, Question] = {}  # no answer yet
        self.keys: set[Key] = set()  # asked or looked up, answered or not
        self.requests = 0
        self.unreachable: set[Key] = set()

    # ------------------------------------------------------------------ the walk

    @property
    def done(self) -> bool:
        """Whether no answer is missing."""
        return not self.asked

    def begin(self) -> None:
        """Ask the first questions."""
        self.follow(self.roots)

    def follow(self, questions: Iterable[Question]) -> None:
        """Look at home; ask elsewhere."""
        work = deque(questions)
        while work and len(self.findings) < FINDINGS:
            question = work.popleft()
            key = key_of(question)
            if key in self.findings or key in self.keys:
                continue
            if question.to.process == self.home and self.look is not None:
                self.keys.add(key)
                work.extend(self.learn(self.home, self.look(question.about, question.id)))
            elif self.send is not None and self.requests < self.most:
                self.keys.add(key)
                self.requests += 1
                self.asked[self.requests] = question
                self.send(question.to, Explain(self.requests, question.about, question.id))

    def learn(self, process: ProcessId, findings: Iterable[Finding]) -> Iterator[Question]:
        """Take note of what a process said. Yields the questions that it leads to."""
        for finding in findings:
            key = (process, finding.about, finding.id)
            if key not in self.findings:
                self.findings[key] = finding
                yield from finding.questions

    def on_message(self, message: object, peer: Address) -> None:
        """An answer."""
        if isinstance(message, Explanation):
            question = self.asked.pop(message.request, None)
            if question is not None and question.to.process == peer.process:
                self.follow(list(self.learn(peer.process, message.findings)))

    def on_lost(self, peer: Address) -> None:
        """A process cannot be reached, or its stream has ended: its node knows more."""
        for request, question in list(self.asked.items()):
            if question.to.process == peer.process:
                del self.asked[request]
                self.unreachable.add(key_of(question))
                self.follow(fates([question]))

    def worry(self) -> None:
        """Half of the time is over: the nodes of those that are silent know who they are."""
        self.follow(fates(list(self.asked.values())))

    # ------------------------------------------------------------------ text

    def lines(self) -> list[str]:
        """What was found: a deadlock first, then a line for each thing that is waited for."""
        text = Text(self)
        for root in self.roots:
            text.tell(root, 0)
        return [*self.deadlock(), *text.lines]

    def stuck(self) -> dict[Key, Finding]:
        """What can never go on: all that it needs, or every one of several, is stuck itself."""
        left = dict(self.findings)
        free = 1
        while free:
            free = 0
            for key in reversed(list(left)):  # (the last found are nearest to the ends)
                if not self.held(left[key], left):
                    del left[key]
                    free += 1
        return left

    def held(self, finding: Finding, left: Mapping[Key, Finding]) -> bool:
        """Whether what is left holds this up."""
        ways = [
            key_of(question) in left for question in finding.questions if question.how == ONE_OF
        ]
        return (bool(ways) and all(ways)) or any(
            key_of(question) in left
            for question in finding.questions
            if question.how in (SAME, MORE, NEEDS)
        )

    def deadlock(self) -> list[str]:
        """A sentence about those that are stuck: a circle of them, and who else."""
        stuck = self.stuck()
        root = next((key for key in map(key_of, self.roots) if key in stuck), None)
        if root is None:
            return []
        path = [root]
        while True:
            further = next(
                key_of(question)
                for question in stuck[path[-1]].questions
                if question.how != MAY and key_of(question) in stuck
            )
            if further in path:
                break
            path.append(further)
        circle = [stuck[key].name for key in path[path.index(further) :]]
        names = list(dict.fromkeys(name for name in circle if name))
        everyone = dict.fromkeys(finding.name for finding in stuck.values() if finding.name)
        others = [name for name in everyone if name not in names]
        if len(names) == 1:
            text = f"Deadlock: {names[0]} waits for its own end."
        else:
            chain = ", which waits for ".join([*some(names[1:]), names[0]])
            text = f"Deadlock: {names[0]} waits for {chain}."
        also = f" Nor can {', '.join(some(others))} go on." if others else ""
        return [f"{text}{also} Cancel one of them, or give it a timeout."]

    def excuse(self, question: Question) -> str:
        """Why a question has no answer."""
        key = key_of(question)
        if key in self.unreachable:
            excuse = "; it cannot be reached"
        elif any(key_of(asked) == key for asked in self.asked.values()):
            excuse = "; it did not answer in time (is it stopped, or busy in native code?)"
        else:
            return ""
        known = self.findings.get(key_of(fate(MORE, question.to)))
        return excuse + (known.text if known is not None else "")


def some(names: list[str]) -> list[str]:
    """The first few of many names."""
    more = len(names) - MEMBERS
    return [*names[:MEMBERS], f"{more} more"] if more > 0 else names


def fate(how: str, process: Address) -> Question:
    """To the node of a process: what has become of it?"""
    return Question(how, node_of(process), PROCESS, process.process)


def fates(questions: Iterable[Question]) -> list[Question]:
    """What to ask when these have no answer."""
    return [
        fate(MORE, question.to)
        for question in questions
        if question.to.node and not question.to.is_node()
    ]


class Text:
    """The graph of one walk as indented lines."""

    def __init__(self, inquiry: Inquiry) -> None:
        self.findings = inquiry.findings
        self.excuse = inquiry.excuse
        self.told: set[Key] = set()
        self.lines: list[str] = []

    def tell(self, question: Question, depth: int) -> None:
        """One thing, and below it what it waits for."""
        work = [(question, depth)]
        while work:
            question, depth = work.pop()
            if len(self.lines) == LINES:
                self.lines.append("...")
            if len(self.lines) > LINES:
                return
            if depth >= DEEP:
                question = self.skip(question, depth)
            words, needs = self.sentence(question)
            self.lines.append("  " * depth + words)
            work.extend((need, depth + 1) for need in reversed(needs))

    def skip(self, question: Question, depth: int) -> Question:
        """Down a long chain in which each waits for one other: leave its middle out."""
        chain = [question]
        seen = set(self.told)
        while len(needs := self.ends(chain[-1], seen)) == 1:
            chain.append(needs[0])
        if len(chain) <= DEEP:
            return question
        self.lines.append("  " * depth + f"... {len(chain) - 2} more, each waits for the next ...")
        return chain[-2]

    def ends(self, question: Question, seen: set[Key]) -> list[Question]:
        """What is waited for at the end of a question's chain of SAME and MORE."""
        needs: list[Question] = []
        for key, finding in self.chain(question):
            if finding is None or key in seen:
                return []
            seen.add(key)
            needs += [need for need in finding.questions if need.how not in (SAME, MORE)]
        return needs

    def chain(self, question: Question) -> Iterator[tuple[Key, Finding | None]]:
        """The findings that make one line."""
        following: Question | None = question
        while following is not None:
            key = key_of(following)
            finding = self.findings.get(key)
            yield key, finding
            following = goes_on(finding) if finding is not None else None

    def sentence(self, question: Question) -> tuple[str, list[Question]]:
        """The words of one line, and what stands below it."""
        words: list[str] = []
        needs: list[Question] = []
        before: Finding | None = None
        following: Question | None = question
        while following is not None:
            key = key_of(following)
            finding = self.findings.get(key)
            if finding is None:
                words.append(before.else_text if before is not None else bare(following))
                words.append(self.excuse(following))
                break
            if key in self.told:
                label = finding.name or (words[0] if words else finding.text)
                return f"{label}: see above", []
            self.told.add(key)
            if following.how == SAME:
                words.clear()
            words.append(finding.text)
            needs += [need for need in finding.questions if need.how not in (SAME, MORE)]
            before, following = finding, goes_on(finding)
        return "".join(words), needs


def goes_on(finding: Finding) -> Question | None:
    """The question whose answer belongs to the same line."""
    first = finding.questions[0] if finding.questions else None
    return first if first is not None and first.how in (SAME, MORE) else None


def bare(question: Question) -> str:
    """What to call a thing of which nobody told anything."""
    what = "object" if question.about == OBJECT else question.about
    return f"{what} {short(question.id)}"
