"""The page of a sort: stands for itself, is well formed, and loses no task."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from freehold.cli import sort as command
from freehold.shuffle import auto, report
from freehold.shuffle.sort import Done, Look, Report

SVG = "{http://www.w3.org/2000/svg}"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command.sort, [str(argument) for argument in arguments])


def pictures(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


@pytest.mark.parametrize("strategy", auto.STRATEGIES)
def test_the_command_writes_a_page_with_every_task(
    fake: Any, tmp_path: Path, strategy: str
) -> None:
    """Goal: every stage and task of any strategy is on the page, which needs no network. Method:
    sort 40,000 records in 4 partitions; count the bars by stage against the table's tasks.
    """
    invoke("gen", "--records", 40_000, tmp_path / "in")
    target = tmp_path / "report.html"
    options = ("--partitions", 4, "--strategy", strategy, "--report", target)
    ran = invoke("run", *options, tmp_path / "in", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    page = target.read_text()
    assert re.findall(r"(?:src|href|url|import)\b", page) == []
    [timeline] = pictures(page)
    bars = [bar[0].text.split(":")[0] for bar in timeline.iter(SVG + "rect") if bar[0].text]
    told = dict(re.findall(r"<tr><td>(map|merge|reduce)</td><td>[\d.]+</td><td>(\d+)</td>", page))
    assert {stage: str(bars.count(stage)) for stage in told} == told
    assert bars.count("reduce") == 4


def test_a_missing_folder_is_told_before_anything_is_sorted(fake: Any, tmp_path: Path) -> None:
    """Goal: no sort of an hour whose report cannot be written. Method: a folder that is not."""
    invoke("gen", "--records", 100, tmp_path / "in")
    page = tmp_path / "none" / "report.html"
    ran = invoke("run", "--report", page, tmp_path / "in", tmp_path / "out")
    assert (ran.exit_code, f"there is no folder {page.parent}" in ran.output) == (2, True)
    assert not (tmp_path / "out").exists()


def test_tasks_share_a_lane_only_one_after_the_other() -> None:
    """Goal: bars never hide each other, and there are no more lanes than tasks at once. Method:
    three that overlap, one that begins exactly when the first ends, one much later.
    """
    times = [(0, 2), (1, 4), (1.5, 3), (2, 5), (9, 10)]
    tasks = [Done("map", "n", 1, end - begin, 0, end) for begin, end in times]
    assert [lane for lane, _ in report.lanes(reversed(tasks))] == [0, 1, 2, 0, 0]


def test_nodes_and_what_lay_on_disk_are_drawn() -> None:
    """Goal: a node has lanes of its own, bars lie in the picture, and text cannot break the
    page. Method: a report by hand, with two nodes, a reason that is markup, and looks at the disk.
    """
    tasks = [
        Done("map", "aaa", 5, 1.0, 0, 101.0, 9_000_000),
        Done("reduce", "bbb", 5, 2.0, 3, 103.0),
    ]
    made = Report(1, 100, 1, 1, "simple", "<b>why</b>", began=100.0, tasks=tasks)
    made.looks = [Look(101.0, 0, 7_000_000), Look(102.0, 5_000_000, 0, 11_000_000)]
    page = report.page(made)
    assert "simple (&lt;b&gt;why&lt;/b&gt;)" in page
    assert "At most 7 MB in object stores, 5 MB spilled, 9 MB of private memory in" in page
    assert "process, 11 MB in the program." in page
    timeline, _ = pictures(page)
    bars = [{k: bar.attrib[k] for k in ("x", "y", "width")} for bar in timeline.iter(SVG + "rect")]
    # Ticks end at 3 s, over 940 pixels after a margin of 10.
    assert bars == [
        {"x": "10.0", "y": "24", "width": "312.8"},
        {"x": "323.3", "y": "62", "width": "626.2"},
    ]


def test_a_sort_of_nothing_has_a_page(fake: Any, tmp_path: Path) -> None:
    """Goal: the least sort has a page too. Method: one record; and a report without any task."""
    invoke("gen", "--records", 1, tmp_path / "in")
    target = tmp_path / "report.html"
    ran = invoke("run", "--report", target, tmp_path / "in", tmp_path / "out")
    assert (ran.exit_code, "Sort of 1 records" in target.read_text()) == (0, True)
    empty = report.page(Report(0, 0, 0, 1, "simple", ""))
    assert "Tasks</h2>" not in empty
    assert "At most" not in empty, "nobody has said what was in use"
