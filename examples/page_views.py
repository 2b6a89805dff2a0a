"""The most viewed pages of a log, while it is being read: an answer that grows exact.

The log has a file for each hour and a line for each page seen in it, as those of a large
encyclopedia have: language, title, views. Pages are popular as words are (the n-th gets 1/n of the
first), and languages have their day and night, so early hours alone would tell wrong. A streaming
shuffle (``freehold.shuffle.streaming``) says after each round what it knows; a batch of the same
functions says it at the end. Run it with ``python examples/page_views.py``; ``--plot FILE.svg``
draws the error of the partial answers against the time.
"""

from __future__ import annotations

import argparse
import heapq
import math
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import freehold as fh
from freehold.shuffle import drawing, simple, streaming
from freehold.shuffle.shape import Job, cluster_room

PARTITIONS = 4
TOP = 10

#: Languages: share of all views, and the hour (UTC) at which their readers are most awake.
LANGUAGES = {"en": (0.45, 21), "ja": (0.12, 12), "de": (0.12, 18), "es": (0.12, 2), "ru": (0.1, 16)}

Views = Counter[str]


@fh.remote
def write_hour(path: Path, hour: int, pages: int, views: int) -> None:
    """Make the log of an hour: about that many views of so many pages in each language."""
    chance = np.random.default_rng(hour)
    popular = 1 / np.arange(1, pages + 1)
    popular /= popular.sum()
    with path.open("w") as log:
        for language, (share, noon) in LANGUAGES.items():
            awake = 1 + 0.8 * math.cos((hour - noon) * math.tau / 24)
            for page, seen in enumerate(chance.poisson(views * share * awake * popular)):
                if seen:
                    log.write(f"{language} Page_{page} {seen}\n")


def read(path: Path, edges: Sequence[int]) -> Iterator[Views | int]:
    """Mapper: the views in a file, divided by page; then how many lines there were."""
    parts = [Views() for _ in range(PARTITIONS)]
    lines = 0
    with path.open() as log:
        for line in log:
            page, _, seen = line.rpartition(" ")
            parts[zlib.crc32(page.encode()) % PARTITIONS][page] += int(seen)
            lines += 1
    yield from parts  # there is an edge after each partition
    yield lines


def add(state: Views | None, partition: int, *parts: Views) -> tuple[Views, tuple[int, Views]]:
    """Fold: the views so far, and of them all the sum and the most viewed pages."""
    total = Views(state or {})
    for part in parts:
        total.update(part)
    return total, best(total)


def best(views: Views) -> tuple[int, Views]:
    """How many views there are, and the pages that could be among the most viewed of all."""
    return views.total(), Views(dict(heapq.nlargest(TOP * 10, views.items(), key=lambda v: v[1])))


def never(edges: Sequence[int], *parts: Views) -> Iterator[Views]:
    """Merger: the simple shuffle has none."""
    raise NotImplementedError


def reduce(partition: int, *parts: Views) -> tuple[int, Views]:
    """Reducer of the batch: the same as folding everything at once."""
    return add(None, partition, *parts)[1]


def together(answers: Sequence[tuple[int, Views]]) -> dict[str, float]:
    """The share of all views of the pages that the partitions name, in order of views."""
    total = sum(views for views, _ in answers)
    pages = [page for _, top in answers for page in top.items()]
    return {page: seen / total for page, seen in sorted(pages, key=lambda page: (-page[1], page))}


def error(shares: dict[str, float], true: dict[str, float]) -> float:
    """By how much the shares of the truly most viewed pages are wrong, as part of their sum."""
    pages = list(true)[:TOP]
    wrong = sum(abs(shares.get(page, 0.0) - true[page]) for page in pages)
    return wrong / sum(true[page] for page in pages)


def batch(files: Sequence[Path]) -> tuple[float, dict[str, float]]:
    """Seconds and answer of the same aggregation as one shuffle."""
    begun = time.perf_counter()
    job = Job(files, range(PARTITIONS), read, never, reduce)
    notes = list(simple.shuffle(job, cluster_room()))
    answer = together([note for note in notes if isinstance(note, tuple)])
    return time.perf_counter() - begun, answer


def stream(files: Sequence[Path]) -> list[tuple[float, dict[str, float]]]:
    """Seconds and answer of each partial result."""
    begun = time.perf_counter()
    return [
        (time.perf_counter() - begun, together(partial.answers))
        for partial in streaming.aggregate(files, PARTITIONS, read, add)
    ]


def main() -> None:
    """Make a log, aggregate it both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=48, help="files of the log")
    parser.add_argument("--pages", type=int, default=2_000, help="pages in each language")
    parser.add_argument("--views", type=int, default=100_000, help="in an hour")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fh.init():
        files = [Path(folder, f"views-{hour:05}") for hour in range(wanted.hours)]
        fh.get(
            [
                write_hour.remote(path, hour, wanted.pages, wanted.views)
                for hour, path in enumerate(files)
            ]
        )
        batch(files[:4])  # start the workers
        seconds, true = batch(files)
        partials = stream(files)
    errors = [(at, 100 * error(shares, true)) for at, shares in partials]
    assert partials[-1][1] == true
    print(f"batch: {seconds:.2f} s, most viewed {', '.join(list(true)[:3])}")
    print(f"first partial answer: {errors[0][0]:.2f} s, {errors[0][1]:.1f} % wrong")
    print(f"last of {len(errors)}: {errors[-1][0]:.2f} s, equal to the batch")
    if wanted.plot:
        shown = {"streaming": errors, "batch": [(seconds, 0.0)]}
        title = f"Error of the {TOP} most viewed pages' shares"
        wanted.plot.write_text(drawing.lines(title, "seconds", "error, %", shown))


if __name__ == "__main__":
    main()
