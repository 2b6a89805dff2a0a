"""``freehold sort``: make 100-byte records, sort them, check the result.

Theory of operation
-------------------
Each command starts a cluster (or joins the one at ``--address``), runs one job of
``freehold.shuffle`` on it, shows how far it is, and ends with a few lines of figures. On a
terminal progress is a live bar; elsewhere it is a line at each tenth, so that logs stay short.

Nothing beyond click is imported until a command runs: ``freehold --help`` must not pay for numpy.
This file must not know how any of it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from freehold.shuffle.jobs import Verdict
    from freehold.shuffle.sort import Report
    from freehold.testing import Cluster

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}


def size(text: str) -> int:
    """A number of bytes: 512MiB, 1GiB, 6GB, 1.5TB, 1048576."""
    digits = text.rstrip("BKMGTi ")
    try:
        return int(float(digits) * _UNITS[text[len(digits) :].strip()])
    except (KeyError, ValueError):
        raise click.BadParameter(f"{text!r} is not a size: write 512MiB, 1GiB or 6GB") from None


def count(text: str) -> int:
    """A whole number that may be grouped: 10000000, 10_000_000, 10,000,000."""
    digits = text.replace(",", "").replace("_", "")
    if not digits.isdecimal():
        raise click.BadParameter(f"{text!r} is not a whole number: write 10000000 or 10_000_000")
    return int(digits)


#: Repeated here because the help must not pay for importing them.
STRATEGIES = ("auto", "simple", "merge", "push", "push_pipelined", "cloudsort")

_address = click.option("--address", help="Join the cluster at this address instead of a new one.")
_folder = click.Path()  # a path or a URL, hence text


@click.group()
def sort() -> None:
    """Sort 100-byte records: make them, sort them, check the result."""


@sort.command()
@click.option(
    "--records", type=count, required=True, metavar="N", help="How many; 10,000,000 are 1 GB."
)
@click.option("--files", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--ascii", "text", is_flag=True, help="Printable records.")
@click.option("--skew", is_flag=True, help="Keys of which most share a few prefixes.")
@_address
@click.argument("folder", metavar="DIR", type=_folder)
def gen(records: int, files: int, text: bool, skew: bool, address: str | None, folder: str) -> None:
    """Write the Sort Benchmark's records into DIR, which must be empty or new; s3://... too."""
    with _cluster(1, None, address), _progress() as progress:
        from freehold.shuffle import jobs

        paths = jobs.generate(folder, records, files, text=text, skew=skew, progress=progress)
    click.echo(f"{records:,} records in {len(paths)} files in {folder}")


@sort.command()
@click.option("--partitions", type=click.IntRange(min=1), help="Output files [default: by size].")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--object-store-memory", "store", type=size, metavar="SIZE", help="Per node: 512MiB, 1GiB."
)
@click.option(
    "--spill-quota", "quota", type=size, metavar="SIZE", help="Per node: at most this much on disk."
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="How the data is shuffled.",
)
@click.option(
    "--kill-node-at",
    "kill_at",
    type=click.IntRange(0, 99),
    metavar="PERCENT",
    help="Kill one of the --nodes when this much is done, to see the sort recover.",
)
@click.option(
    "--engine",
    type=click.Choice(["freehold", "ray"]),
    default="freehold",
    show_default=True,
    help="Whose tasks and objects: ray runs the same library on Ray, at --address or a new one.",
)
@click.option("--overwrite", is_flag=True, help="Replace the parts of an earlier sort in OUT.")
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE.html",
    help="Also write the report as a page, with every task on a line of time.",
)
@_address
@click.argument("source", metavar="IN", type=_folder)
@click.argument("target", metavar="OUT", type=_folder)
def run(
    partitions: int | None,
    nodes: int,
    store: int | None,
    quota: int | None,
    strategy: str,
    kill_at: int | None,
    engine: str,
    overwrite: bool,
    page: Path | None,
    address: str | None,
    source: str,
    target: str,
) -> None:
    """Sort the record files in folder IN into part-00000, ... in folder OUT.

    Folders may be URLs, s3://bucket/prefix. With --nodes N, on N nodes of this machine; with
    --address, on a running cluster.
    """
    if address and (nodes > 1 or store or quota is not None):
        raise click.UsageError("--address joins a cluster that has its nodes and memory already")
    if kill_at is not None and (address or nodes < 2):
        raise click.UsageError("--kill-node-at needs a cluster of its own: give --nodes 2 or more")
    if engine == "ray" and nodes > 1:
        raise click.UsageError("--nodes starts nodes of Freehold: give --address of a Ray cluster")
    if engine == "ray" and quota is not None:
        raise click.UsageError("--spill-quota bounds what Freehold spills: Ray has no such limit")
    if page and not page.absolute().parent.is_dir():
        raise click.UsageError(f"--report {page}: there is no folder {page.parent}")
    if not address:
        _look_for(source)
    start = _ray(store, address) if engine == "ray" else _cluster(nodes, store, address, quota)
    Thread(target=_import_numpy, daemon=True).start()
    try:
        with start as cluster, _progress() as progress:
            from freehold.shuffle.sort import sort as sort_records

            if kill_at is not None and cluster is not None:
                progress = _killing(cluster, kill_at, progress)
            report = sort_records(
                source,
                target,
                partitions=partitions,
                strategy=strategy,
                overwrite=overwrite,
                progress=progress,
            )
    except BaseException:
        _clean(target)
        raise
    _print_report(report)
    if page:
        from freehold.shuffle.report import page as page_of

        page.write_text(page_of(report), encoding="utf-8")


