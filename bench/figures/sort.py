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
from collections.abc import Callable, Mapping
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


def figure(
    name: str,
    size: float,
    memory: int,
    limit: float,
    targets: dict[str, float],
    spent_on: str = "",
) -> Figure:
    """A sort of ``size`` GB with ``memory`` bytes for data (0: the engine's own default).

    ``limit`` is the seconds that one sort may take, ``targets`` our least advantage over peers,
    ``spent_on`` where the time goes.
    """
    room = int(memory * scale())

    def ours(engine: str) -> Samples:
        run = (*command(engine, room), "--strategy")
        yield from measured((*run, "auto"), limit, (), full=True)
        yield from each({one: (*run, one) for one in STRATEGIES}, limit)

    def peer(program: str) -> Callable[[], Samples]:
        asked = (sys.executable, "-m", f"bench.{program}")
        return lambda: measured(asked, limit, (str(room),), full=True)

    told = f", {memory / GIB:g} GiB of memory for data" if memory else ""
    title = f"A sort of {size * scale():g} GB, files to files, whole processes{told}"
    bounds = tuple(Target(bound, engine) for engine, bound in targets.items())
    auto = "with the strategy that it chooses, start and stop included"
    return Figure(
        name=name,
        title=title,
        metrics=(
            Metric("auto", "s", "lower", auto, bounds, spent_on=spent_on),
            Metric("processor", "s", "lower", "user and system time of all processes of `auto`"),
            Metric("memory", "GiB", "lower", "the most that its processes had, in shares (PSS)"),
            *(Metric(one, "s", "lower", f"with --strategy {one}") for one in STRATEGIES),
        ),
        shared=ours,
        own={name: peer(f"sorts.{program}") for name, program in PEERS.items()}
        | {"floor": peer("sort_floor")},
        limit=limit * (len(STRATEGIES) + 1) + 60,
        prepare=prepare(size),
    )


def prepare(size: float) -> Callable[[Path], None]:
    """What makes ``size`` GB of records, times ``--scale``, and counts and sums them."""
    records = int(size * 10_000_000 * scale())

    def make(folder: Path) -> None:
        source = str(folder / "in")
        call(*FREEHOLD, "gen", "--records", str(records), "--files", "8", source)
        (folder / "holds").write_text(call(sys.executable, "-m", "bench.sorts.check", source))

    return make


def command(engine: str, room: int) -> tuple[str, ...]:
    """Our sort on an engine, with ``room`` bytes of object store (0: the default)."""
    store = ("--object-store-memory", f"{room >> 20}MiB") if room else ()
    return (*FREEHOLD, "run", "--engine", engine, *store)


def each(commands: Mapping[str, tuple[str, ...]], limit: float) -> Samples:
    """The seconds of several sorts, by metric; one that fails does not keep the others."""
    failures = []
    for name, asked in commands.items():
        try:
            yield from measured(asked, limit, (), full=False, name=name)
        except RuntimeError as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise RuntimeError("; ".join(failures))


def measured(
    asked: tuple[str, ...],
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
        os.sync()  # or the system would write what the run before left, during this one
        cost = whole.run([*asked, str(source), str(target), *last], surroundings(), limit)
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
    "start and stop are 1.3 s of processor time, imports above all; the pages of the store are "
    "cleared ahead of the maps (0.1 s, or 1.6 where a hypervisor has taken free memory away since "
    "the run before), and each part is copied into it once (0.2 s). The rest is the floor's work: "
    "in alternation `auto` took 7.9 s of processor time and the floor 7.0",
)
