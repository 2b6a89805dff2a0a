"""The walk of an explanation and its text, over findings that the test makes up.

A scene is a table of who says what: the walk asks it as it would ask processes. Boxes of text are
compared as a whole: a reader sees nothing else.
"""

from __future__ import annotations

from itertools import pairwise

from core.world import node, process
from freehold.core.explaining import FINDINGS, LINES, Inquiry
from freehold.ids import ProcessId
from freehold.wire.inquiry import (
    MAY,
    MORE,
    NEEDS,
    OBJECT,
    ONE_OF,
    PROCESS,
    RUN,
    SAME,
    Explain,
    Explanation,
    Finding,
    Question,
)
from freehold.wire.messages import Address

ME, PEER, FAR = process("me"), process("peer"), process("far", on="away")

SILENT = "; it did not answer in time (is it stopped, or busy in native code?)"
REMEDY = "Cancel one of them, or give it a timeout."


class Scene:
    """What each process would say, the questions under way, and those that were asked."""

    def __init__(self) -> None:
        self.says: dict[tuple[ProcessId, str, bytes], Finding] = {}
        self.waiting: list[tuple[Address, Explain]] = []
        self.asked: list[tuple[Address, str, bytes]] = []

    def tell(self, who: Address, what: bytes, text: str, *then: Question, name: str = "") -> None:
        self.add(who, Finding(OBJECT, what, text, name=name, questions=list(then)))

    def add(self, who: Address, finding: Finding) -> None:
        self.says[who.process, finding.about, finding.id] = finding

    def send(self, to: Address, question: Explain) -> None:
        self.asked.append((to, question.about, question.id))
        self.waiting.append((to, question))

    def inquiry(self, *roots: Question, **options: int) -> Inquiry:
        return Inquiry(
            roots,
            send=self.send,
            home=ME.process,
            look=lambda about, key: [self.says[ME.process, about, key]],
            **options,
        )

    def answer(self, inquiry: Inquiry) -> None:
        """Everyone who has anything to say says it."""
        while self.waiting:
            to, question = self.waiting.pop(0)
            finding = self.says.get((to.process, question.about, question.id))
            if finding is not None:
                inquiry.on_message(Explanation(question.request, [finding]), to)

    def text(self, *roots: Question) -> list[str]:
        inquiry = self.inquiry(*roots)
        inquiry.begin()
        self.answer(inquiry)
        return inquiry.lines()


def ask(how: str, to: Address, what: bytes, about: str = OBJECT) -> Question:
    return Question(how, to, about, what)


ROOT = ask(SAME, ME, b"a")


# -- the walk --------------------------------------------------------------------------------------


def test_home_is_looked_at_and_others_are_asked_once() -> None:
    """Goal: no message to ourselves, none twice. Method: two of ours lead to the same of a peer."""
    scene = Scene()
    scene.tell(ME, b"a", "a waits", ask(NEEDS, ME, b"b"), ask(NEEDS, PEER, b"c"))
    scene.tell(ME, b"b", "b waits", ask(NEEDS, PEER, b"c"))
    scene.tell(PEER, b"c", "c runs")
    assert scene.text(ROOT) == ["a waits", "  b waits", "    c runs", "  c runs: see above"]
    assert scene.asked == [(PEER, OBJECT, b"c")]


def test_who_knows_better_replaces_who_knows_more_goes_on() -> None:
    """Goal: a borrowed object is told by its owner, a task's line goes on with what its worker
    says. Method: a chain of both; then without the answers."""
    scene = Scene()
    scene.tell(ME, b"a", "a is borrowed", ask(SAME, PEER, b"a"))
    sent = Finding(
        OBJECT, b"a", "a was sent", ", with others", questions=[ask(MORE, FAR, b"t", RUN)]
    )
    scene.add(PEER, sent)
    scene.add(FAR, Finding(RUN, b"t", ", where it runs"))
    assert scene.text(ROOT) == ["a was sent, where it runs"]
    local = Inquiry([ROOT], home=ME.process, look=lambda *_: [scene.says[ME.process, OBJECT, b"a"]])
    local.begin()
    assert local.lines() == ["a is borrowed"]
    local = Inquiry([ask(SAME, PEER, b"a")], home=PEER.process, look=lambda *_: [sent])
    local.begin()
    assert local.lines() == ["a was sent, with others"]


