"""A sort of 1 GB: ten million 100-byte records in eight files, sorted into files; whole processes.

Freehold and Ray run the same command with another ``--engine``, and with each strategy. The floor
is ``bench/sort_floor.py``: two processes, the same kernels, no runtime. Input and output are in the
page cache. The clock runs from before the interpreter's start to the end of the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.clock import seconds
from bench.engines import ROOT
from bench.figure import Figure, Metric, Samples, Target

RECORDS = 10_000_000
STRATEGIES = ("simple", "merge", "push", "push_pipelined", "cloudsort")
FREEHOLD = (sys.executable, "-c", "from freehold.cli.main import main; main()", "sort")
FLOOR = (sys.executable, "-m", "bench.sort_floor")


@contextmanager
def files() -> Iterator[tuple[Path, Path]]:
    """The input, and where the output goes."""
    with tempfile.TemporaryDirectory(prefix="sort-") as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        call(*FREEHOLD, "gen", "--records", str(RECORDS), "--files", "8", str(source))
        yield source, target


def call(*command: str) -> None:
    """Run a program of ours, also under an interpreter that does not know us otherwise."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, check=True, stdout=subprocess.DEVNULL
    )


def shared(name: str) -> Samples:
    """The command, with what it chooses itself and with each strategy."""
    with files() as (source, target):
        for strategy in ("auto", *STRATEGIES):
            options = ("run", "--engine", name, "--strategy", strategy)
            yield strategy, seconds(lambda o=options: call(*FREEHOLD, *o, str(source), str(target)))
            assert sum(part.stat().st_size for part in target.iterdir()) == 100 * RECORDS
            shutil.rmtree(target)


def floor() -> Samples:
    """The bare program."""
    with files() as (source, target):
        target.mkdir()
        yield "auto", seconds(lambda: call(*FLOOR, str(source), str(target)))
        assert sum(part.stat().st_size for part in target.iterdir()) == 100 * RECORDS


FIGURE = Figure(
    name="sort",
    title="A sort of 1 GB, files to files, whole processes",
    metrics=(
        Metric(
            "auto",
            "s",
            "lower",
            "with the strategy that it chooses, start and stop included",
            (Target(1 / 1.4, "floor"), Target(2.5, "ray")),
        ),
        *(Metric(name, "s", "lower", f"with --strategy {name}") for name in STRATEGIES),
    ),
    shared=shared,
    own={"floor": floor},
    limit=300.0,
)
