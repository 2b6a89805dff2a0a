"""The commands, on a cluster made of nothing (see conftest): what they print and exit with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from freehold.cli import sort as command
from freehold.errors import TaskError
from freehold.shuffle import auto, files
from freehold.shuffle.files import RecordFileError


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command.sort, [str(argument) for argument in arguments])


def test_make_sort_and_check(fake: Any, tmp_path: Path) -> None:
    """Goal: the three commands work together and say what they did. Method: 1,000 records in
    three files; the table names every stage and the node; check counts and compares.
    """
    made = invoke("gen", "--records", "1_000", "--files", 3, tmp_path / "in")
    assert (made.exit_code, "1,000 records in 3 files" in made.output) == (0, True)
    ran = invoke("run", tmp_path / "in", tmp_path / "out", "--partitions", 2)
    assert ran.exit_code == 0, ran.output
    assert "1,000 records, 100,000 bytes, 1 blocks x 2 partitions" in ran.output
    assert "strategy simple (2 parts of 50,000 bytes: no need to merge them first)" in ran.output
    for word in ("plan", "sample", "map", "reduce", "total", "here: 0"):
        assert word in ran.output
    checked = invoke("check", tmp_path / "out", "--against", tmp_path / "in")
    assert checked.exit_code == 0, checked.output
    assert "in order, checksum 1ea6370b955, 0 duplicate keys" in checked.output
    assert "the same records as the input" in checked.output
    assert fake.options is None  # shut down


def test_progress_is_plain_lines_when_nobody_watches(fake: Any, tmp_path: Path) -> None:
    """Goal: a log gets at most ten lines a stage. Method: the output is not a terminal here."""
    made = invoke("gen", "--records", 20_000, tmp_path / "in")
    assert made.stderr.splitlines()[-1] == "generate: 2 of 2 MB"


def test_progress_is_a_bar_for_each_stage_on_a_terminal(capsys: Any) -> None:
    """Goal: a stage that runs twice (a check of two folders) has two bars, none ends early.
    Method: feed the live bar and read what it last drew.
    """
    with command._live_progress() as tell:
        for stage, done in [("map", 5), ("map", 10), ("reduce", 10), ("reduce", 10)]:
            tell(stage, done, 10)
    drawn = capsys.readouterr().err
    assert (drawn.count("map"), drawn.count("reduce")) == (1, 2)
    assert drawn.count("10/10") == 3


def test_check_fails_on_disorder_and_on_other_records(fake: Any, tmp_path: Path) -> None:
    """Goal: status 1, and the reason with the place. Method: check unsorted records; then a
    sorted folder with one record's payload changed.
    """
    invoke("gen", "--records", 100, "--files", 1, tmp_path / "in")
    unsorted = invoke("check", tmp_path / "in")
    assert unsorted.exit_code == 1
    assert f"the first at record 2 of {tmp_path / 'in' / 'part-00000'}" in unsorted.output
    invoke("run", tmp_path / "in", tmp_path / "out")
    (part,) = files.record_files(tmp_path / "out")
    data = bytearray(part.read_bytes())
    data[50] ^= 1
    part.write_bytes(data)
    altered = invoke("check", tmp_path / "out", "--input", tmp_path / "in")
    assert altered.exit_code == 1
    assert "does not hold the records of" in altered.output


def test_errors_are_one_line(fake: Any, tmp_path: Path) -> None:
    """Goal: no traceback for a wrong argument. Method: a missing folder, a size, a count, and
    an address together with nodes.
    """
    missing = invoke("run", tmp_path / "absent", tmp_path / "out")
    assert missing.output.startswith(f"Error: {tmp_path / 'absent'} does not exist")
    assert missing.exit_code == 1
    assert "'1 GX' is not a size" in invoke("run", "a", "b", "--object-store-memory", "1 GX").output
    assert "'-5' is not a whole number" in invoke("gen", "--records", "-5", "a").output
    assert "--address joins" in invoke("run", "a", "b", "--address", "x", "--nodes", 2).output
    assert "--address joins" in invoke("run", "a", "b", "--address", "x", "--spill-quota", 0).output
    assert "--spill-quota bounds" in (
        invoke("run", "a", "b", "--engine", "ray", "--spill-quota", "1GB").output
    )
    assert "give --nodes 2" in invoke("run", "a", "b", "--kill-node-at", 50).output
    assert "'shove' is not one of" in invoke("run", "a", "b", "--strategy", "shove").output


def test_the_strategies_offered_are_those_there_are() -> None:
    """Goal: the help, which must not import them, tells no lies. Method: compare."""
    assert (auto.NAME, *auto.STRATEGIES) == command.STRATEGIES


def test_a_node_is_killed_when_enough_is_done() -> None:
    """Goal: --kill-node-at counts what is mapped and what is reduced alike, and kills once.
    Method: 75 %: all mapped and half reduced; merges do not count.
    """
    nodes = [SimpleNamespace(alive=True, node_id=name) for name in ("first", "last")]
    killed: list[str] = []

    def kill(node: Any) -> None:
        node.alive = False
        killed.append(node.node_id)

    cluster: Any = SimpleNamespace(nodes=nodes, kill_node=kill)
    tell = command._killing(cluster, 75, lambda stage, done, total: None)
    for stage, done in [("map", 100), ("merge", 100), ("reduce", 49)]:
        tell(stage, done, 100)
    assert killed == []
    for done in (50, 100):
        tell("reduce", done, 100)
    assert killed == ["last"]


def test_several_strategies_write_the_same_bytes(fake: Any, tmp_path: Path) -> None:
    """Goal: --strategy is passed on, and told. Method: sort by rounds; look for its merges."""
    invoke("gen", "--records", 1000, tmp_path / "in")
    ran = invoke("run", tmp_path / "in", tmp_path / "out", "--strategy", "push")
    assert ran.exit_code == 0, ran.output
    assert "strategy push\n" in ran.output
    assert "merge: " in ran.output


def test_bad_input_met_by_a_task_is_one_line_too(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the remote traceback is not shown for the user's own mistake. Method: the sort fails
    with what a task's RecordFileError arrives as.
    """

    def failing(*_: Any, **__: Any) -> None:
        raise TaskError("map", RecordFileError("in/torn was cut short"), traceback_text="File...")

    invoke("gen", "--records", 10, tmp_path / "in")
    monkeypatch.setattr("freehold.shuffle.sort.sort", failing)
    ran = invoke("run", tmp_path / "in", tmp_path / "out")
    assert ran.output.splitlines()[-1] == "Error: in/torn was cut short"


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("512MiB", 512 << 20),
        ("1GiB", 1 << 30),
        ("6GB", 6 * 10**9),
        ("1.5TB", 15 * 10**11),
        ("1048576", 1 << 20),
        ("10 MB", 10**7),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, bytes_: int) -> None:
    """Goal: decimal and binary units. Method: a table."""
    assert command.size(text) == bytes_


def test_memory_reaches_the_cluster(fake: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Goal: --object-store-memory and --spill-quota are passed on in bytes. Method: look at
    init's options, with both and with neither.
    """
    invoke("gen", "--records", 10, tmp_path / "in")
    seen: list[Any] = []
    monkeypatch.setattr("freehold.init", lambda *_, **options: seen.append(options))
    limits = ("--object-store-memory", "512MiB", "--spill-quota", "1GB")
    for options in ((), limits):
        ran = invoke("run", tmp_path / "in", tmp_path / "out", "--overwrite", *options)
        assert ran.exit_code == 0, ran.output
    assert seen == [
        {"object_store_memory": None, "spill_quota": None},
        {"object_store_memory": 512 << 20, "spill_quota": 1_000_000_000},
    ]