def _look_for(source: str) -> None:
    """A folder that is not there is told before a cluster is started. (One of a running cluster
    may be on its nodes alone; what is behind a URL, the plan asks.)
    """
    from freehold.shuffle.places import GIVE_A_FOLDER, RecordFileError, existing, place

    folder = place(source)
    if isinstance(folder, Path):
        try:
            existing(folder, GIVE_A_FOLDER)
        except RecordFileError as error:
            raise click.ClickException(str(error)) from error


def _import_numpy() -> None:
    """Beside the start of the cluster, which takes as long (0.2 s) and is other processes' work."""
    with suppress(ImportError):  # told where it is needed
        import_module("numpy")


def _clean(target: str) -> None:
    """Remove what a task left that was submitted in the moment of a Ctrl-C."""
    from freehold.shuffle.files import remove_temporaries
    from freehold.shuffle.places import RecordFileError, place

    with suppress(RecordFileError):  # what cannot be reached was told already
        remove_temporaries(place(target))


@sort.command()
@click.option(
    "--against", "--input", type=_folder, metavar="IN", help="Compare with the records in IN."
)
@_address
@click.argument("folder", metavar="OUT", type=_folder)
def check(against: str | None, address: str | None, folder: str) -> None:
    """Read every record in OUT: order, count, checksum, duplicate keys.

    Ends with status 1 if the keys are out of order, or if --against finds other records.
    """
    with _cluster(1, None, address), _progress() as progress:
        from freehold.shuffle import jobs

        verdict = jobs.check(folder, progress)
        wanted = jobs.check(against, progress) if against else None
    _print_verdict(verdict, wanted)
    faults = []
    if not verdict.summary.in_order:
        faults.append(
            f"{folder} is not sorted: {verdict.summary.unordered:,} records are below the one "
            f"before them, the first at {verdict.place}"
        )
    if wanted and not verdict.summary.same_records(wanted.summary):
        faults.append(
            f"{folder} does not hold the records of {against}: "
            f"{verdict.summary.records:,} of {wanted.summary.records:,} records, "
            f"checksum {verdict.summary.checksum:x}, not {wanted.summary.checksum:x}"
        )
    if faults:
        raise click.ClickException("\n".join(faults))


@contextmanager
def _cluster(
    nodes: int, store: int | None, address: str | None, quota: int | None = None
) -> Iterator[Cluster | None]:
    """A cluster to run on, given where it has several nodes that were started for this; errors
    that the user can act on become one line.
    """
    import freehold as fh
    from freehold.errors import FreeholdError, TaskError
    from freehold.shuffle.places import RecordFileError

    try:
        with _nodes(nodes, store, quota) as started:
            try:
                if started:
                    fh.init(started.address)
                else:
                    fh.init(address, object_store_memory=store, spill_quota=quota)
            except (
                ValueError
            ) as error:  # an amount, or an option that a running cluster has settled
                raise click.UsageError(str(error)) from error
            try:
                yield started
            finally:
                fh.shutdown()
    except (FreeholdError, RecordFileError) as error:
        cause = error.cause if isinstance(error, TaskError) else None
        # Bad input met by a task is no less the user's to mend: no traceback for it.
        told = cause if isinstance(cause, RecordFileError) else error
        raise click.ClickException(str(told)) from error