def test_silence_and_absence_are_told() -> None:
    """Goal: nobody is waited for in vain, and the reader knows who did not speak. Method: one that
    is silent, one that is gone; the nodes of both are asked what became of them."""
    scene = Scene()
    scene.tell(ME, b"a", "a waits", ask(NEEDS, PEER, b"b"), ask(NEEDS, FAR, b"c"))
    inquiry = scene.inquiry(ROOT)
    inquiry.begin()
    assert not inquiry.done
    inquiry.on_lost(FAR)
    scene.add(node("away"), Finding(PROCESS, FAR.process, "; worker 7 ended: killed"))
    scene.answer(inquiry)
    assert not inquiry.done
    inquiry.worry()
    scene.add(node(), Finding(PROCESS, PEER.process, "; it is worker 8, and runs"))
    scene.answer(inquiry)
    assert inquiry.lines() == [
        "a waits",
        f"  object 62{SILENT}; it is worker 8, and runs",
        "  object 63; it cannot be reached; worker 7 ended: killed",
    ]


def test_a_dead_node_ends_the_walk() -> None:
    """Goal: no question goes round and round about a node that is gone. Method: it and a process
    of it are lost, one after the other."""
    scene = Scene()
    inquiry = scene.inquiry(ask(SAME, FAR, b"a"))
    inquiry.begin()
    inquiry.on_lost(FAR)
    inquiry.on_lost(node("away"))
    assert inquiry.done
    assert [to for to, _, _ in scene.asked] == [FAR, node("away")]
    assert inquiry.lines() == ["object 61; it cannot be reached"]


def test_answers_of_others_and_late_answers_change_nothing() -> None:
    """Goal: an answer counts once and from whom was asked. Method: a wrong sender, an unknown
    request, a second answer."""
    scene = Scene()
    inquiry = scene.inquiry(ask(SAME, PEER, b"a"))
    inquiry.begin()
    inquiry.on_message(Explanation(9, [Finding(OBJECT, b"a", "nonsense")]), PEER)
    assert not inquiry.done
    inquiry.on_message(Explanation(1, [Finding(OBJECT, b"a", "a runs")]), PEER)
    assert inquiry.done
    inquiry.on_message(Explanation(1, [Finding(OBJECT, b"a", "a is done")]), PEER)
    assert inquiry.lines() == ["a runs"]
    other = scene.inquiry(ask(SAME, PEER, b"a"))
    other.begin()
    other.on_message(Explanation(1, [Finding(OBJECT, b"a", "a lie")]), FAR)
    assert other.findings == {}


def test_a_walk_has_bounds() -> None:
    """Goal: neither questions nor findings nor lines grow without end. Method: a peer whose every
    answer leads to two more; a home with a chain of any length; a root with many lines."""
    scene = Scene()
    inquiry = scene.inquiry(ask(SAME, PEER, b"\1"), most=10)
    inquiry.begin()
    while scene.waiting:
        to, question = scene.waiting.pop(0)
        number = int.from_bytes(question.id, "big")
        further = [ask(NEEDS, PEER, (2 * number + i).to_bytes(4, "big")) for i in (0, 1)]
        finding = Finding(OBJECT, question.id, "waits", questions=further)
        inquiry.on_message(Explanation(question.request, [finding]), to)
    assert len(scene.asked) == 10

    def endless(about: str, key: bytes) -> list[Finding]:
        following = (int.from_bytes(key, "big") + 1).to_bytes(4, "big")
        return [Finding(OBJECT, key, "waits", questions=[ask(NEEDS, ME, following)])]

    chain = Inquiry([ask(SAME, ME, bytes(4))], home=ME.process, look=endless)
    chain.begin()
    assert len(chain.findings) == FINDINGS
    wide = [ask(SAME, ME, bytes([number])) for number in range(LINES + 5)]
    for question in wide:
        scene.tell(ME, question.id, "runs")
    lines = scene.text(*wide)
    assert lines == ["runs"] * LINES + ["..."]


# -- text ------------------------------------------------------------------------------------------


