"""Planted bugs in streams: the producer's side (``yielding``) and the consumer's (``streams``).

As in ``mutants``, which takes these in."""

from __future__ import annotations

from typing import Any, Final

from freehold.core.streams import Stream, Streams
from freehold.core.yielding import Outgoing, Yielding
from freehold.sim.bugs import ignored
from freehold.sim.hunt import Method, Mutant

STREAMS: Final = ("streams", "torrents")
TORRENTS: Final = ("torrents",)


def terms_of_the_first(true: Method) -> Method:
    """A run that replaces another is told that nothing was taken."""

    def terms(self: Stream) -> Any:
        told = true(self)
        told.taken = 0
        return told

    return terms


def room_for_one_more(true: Method) -> Method:
    """The window is one value too wide."""

    def begin(self: Yielding, run: Any) -> Outgoing:
        outgoing: Outgoing = true(self, run)
        outgoing.window += 1
        return outgoing

    return begin


def bytes_uncounted(true: Method) -> Method:
    """Values have no size."""

    def give(self: Yielding, outgoing: Outgoing, value: Any) -> None:
        before = outgoing.untaken
        true(self, outgoing, value)
        outgoing.untaken = before

    return give


def counted_again(true: Method) -> Method:
    """What a run says that replaces another is new."""

    def on_item(self: Streams, message: Any, worker: Any) -> None:
        task = self.submission.tasks.get(message.task)
        stream = task.stream if task is not None else None
        if stream is not None and message.attempt and not stream.closed and stream.arrived:
            message.number = stream.arrived + 1
        true(self, message, worker)

    return on_item


def silent_close(true: Method) -> Method:
    """The producer is not told."""

    def close(self: Streams, stream: Stream) -> None:
        worker = self.worker
        self.worker = lambda stream: None  # type: ignore[method-assign]
        cancel, self.cancel = self.cancel, lambda task: None
        try:
            true(self, stream)
        finally:
            self.worker, self.cancel = worker, cancel  # type: ignore[method-assign]

    return close


def never_lost(true: Method) -> Method:
    """A run that has brought a value before it was lost counts as bringing it."""

    def brought_and_lost(self: Streams, stream: Stream, object_id: Any, value: Any) -> bool:
        return False

    return brought_and_lost


FLOW_MUTANTS: Final = (
    Mutant("replays begin with nothing taken", Stream, "terms", TORRENTS, 55, terms_of_the_first),
    Mutant("one value too many", Yielding, "begin", STREAMS, 1, room_for_one_more),
    Mutant("bytes of streams are not counted", Yielding, "give", STREAMS, 56, bytes_uncounted),
    Mutant("replays are news", Streams, "on_item", TORRENTS, 2, counted_again),
    Mutant("what was taken is not told", Streams, "tell", STREAMS, 1, ignored),
    Mutant("word of what was taken is lost", Yielding, "on_taken", STREAMS, 1, ignored),
    Mutant("a close is not told", Streams, "close", STREAMS, 1, silent_close),
    Mutant("a close is not heard", Yielding, "on_close", STREAMS, 1, ignored),
    Mutant("untaken values stay", Streams, "withdraw", STREAMS, 1, ignored),
    Mutant("streams have no end", Streams, "end", STREAMS, 1, ignored),
    Mutant(
        "a value lost in its run stays lost",
        Streams,
        "brought_and_lost",
        TORRENTS,
        4162,
        never_lost,
    ),
)
