"""A pipeline of streams: documents are read, split and counted while they are still being read.

Each stage is a remote generator or coroutine. A reader yields documents as it finds them; the
driver hands each on, as a reference, to a counter without looking at it; an index, an actor with
coroutine methods, takes the counts in and answers questions meanwhile. ``backpressure`` keeps the
readers from running away. Run it with ``python examples/pipeline.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import freehold as fh

READERS, DOCUMENTS = 2, 50
WORDS = "lease owner borrow lend hold free".split()


@fh.remote(num_cpus=0.5, backpressure=8)
def read(reader: int) -> Iterator[str]:
    """Documents, one after the other. (They are made up; a program of yours would read files.)"""
    for number in range(reader, DOCUMENTS, READERS):
        yield " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 100))


@fh.remote(num_cpus=0.5)
def count(text: str) -> Counter[str]:
    """How often each word occurs."""
    return Counter(text.split())


@fh.remote
class Index(fh.Actor):
    """The counts of all documents so far."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.documents = 0
        self.grown = asyncio.Condition()

    @fh.method
    async def add(self, counts: Counter[str]) -> None:
        """Take the counts of one document in."""
        async with self.grown:
            self.total.update(counts)
            self.documents += 1
            self.grown.notify_all()

    @fh.method
    async def after(self, documents: int) -> list[tuple[str, int]]:
        """The commonest words, once so many documents are in."""
        async with self.grown:
            await self.grown.wait_for(lambda: self.documents >= documents)
            return self.total.most_common(3)


async def feed(index: Index, reader: int) -> int:
    """Carry what one reader yields to the counters, and their counts to the index."""
    added = []
    async for document in read.remote(reader):
        added.append(index.add.remote(count.remote(document)))
    await asyncio.gather(*added)
    return len(added)


async def run() -> None:
    """All readers at once, and a question that is answered half-way."""
    index = Index.remote()
    half = index.after.remote(DOCUMENTS // 2)
    fed = await asyncio.gather(*(feed(index, reader) for reader in range(READERS)))
    early = await half
    print(f"{sum(fed)} documents; the commonest word half-way was {early[0][0]!r}")
    print(
        "in the end:", ", ".join(f"{word} {times}" for word, times in await index.after.remote(0))
    )


def main() -> None:
    """In a session of its own."""
    with fh.init():
        asyncio.run(run())


if __name__ == "__main__":
    main()