@contextmanager
def _ray(store: int | None, address: str | None) -> Iterator[None]:
    """A Ray cluster to run on."""
    from freehold.shuffle import engine
    from freehold.shuffle.places import RecordFileError

    try:
        ray = engine.use("ray")
    except ImportError:
        raise click.ClickException("Ray is not installed here: pip install ray") from None
    options = {} if address else {"object_store_memory": store, "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    try:
        yield None
    except RecordFileError as error:
        raise click.ClickException(str(error)) from error
    finally:
        ray.shutdown()
        engine.use("freehold")


@contextmanager
def _nodes(count: int, store: int | None, quota: int | None) -> Iterator[Cluster | None]:
    """Start several nodes on this machine; None for a single one, which ``init`` starts."""
    if count == 1:
        yield None
        return
    import os

    from freehold.runtime.machine import store_bytes
    from freehold.testing import Cluster

    cpus = max(1, (os.cpu_count() or 1) // count)
    # Together they take what a single node would.
    share = store or store_bytes(None) // count
    with Cluster(
        nodes=count, num_cpus=cpus, object_store_memory=share, spill_quota=quota
    ) as cluster:
        yield cluster


def _killing(
    cluster: Cluster, percent: int, tell: Callable[[str, int, int], None]
) -> Callable[[str, int, int], None]:
    """``tell``, which also kills the last of the nodes when that much of the sort is done: bytes
    mapped and bytes reduced count alike. The first node is the one that we are connected to.
    """
    done = {"map": 0, "reduce": 0}

    def tell_and_kill(stage: str, stage_done: int, total: int) -> None:
        tell(stage, stage_done, total)
        if stage in done:
            done[stage] = stage_done
        victim = cluster.nodes[-1]
        if victim.alive and sum(done.values()) * 100 >= percent * 2 * total > 0:
            cluster.kill_node(victim)
            click.echo(f"killed node {victim.node_id[:8]} in stage {stage}", err=True)

    return tell_and_kill


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, bytes done, bytes in all) that shows how far the job is."""
    if sys.stderr.isatty():
        with _live_progress() as tell:
            yield tell
    else:
        yield _plain_progress()


@contextmanager
def _live_progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as bars:
        stages: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if not total:
                return  # a bar of nothing is finished before it has begun
            # A stage that begins again (the second folder of a check) gets a bar of its own.
            if stage not in stages or bars.tasks[stages[stage]].finished:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done)

        yield tell


def _plain_progress() -> Callable[[str, int, int], None]:
    told: dict[str, int] = {}

    def tell(stage: str, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if total and tenth != told.get(stage):
            told[stage] = tenth
            click.echo(f"{stage}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", err=True)

    return tell


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    def rate(seconds: float) -> str:
        return f"{report.bytes / 1e6 / seconds:,.0f}" if seconds and report.bytes else "-"

    table = Table("stage", "seconds", "MB/s", "tasks", "moved MB", "MB per node", box=None)
    for column in table.columns[1:5]:
        column.justify = "right"
    for name, stage in report.stages.items():
        where = "  ".join(f"{node[:8]}: {n / 1e6:,.0f}" for node, n in sorted(stage.bytes.items()))
        tasks = stage.tasks.total()
        figures = (rate(stage.seconds), str(tasks), f"{stage.moved / 1e6:,.0f}", where)
        table.add_row(name, f"{stage.seconds:.2f}", *(figures if tasks else ()))
    total = report.seconds_total
    table.add_row("total", f"{total:.2f}", rate(total), "", f"{report.moved / 1e6:,.0f}", "")
    console = Console(highlight=False)
    console.print(
        f"{report.records:,} records, {report.bytes:,} bytes, "
        f"{report.blocks} blocks x {report.partitions} partitions",
        soft_wrap=True,
    )
    why = f" ({report.why})" if report.why else ""
    console.print(f"strategy {report.strategy}{why}", soft_wrap=True)
    console.print(table)
    if report.held:
        console.print(report.held, soft_wrap=True)


def _print_verdict(verdict: Verdict, wanted: Verdict | None) -> None:
    summary = verdict.summary
    order = "in order" if summary.in_order else f"{summary.unordered:,} out of order"
    same = ""
    if wanted:
        same = ", the same records as the input" if summary.same_records(wanted.summary) else ""
    click.echo(
        f"{summary.records:,} records in {verdict.files} files, {order}, checksum "
        f"{summary.checksum:x}, {summary.duplicates:,} duplicate keys{same}"
    )
