"""How each engine is started and stopped, and with which interpreter and environment variables.

The only file that knows a peer's options. Standard library only at import, since the peers'
environment lacks ours, and little of it: every worker that unpickles a figure's function or class
imports this file, which would count as the time of the engine.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SORTERS = ("ray_data", "dask_p2p", "spark", "duckdb", "polars")
"""Engines that sort tables and do nothing else that is measured here."""

NAMES = ("freehold", "ray", "dask", *SORTERS, "pool", "executor", "floor")
"""pool is multiprocessing.Pool, executor ProcessPoolExecutor, floor the bare operating system."""

GROUPS = {"std": ("pool", "executor"), "sorters": SORTERS}
PEER_ENVIRONMENT = frozenset({"ray", "dask", *SORTERS})
_DISTRIBUTIONS = {
    "freehold": "freehold",
    "ray": "ray",
    "ray_data": "ray",
    "dask": "distributed",
    "dask_p2p": "distributed",
    "spark": "pyspark",
    "duckdb": "duckdb",
    "polars": "polars",
}

SCALE = "BENCH_SCALE"
"""Variable by which the command line tells the figures that their data is to be smaller."""

DATA = "BENCH_DATA"
"""Variable by which the harness tells a program where its figure's data was prepared."""

# The dashboard, the log stream and usage reports are off: they cost Ray memory and start-up time,
# and Freehold has none of them on in this setting either.
_RAY_OPTIONS: dict[str, Any] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": "ERROR",
}
_RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


def variables(engine: str) -> dict[str, str]:
    """Environment of a measurement: our own, with the repository on the path and the peer quiet."""
    paths = [str(ROOT)]
    if engine == "freehold":
        paths.append(str(ROOT / "src"))
    surroundings = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    quiet = _RAY_VARIABLES if engine in ("ray", "ray_data") else {}
    return surroundings | quiet | {"PYTHONPATH": os.pathsep.join(paths)}


def scale() -> float:
    """What share of its full data a figure shall use: 1 unless ``--scale`` says less."""
    return float(os.environ.get(SCALE, "1"))


def data_folder() -> Path:
    """Where the figure's data was prepared (see ``Figure.prepare``)."""
    return Path(os.environ[DATA])


def versions(engine: str) -> dict[str, str]:
    """Versions of what was measured, asked inside the measuring process."""
    from importlib.metadata import PackageNotFoundError, version  # (25 ms)

    found = {"python": sys.version.split()[0]}
    for name in (_DISTRIBUTIONS.get(engine), "numpy"):
        if name is not None:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "source tree"
    return found


def load(name: str) -> Any:
    """Import the module called `name`: "freehold" or "ray" give the futures API."""
    return importlib.import_module(name)


def start(engine: Any, num_cpus: int = 2) -> None:
    """`engine.init()` for `num_cpus` workers, without dashboard and log stream."""
    options = _RAY_OPTIONS if engine.__name__ == "ray" else {}
    engine.init(num_cpus=num_cpus, **options)


@contextmanager
def cluster(name: str, num_cpus: int = 2) -> Iterator[Any]:
    """A running engine, taken down at the end."""
    engine = load(name)
    start(engine, num_cpus)
    try:
        yield engine
    finally:
        engine.shutdown()


def groups(engine: Any) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """What makes a placement group, and what removes it."""
    if engine.__name__ == "ray":
        engine = importlib.import_module("ray.util")
    return engine.placement_group, engine.remove_placement_group


@contextmanager
def two_nodes(name: str) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A running engine on two nodes of this machine, and what kills the second, with all that it
    stores, and starts another in its place. The first, the program's own, has no processors.
    """
    engine = load(name)
    if name == "ray":
        cluster_utils = importlib.import_module("ray.cluster_utils")
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    else:
        nodes = importlib.import_module(f"{name}.testing").Cluster(1, num_cpus=0)
    second = nodes.add_node(num_cpus=1)

    def replace() -> None:
        if name == "ray":
            nodes.remove_node(second, allow_graceful=False)
        else:
            nodes.kill_node(second)
        nodes.add_node(num_cpus=1)

    try:
        options = _RAY_OPTIONS if name == "ray" else {}
        engine.init(address=nodes.address, **options)
        yield engine, replace
    finally:
        engine.shutdown()
        nodes.shutdown()


@contextmanager
def many_nodes(name: str, count: int, store: int) -> Iterator[Any]:
    """A running engine on `count` nodes of this machine besides the program's own, which has no
    processors. Each has a store of `store` bytes; node i offers one of the resource "node<i>".
    """
    engine = load(name)
    first = {"num_cpus": 0, "object_store_memory": store}
    if name == "ray":
        cluster_utils = importlib.import_module("ray.cluster_utils")
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=first)
    else:
        nodes = importlib.import_module(f"{name}.testing").Cluster(1, **first)
    try:
        for index in range(count):
            nodes.add_node(num_cpus=1, object_store_memory=store, resources={f"node{index}": 1})
        options = _RAY_OPTIONS if name == "ray" else {}
        engine.init(address=nodes.address, **options)
        yield engine
    finally:
        engine.shutdown()
        nodes.shutdown()


@contextmanager
def dask_client(workers: int = 2) -> Iterator[Any]:
    """A Dask client of `workers` one-thread processes, without dashboard."""
    distributed = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=40
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client
