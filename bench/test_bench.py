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
from click.testing import CliRunner

from bench import check, child, clock, figures, floor, harness, page, record, report, whole
from bench.figure import Figure, Metric, Samples, Target, attempt, choose
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


def only_line(metric: Metric, **rounds: list[float]) -> report.Line:
    """The one line of a table of one metric."""
    [line] = report.lines(figure(metric), measured(metric.name, **rounds))
    return line


def test_a_ratio_is_taken_within_rounds() -> None:
    """Goal: a slow stretch of the machine must not move a ratio. Method: one round is ten times
    slower for both and one for Ray alone; the medians of the values would say 20x."""
    metric = Metric("rate", "/s", "higher", "", (Target(2, "ray"),))
    line = only_line(metric, freehold=[200, 20, 200], ray=[100, 10, 10])
    assert list(line.values) == ["freehold", "ray"]
    assert line.ratio("ray") == "2x"
    assert line.verdict == "met"


def test_seconds_are_turned_so_that_above_one_is_better() -> None:
    """Goal: one reading for all units. Method: fewer seconds than the peer, bound missed."""
    line = only_line(Metric("time", "s", "lower", "", (Target(0.3),)), freehold=[0.5], ray=[4.0])
    assert line.ratio("ray") == "8x"
    assert line.bounds == "≤ 0.3 s"
    assert line.verdict == "missed: ≤ 0.3 s"


def test_being_behind_ray_is_a_miss_also_without_a_target() -> None:
    """Goal: no measure behind Ray goes unseen. Method: one without targets, slower; a mere count,
    which has no better; and one that Ray was not measured for."""
    rate, count = Metric("rate", "/s", "higher", ""), Metric("count", "", "neither", "")
    assert only_line(rate, freehold=[1.0], ray=[2.0]).verdict == "missed: ≥ 1x ray"
    assert only_line(count, freehold=[1.0], ray=[2.0]).verdict == ""
    assert only_line(rate, freehold=[1.0], pool=[2.0]).verdict == ""


def test_a_target_that_cannot_be_judged_says_so() -> None:
    """Goal: a peer that failed does not look like a target that is met. Method: two targets, a
    value for one of the peers."""
    metric = Metric("rate", "/s", "higher", "", (Target(2, "pool"), Target(3, "ray")))
    line = only_line(metric, freehold=[4.0], pool=[1.0])
    assert line.verdict == "not measured: ≥ 3x ray"
    assert report.tally([line]) == "1 of 1 targets met"


def test_nothing_is_no_infinite_advantage() -> None:
    """Goal: a table never says "infx". Method: values of zero on either side, without a resolution
    (no ratio) and with one (as if it were as large)."""
    plain = Metric("share", "%", "lower", "")
    fine = Metric("share", "%", "lower", "", resolution=0.1)
    assert only_line(plain, freehold=[0.0], ray=[4.0]).ratio("ray") == "-"
    assert only_line(plain, freehold=[4.0], pool=[0.0]).ratio("pool") == "-"
    assert only_line(fine, freehold=[0.0], ray=[4.0]).ratio("ray") == "40x"
    assert only_line(fine, freehold=[0.0], pool=[0.0]).ratio("pool") == "1x"


def test_a_metric_that_fails_does_not_end_its_program() -> None:
    """Goal: the next metric is measured, and the failure has a name. Method: attempt an error."""

    def fail() -> float:
        raise ValueError("no luck")

    assert [*attempt("one", fail), *attempt("two", lambda: 2.0)] == [
        ("one", "ValueError: no luck"),
        ("two", 2.0),
    ]
    one = Measurement("sample", "ray", 0, missing={"one": "ValueError: no luck"})
    assert report.remarks([one]) == ["ray has no one: ValueError: no luck"]