def test_the_middle_of_a_long_chain_is_left_out() -> None:
    """Goal: a thousand tasks in a row show their beginning and their end. Method: such a row."""
    scene = Scene()
    names = [number.to_bytes(2, "big") for number in range(1000)]
    for one, other in pairwise(names):
        scene.tell(ME, one, f"{one.hex()} waits", ask(NEEDS, ME, other))
    scene.tell(ME, names[-1], "the last one runs")
    lines = scene.text(ask(SAME, ME, names[0]))
    assert [line.strip() for line in lines] == [
        *(f"{name.hex()} waits" for name in names[:6]),
        "... 992 more, each waits for the next ...",
        "03e6 waits",
        "the last one runs",
    ]


# -- deadlocks -------------------------------------------------------------------------------------


def blocked(scene: Scene, who: str, how: str, *on: str) -> None:
    """Task ``who``, ours, waits for the others."""
    then = [ask(how, ME, other.encode()) for other in on]
    scene.tell(ME, who.encode(), f"{who}() waits", *then, name=f"{who}()")


def test_two_tasks_that_wait_for_each_other() -> None:
    """Goal: all members of a circle are named, and who else cannot go on for it. Method: c waits
    for a, a for b, b for a, through their owners and workers."""
    scene = Scene()
    blocked(scene, "c", NEEDS, "a")
    scene.tell(ME, b"a", "a() was sent", ask(MORE, PEER, b"a", RUN), name="a()")
    scene.add(PEER, Finding(RUN, b"a", ", and waits", questions=[ask(NEEDS, PEER, b"b")]))
    scene.tell(PEER, b"b", "b is borrowed", ask(SAME, FAR, b"b"))
    scene.tell(FAR, b"b", "b() was sent", ask(MORE, process("w"), b"b", RUN), name="b()")
    scene.add(process("w"), Finding(RUN, b"b", ", and waits", questions=[ask(NEEDS, ME, b"a")]))
    assert scene.text(ask(SAME, ME, b"c")) == [
        f"Deadlock: a() waits for b(), which waits for a(). Nor can c() go on. {REMEDY}",
        "c() waits",
        "  a() was sent, and waits",
        "    b() was sent, and waits",
        "      a(): see above",
    ]


def test_a_task_that_waits_for_itself() -> None:
    """Goal: a circle of one is one. Method: a task that was given its own result."""
    scene = Scene()
    blocked(scene, "a", NEEDS, "a")
    assert scene.text(ROOT) == [
        f"Deadlock: a() waits for its own end. {REMEDY}",
        "a() waits",
        "  a(): see above",
    ]


def test_what_goes_on_by_itself_is_no_deadlock() -> None:
    """Goal: a circle that a timeout or another value may open is not called a deadlock. Method: the
    circle of two, with a MAY in it; with a ONE_OF whose other way is open; with both ways shut."""
    for how, others, stuck in (
        (MAY, (), False),
        (ONE_OF, ("free",), False),
        (ONE_OF, ("c",), True),
        (NEEDS, ("free",), True),
    ):
        scene = Scene()
        blocked(scene, "a", NEEDS, "b")
        blocked(scene, "b", how, "a", *others)
        blocked(scene, "c", NEEDS, "a")
        scene.tell(ME, b"free", "free() runs", name="free()")
        lines = scene.text(ROOT)
        assert lines[0].startswith("Deadlock: a() waits for b(), which waits for a().") == stuck
        assert lines[0 + stuck] == "a() waits"


def test_who_is_silent_may_well_go_on() -> None:
    """Goal: no deadlock is claimed on hearsay. Method: a circle one of whose members has not
    answered."""
    scene = Scene()
    blocked(scene, "a", NEEDS, "b")
    scene.tell(ME, b"b", "b() was sent", ask(MORE, PEER, b"b", RUN), name="b()")
    assert scene.text(ROOT)[0] == "a() waits"


def test_a_large_circle_is_told_in_one_line() -> None:
    """Goal: of many members the first eight are named and the rest counted."""
    scene = Scene()
    names = [f"t{number}" for number in range(40)]
    for one, other in zip(names, [*names[1:], names[0]]):
        blocked(scene, one, NEEDS, other)
    chain = "".join(f"t{number}(), which waits for " for number in range(1, 9))
    assert scene.text(ask(SAME, ME, b"t0"))[0] == (
        f"Deadlock: t0() waits for {chain}31 more, which waits for t0(). {REMEDY}"
    )
