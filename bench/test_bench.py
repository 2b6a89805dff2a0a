"""The harness itself: what a table claims, and what becomes of a program that fails.

No engine is started; a figure made for the test takes the place of the real ones.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from bench import child, figures, floor, harness, report, whole
from bench.figure import Figure, Metric, Samples, Target
from bench.harness import Measurement


def nothing(name: str) -> Samples:
    """A program that yields nothing."""
    yield from ()


def figure(metric: Metric) -> Figure:
    """A figure of one metric."""
    return Figure("sample", "Sample", (metric,), nothing)


def measured(metric: str, **rounds: list[float]) -> list[Measurement]:
    """Measurements of each engine, a value a round."""
    return [
        Measurement("sample", engine, number, {metric: value})
        for engine, values in rounds.items()
        for number, value in enumerate(values)
    ]


def test_a_ratio_is_taken_within_rounds() -> None:
    """Goal: a slow stretch of the machine must not move a ratio. Method: one round is ten times
    slower for both and one for Ray alone; the medians of the values would say 20x."""
    metric = Metric("rate", "/s", "higher", "", (Target(2, "ray"),))
    lines = list(
        report.rows(figure(metric), measured("rate", freehold=[200, 20, 200], ray=[100, 10, 10]))
    )
    assert [line.engine for line in lines] == ["freehold", "ray"]
    assert lines[1].ratio == "2x"
    assert lines[1].verdict == "met"


def test_seconds_are_turned_so_that_above_one_is_better() -> None:
    """Goal: one reading for all units. Method: fewer seconds than the peer, bound missed."""
    metric = Metric("time", "s", "lower", "", (Target(0.3),))
    ours, theirs = report.rows(figure(metric), measured("time", freehold=[0.5], ray=[4.0]))
    assert theirs.ratio == "8x"
    assert (ours.target, ours.verdict) == ("≤ 0.3 s", "missed")


def test_an_engine_that_fails_has_its_line() -> None:
    """Goal: nobody reads a table and takes a failed engine for one that was not tried. Method: one
    engine with a value, one with an error."""
    metric = Metric("time", "s", "lower", "")
    failed = Measurement("sample", "spark", 0, error="needs Java 17")
    lines = list(report.rows(figure(metric), [*measured("time", freehold=[1.0]), failed]))
    assert [(line.engine, line.middle) for line in lines] == [
        ("freehold", "1 s"),
        ("spark", "failed"),
    ]
    assert report.remarks([failed]) == ["spark: failed: needs Java 17"]


def test_a_whole_program_costs_what_all_its_processes_do() -> None:
    """Goal: daemons count. Method: a program that ends at once and leaves a child behind, which
    then works for 0.3 s of processor time; and one that fails."""
    work = "import time\nwhile time.process_time() < 0.3: pass"
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    cost = whole.run([sys.executable, "-c", leave], dict(os.environ), 30)
    assert cost.processor >= 0.3
    with pytest.raises(RuntimeError, match=r"no luck \(exit code 1\)"):
        whole.run([sys.executable, "-c", "import sys; sys.exit('no luck')"], dict(os.environ), 30)


def doomed(name: str) -> Samples:
    """Yields a value, then fails."""
    yield "rate", 5.0
    raise RuntimeError("no luck")


def test_a_failed_program_keeps_its_earlier_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: a crash late in a program loses nothing. Method: run the child's own code on a program
    that yields once and fails, and read its file."""
    one = Figure("sample", "Sample", (Metric("rate", "/s", "higher", ""),), doomed)
    monkeypatch.setattr(figures, "find", lambda name: one)
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="no luck"):
        child.main("sample", "freehold", str(out))
    assert json.loads(out.read_text()) == {"metric": "rate", "value": 5.0}


def test_a_child_that_fails_or_hangs_is_ended_and_explained(tmp_path: Path) -> None:
    """Goal: the run goes on and says why. Method: a child that exits with a word, and one that
    sleeps a minute against a limit of 0.3 s."""
    crash = [sys.executable, "-c", "import sys; sys.exit('no luck')"]
    assert harness.await_child(crash, "floor", tmp_path, 10) == "no luck (exit code 1)"
    begun = time.monotonic()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert harness.await_child(sleep, "floor", tmp_path, 0.3) == "no end within 0.3 s"
    assert time.monotonic() - begun < 10


def test_every_figure_can_be_found_and_names_known_engines() -> None:
    """Goal: no dead entry. Method: import each, look at its programs and targets."""
    for name in figures.NAMES:
        found = figures.find(name)
        assert found.name == name
        for metric in found.metrics:
            assert {target.peer for target in metric.targets} <= {None, *found.engines}
    with pytest.raises(KeyError, match="there are startup"):
        figures.find("nonsense")


def test_frames_survive_any_cut() -> None:
    """Goal: the floor counts every answer. Method: three frames, cut at every byte."""
    stream = b"".join(floor.frame_of(number) for number in range(3))
    whole, rest = floor.split(stream)
    assert len(whole) == 3
    assert rest == b""
    for cut in range(len(stream)):
        first, left = floor.split(stream[:cut])
        second, rest = floor.split(left + stream[cut:])
        assert first + second == whole
        assert rest == b""