def test_a_peer_that_cannot_be_installed_is_named_and_the_others_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: a machine without a network still gets a page. Method: an interpreter for Freehold
    alone; no process is started."""

    def interpreter(engine: str) -> str:
        if engine == "ray":
            raise RuntimeError("no network")
        return sys.executable

    monkeypatch.setattr(harness, "_interpreter", interpreter)
    monkeypatch.setattr(
        harness, "measure", lambda figure, engine, *_: Measurement(figure.name, engine, 0)
    )
    seen: list[Measurement] = []
    harness.run(figure(Metric("rate", "/s", "higher", "")), ["freehold", "ray"], 2, seen.append)
    assert [one.engine for one in seen] == ["ray", "freehold", "freehold"]
    assert report.remarks(seen) == ["ray failed: no network"]


def test_metrics_can_be_chosen() -> None:
    """Goal: bench-check need not measure whole figures. Method: choose one, then all again."""
    choose(["two"])
    try:
        assert [*attempt("one", lambda: 1.0), *attempt("two", lambda: 2.0)] == [("two", 2.0)]
    finally:
        choose([])
    assert [*attempt("one", lambda: 1.0)] == [("one", 1.0)]


def test_an_engine_that_keeps_failing_is_left_out() -> None:
    """Goal: a hanging peer costs two limits, not five. Method: the rule on measurements."""
    hung = Measurement("sample", "ray", 0, {"rate": 1.0}, error=f"{harness.HUNG} within 9 s")
    fine = Measurement("sample", "ray", 1, {"rate": 1.0})
    assert harness.hopeless([hung, hung], "ray")
    assert harness.hopeless([Measurement("sample", "ray", 0)] * 2, "ray")
    assert not harness.hopeless([hung, fine], "ray")
    assert not harness.hopeless([hung, hung], "dask")


def test_a_whole_program_costs_what_all_its_processes_do() -> None:
    """Goal: daemons count. Method: a program that ends at once and leaves a child behind, which
    then works for 0.3 s of processor time; and one that fails."""
    work = "import time\nwhile time.process_time() < 0.3: pass"
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    cost = whole.run([sys.executable, "-c", leave], dict(os.environ), 30)
    assert cost.processor >= 0.3
    with pytest.raises(RuntimeError, match=r"no luck \(exit code 1\)"):
        whole.run([sys.executable, "-c", "import sys; sys.exit('no luck')"], dict(os.environ), 30)


def test_processes_that_nobody_waits_for_count_too() -> None:
    """Goal: the time of a peer's workers counts though their parent ignores how they end. Method: a
    program that ignores SIGCHLD, whose child works for a second of processor time.
    """
    work = "import time\nwhile time.process_time() < 1.0: pass"
    ignore = (
        "import signal, subprocess, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', {work!r}]).wait()"
    )
    assert whole.run([sys.executable, "-c", ignore], dict(os.environ), 60).processor >= 0.4


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


def test_a_slow_engine_is_measured_less_often_and_a_fast_one_long_enough() -> None:
    """Goal: no figure takes minutes because a peer is slow. Method: count batches that take longer
    than the patience, and such that take no time."""
    calls: list[int] = []

    def batch() -> None:
        calls.append(1)
        time.sleep(0.02)

    clock.batch_rate(batch, 1, warm=0, least=9, period=0.001, patience=0.01)
    assert len(calls) == 2  # one to warm up, one that counts
    calls.clear()
    clock.batch_rate(batch, 1, warm=0, least=3, period=0.001)
    assert len(calls) == 4


def test_the_record_keeps_what_the_page_shows(tmp_path: Path) -> None:
    """Goal: a figure measured again replaces that figure alone. Method: an older run of two
    figures, a newer of one; what is kept and read again says the same."""
    old = record.Run({"date": "1"}, [Measurement("a", "ray", 0), Measurement("b", "ray", 0)])
    new = record.Run({"date": "2"}, [Measurement("b", "ray", 0, {"rate": 1.0})])
    runs = {"old": old, "new": new}
    shown = {name: record.newest(runs, name) or "" for name in ("a", "b")}
    assert shown == {"a": "old", "b": "new"}
    path = tmp_path / "record.jsonl"
    record.write(path, shown, runs)
    kept = record.read([path, tmp_path / "absent.jsonl"])
    assert kept == {"old": record.Run({"date": "1"}, old.measured[:1]), "new": new}


def test_a_page_shows_each_figure_with_its_verdicts() -> None:
    """Goal: the page says what is missed, what failed, and links to what exists. Method: one figure
    that misses a target, whose peer failed in a round."""
    metric = Metric("rate", "/s", "higher", "so fast", (Target(3, "ray"),), spent_on="in waiting")
    several = [
        *measured("rate", freehold=[2.0, 2.0], ray=[1.0]),
        Measurement("sample", "ray", 1, error="no luck (exit code 1)"),
    ]
    facts = dict.fromkeys(("date", "source", "command", "processor", "memory", "kernel"), "x")
    text = page.markdown([page.Section(figure(metric), "1", several)], {"1": facts}, ["p.svg"])
    assert "| rate | 2 /s | 2x |  |  |  |  | ≥ 3x ray | missed: ≥ 3x ray |" in text
    assert "* sample, rate: in waiting." in text
    assert "* ray failed: no luck (exit code 1)" in text
    assert "0 of 1 targets met." in text
    assert "(#sample)" in text
    assert "### sample" in text


# --- bench-check --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "found", "verdict", "failed"),
    [
        (10.0, 8.1, "ok", False),
        (10.0, 7.9, "worse", True),
        (10.0, 11.9, "ok", False),
        (10.0, 12.1, "better", False),
        (10.0, None, "not measured", True),
        (None, 5.0, "not recorded", False),
        (None, None, "not measured", False),
    ],
)
def test_a_ratio_fails_when_it_is_a_fifth_worse_or_gone(
    recorded: float | None, found: float | None, verdict: str, failed: bool
) -> None:
    """Goal: the rule of bench-check. Method: both sides of each bound, and either value absent."""
    one = check.Comparison("a.b/c", recorded, found)
    assert (one.verdict, one.failed) == (verdict, failed)


def test_checked_ratios_exist() -> None:
    """Goal: no ratio is checked that nobody can measure. Method: look each up."""
    for name, metric, peer in check.RATIOS:
        found = figures.find(name)
        assert metric in {one.name for one in found.metrics}
        assert peer in found.engines


def test_a_burst_of_noise_is_outvoted_and_a_regression_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: what seems worse is measured again and judged by the median of all rounds. Method: the
    command on made-up measurements: first slow, then as recorded; then slow both times; then
    recorded anew."""
    monkeypatch.setattr(check, "RATIOS", (("sample", "rate", "floor"),))
    monkeypatch.setattr(check, "RECORDED", tmp_path / "recorded.json")
    metric = Metric("rate", "/s", "higher", "")
    monkeypatch.setattr(figures, "find", lambda name: figure(metric))
    batches: list[list[float]] = []
    monkeypatch.setattr(
        check,
        "measure",
        lambda names, engines, rounds: measured(
            "rate", freehold=(ours := batches.pop(0)), floor=[10.0] * len(ours)
        ),
    )
    (tmp_path / "recorded.json").write_text('{"ratios": {"sample.rate/floor": 1.0}}')

    def run(*options: str, values: list[list[float]]) -> int:
        batches[:] = values
        code = CliRunner().invoke(check.main, options).exit_code
        assert not batches
        return code

    assert run(values=[[10.0, 9.0, 10.0]]) == 0
    assert run(values=[[5.0, 5.0, 10.0], [10.0, 10.0, 9.0]]) == 0
    assert run(values=[[5.0, 5.0, 10.0], [5.0, 5.0, 6.0]]) == 1
    assert run("--record", values=[[5.0, 5.0, 5.0]]) == 0
    assert run(values=[[5.0, 5.0, 5.0]]) == 0


def test_a_busy_machine_records_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: no record that a regression could hide behind. Method: record with others at 60 %."""
    monkeypatch.setattr(check, "RATIOS", ())
    monkeypatch.setattr(check, "RECORDED", tmp_path / "recorded.json")
    busy = [Measurement("sample", "freehold", 0, {"rate": 1.0}, others=0.6)]
    monkeypatch.setattr(check, "measure", lambda *_: busy)
    done = CliRunner().invoke(check.main, ["--record"])
    assert done.exit_code == 1
    assert "others used 60% of the machine" in done.output
    assert "record when the machine is quiet" in done.output
    assert not check.RECORDED.exists()
