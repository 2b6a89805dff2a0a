"""A sort of 1 GB: ten million 100-byte records in eight files, sorted into files; whole processes.

Freehold and Ray run the same command with another ``--engine``, and with each strategy. Ray Data,
Dask, Spark, DuckDB and Polars run a program each in their own idiom (``bench/sorts``). The floor is
``bench/sort_floor.py``: two processes, the same kernels, no runtime. All read the same files, which
are in the page cache, and every result is read and checked. The clock runs from before the
interpreter's start to the end of the process.

``sort_spilled`` is the same with 6 GB and 2 GiB of memory for data. ``--scale`` makes both smaller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import whole
from bench.clock import GIB
from bench.engines import ROOT, data_folder, scale
from bench.figure import Figure, Metric, Samples, Target

STRATEGIES = ("simple", "merge", "push", "push_pipelined", "cloudsort")
FREEHOLD = (sys.executable, "-c", "from freehold.cli.main import main; main()", "sort")
PEERS = {
    "ray_data": "ray_data",
    "dask": "dask_delayed",
    "dask_p2p": "dask_p2p",
    "spark": "spark",
    "duckdb": "duckdb",
    "polars": "polars",
}
"""The program of each peer, in bench/sorts."""


def figure(name: str, size: float, memory: int, limit: float, targets: dict[str, float]) -> Figure:
    """A sort of ``size`` GB with ``memory`` bytes for data (0: the engine's own default).

    ``limit`` is the seconds that one sort may take, ``targets`` our least advantage over peers.
    """
    records = int(size * 10_000_000 * scale())
    room = int(memory * scale())

    def prepare(folder: Path) -> None:
        source = str(folder / "in")
        call(*FREEHOLD, "gen", "--records", str(records), "--files", "8", source)
        (folder / "holds").write_text(call(sys.executable, "-m", "bench.sorts.check", source))

    def ours(engine: str) -> Samples:
        store = ("--object-store-memory", f"{room >> 20}MiB") if room else ()
        run = (*FREEHOLD, "run", "--engine", engine, *store, "--strategy")
        yield from measured((*run, "auto"), limit, (), full=True)
        failures = []
        for strategy in STRATEGIES:
            try:
                yield from measured((*run, strategy), limit, (), full=False, name=strategy)
            except RuntimeError as error:  # the next strategy may do better
                failures.append(f"{strategy}: {error}")
        if failures:
            raise RuntimeError("; ".join(failures))

    def peer(program: str) -> Callable[[], Samples]:
        command = (sys.executable, "-m", f"bench.{program}")
        return lambda: measured(command, limit, (str(room),), full=True)

    told = f", {memory / GIB:g} GiB of memory for data" if memory else ""
    title = f"A sort of {size * scale():g} GB, files to files, whole processes{told}"
    bounds = tuple(Target(bound, engine) for engine, bound in targets.items())
    auto = "with the strategy that it chooses, start and stop included"
    return Figure(
        name=name,
        title=title,
        metrics=(
            Metric("auto", "s", "lower", auto, bounds),
            Metric("processor", "s", "lower", "user and system time of all processes of `auto`"),
            Metric("memory", "GiB", "lower", "the most that its processes had, in shares (PSS)"),
            *(Metric(one, "s", "lower", f"with --strategy {one}") for one in STRATEGIES),
        ),
        shared=ours,
        own={name: peer(f"sorts.{program}") for name, program in PEERS.items()}
        | {"floor": peer("sort_floor")},
        limit=limit * (len(STRATEGIES) + 1) + 60,
        prepare=prepare,
    )


def measured(
    command: tuple[str, ...],
    limit: float,
    last: tuple[str, ...],
    *,
    full: bool,
    name: str = "auto",
) -> Samples:
    """Run a sort of the prepared files; its seconds, and with ``full`` its other costs."""
    source = data_folder() / "in"
    with tempfile.TemporaryDirectory(prefix="sort-") as folder:
        target = Path(folder, "out")
        target.mkdir()
        cost = whole.run([*command, str(source), str(target), *last], surroundings(), limit)
        found = json.loads(call(sys.executable, "-m", "bench.sorts.check", str(target)))
        wanted = json.loads((data_folder() / "holds").read_text())
        if found != wanted | {"unordered": 0}:
            raise RuntimeError(f"a wrong result: {found} of {wanted}")
    yield name, cost.seconds
    if full:
        yield "processor", cost.processor
        yield "memory", cost.memory / GIB


def surroundings() -> dict[str, str]:
    """Our environment with the package on the path, also for an interpreter that lacks it."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


def call(*command: str) -> str:
    """Run a program of ours; what it prints."""
    done = subprocess.run(
        command, cwd=ROOT, env=surroundings(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


FIGURE = figure(
    "sort",
    1,
    0,
    300.0,
    {
        "floor": 1 / 1.4,
        "ray": 2.5,
        "ray_data": 8,
        "spark": 8,
        "duckdb": 1,
    },
)
