"""The report of a sort as one HTML page: stages, nodes, and every task on a line of time.

Theory of operation
-------------------
``page`` turns a ``sort.Report`` into a page that stands for itself: no script, no font and nothing
from a network, so it can be mailed or kept beside the data. It has the figures of the terminal's
table, the same by node, what lay on disk over time, and a timeline.

The timeline has a block of lanes for each node. A task lies in the first lane of its node that is
free when it begins, so there are as many lanes as tasks ran at once, and gaps are time in which a
processor of the node had none of these tasks. Tasks say by the clock of their own node when they
ended; where nodes' clocks differ, so do their lanes. A task that ran again after a death is there
as often as its note arrived, which is mostly once.

A task costs 150 bytes of the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from freehold.shuffle import drawing
from freehold.shuffle.sort import Done, Report

STAGE_COLOURS = {
    "map": drawing.COLOURS[0],
    "merge": drawing.COLOURS[5],
    "reduce": drawing.COLOURS[2],
}

#: Of the timeline, in pixels: a lane, the space above a node's lanes, the margins.
LANE, HEAD, WIDTH, MARGIN, FOOT = 14, 24, 960, 10, 40

STYLE = """
body { font: 15px/1.5 sans-serif; color: #333; max-width: 980px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse } th { font-weight: normal; color: #666 }
td, th { padding: .2em 1.2em .2em 0; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } tr.sum td { font-weight: bold }
svg { width: 100%; height: auto; display: block } .key { color: white; padding: .1em .6em }
"""


def page(report: Report) -> str:
    """The HTML page of a finished sort."""
    why = f" ({report.why})" if report.why else ""
    keys = " ".join(
        f'<span class="key" style="background:{STAGE_COLOURS[stage]}">{stage}</span>'
        for stage in report.stages
        if stage in STAGE_COLOURS
    )
    size = f"{report.blocks} blocks x {report.partitions} partitions"
    sections = [
        f"<h1>Sort of {report.records:,} records</h1>",
        f"<p>{report.bytes:,} bytes in {report.seconds_total:.2f} s, {size}<br>",
        f"strategy {escape(report.strategy + why)}</p>",
        "<h2>Stages</h2>",
        _stages(report),
        "<h2>Nodes</h2>",
        _nodes(report),
    ]
    if report.tasks:
        sections += ["<h2>Tasks</h2>", f"<p>{keys}</p>", timeline(report.tasks, report.began)]
    if report.spilled_peak:
        seen = [(look.at - report.began, look.spilled / 1e6) for look in report.looks]
        drawn = drawing.lines("", "seconds", "MB", {"in spill files": seen})
        sections += ["<h2>On disk</h2>", f'<div style="max-width:640px">{drawn}</div>']
    head = f'<meta charset="utf-8"><title>Sort report</title><style>{STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *sections,
                      "</body></html>", ""])  # fmt: skip


def _stages(report: Report) -> str:
    """Time and bytes by stage. Where stages overlap, each has the time to its own end."""
    rows = []
    for name, stage in report.stages.items():
        count = stage.tasks.total()
        mean = f"{stage.busy / count:.2f}" if count else ""
        size, moved = stage.bytes.total(), stage.moved
        figures = (f"{count:,}", mean, _mb(size), _mb(moved)) if count else ("", "", "", "")
        rows.append((name, f"{stage.seconds:.2f}", *figures))
    names = ("stage", "seconds", "tasks", "seconds a task", "MB", "MB from other nodes")
    total = ("total", f"{report.seconds_total:.2f}", "", "", _mb(report.bytes), _mb(report.moved))
    held = report.held
    return _table(names, rows, total) + (f"<p>{held[0].upper()}{held[1:]}.</p>" if held else "")


def _nodes(report: Report) -> str:
    """What each node did in each stage."""
    done: defaultdict[tuple[str, str], list[Done]] = defaultdict(list)
    for task in report.tasks:
        done[task.node, task.stage].append(task)
    rows = [
        (
            node[:8],
            stage,
            f"{len(tasks):,}",
            f"{sum(task.seconds for task in tasks):.2f}",
            _mb(sum(task.bytes for task in tasks)),
            _mb(sum(task.moved for task in tasks)),
        )
        for (node, stage), tasks in sorted(done.items())
    ]
    return _table(("node", "stage", "tasks", "busy seconds", "MB", "MB from other nodes"), rows)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f}" if size >= 10_000_000 or not size else f"{size / 1e6:,.2f}"


def _table(
    names: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] | None = None
) -> str:
    def row(cells: Sequence[str], tag: str = "td") -> str:
        return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)

    body = "".join(f"<tr>{row(cells)}</tr>\n" for cells in rows)
    if total:
        body += f'<tr class="sum">{row(total)}</tr>\n'
    return f"<table><tr>{row(names, 'th')}</tr>\n{body}</table>"


# --- the timeline ------------------------------------------------------------------------------


def timeline(tasks: Sequence[Done], began: float) -> str:
    """Every task as a bar from its begin to its end, in lanes by node, as an ``<svg>`` element.

    ``began`` is the second (of the clock that tasks end by) from which time is counted.
    """
    marks = drawing.ticks(max(task.ended - began for task in tasks), 10)
    scale = (WIDTH - 2 * MARGIN) / marks[-1]
    drawn, top = [], 0
    for node in sorted({task.node for task in tasks}):
        placed = lanes([task for task in tasks if task.node == node])
        drawn.append(drawing.text(MARGIN + 4, top + HEAD - 7, f"node {node[:8]}"))
        for lane, task in placed:
            x = MARGIN + scale * max(0.0, task.ended - task.seconds - began)
            y, width = top + HEAD + LANE * lane, max(1.0, scale * task.seconds - 0.5)
            told = f"{task.stage}: {task.seconds:.2f} s, {_mb(task.bytes)} MB"
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 2}" '
                f'fill="{STAGE_COLOURS[task.stage]}"><title>{told}</title></rect>'
            )
        top += HEAD + LANE * (1 + max(lane for lane, _ in placed))
    grid = []
    for mark in marks:
        x = MARGIN + scale * mark
        grid.append(f'<path d="M{x:.1f} 0v{top}" stroke="#ddd"/>')
        anchor = "start" if mark == 0 else "end" if mark == marks[-1] else "middle"
        grid.append(drawing.text(x, top + 16, f"{mark:g}", f' text-anchor="{anchor}"'))
    middle = drawing.text(WIDTH / 2, top + 34, "seconds", ' text-anchor="middle"')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + FOOT}"'
    return "\n".join([f"{head} {drawing.FONT}>", *grid, *drawn, middle, "</svg>"])


def lanes(tasks: Iterable[Done]) -> list[tuple[int, Done]]:
    """Each task with the first lane that is free when it begins, in order of begin."""
    free: list[float] = []  # when the last task of each lane ended
    placed = []
    for task in sorted(tasks, key=lambda task: task.ended - task.seconds):
        begin = task.ended - task.seconds
        lane = next((lane for lane, end in enumerate(free) if end <= begin), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = task.ended
        placed.append((lane, task))
    return placed
