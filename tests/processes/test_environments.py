"""Runtime environments across nodes and deaths, in real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import freehold as fh
from freehold import errors
from freehold.testing import Cluster
from processes.programs import Program, until

SECONDS = 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of environments for this test alone."""
    monkeypatch.setenv("FREEHOLD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """Two nodes: the driver's, and one with another resource."""
    with Cluster(1, num_cpus=1) as two:
        two.add_node(num_cpus=1, resources={"far": 1})
        fh.init(address=two.address, log_to_driver=False)
        yield two
        fh.shutdown()


@fh.remote
def read(name: str) -> tuple[str, bytes]:
    return str(Path.cwd()), Path(name).read_bytes()


def test_a_package_travels_between_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Goal: a working_dir arrives whole at a node that has not got it, also from a node that is
    not the driver's; when the cluster ends nothing is left of it.

    Method: 5 MB that do not compress, in five parts; a task on the far node hands its environment
    down to a child on the near one."""
    program = tmp_path / "program"
    program.mkdir()
    data = os.urandom(5 << 20)
    (program / "data.bin").write_bytes(data)
    far = read.options(runtime_env={"working_dir": program}, resources={"far": 1})

    @fh.remote(runtime_env={"working_dir": program}, resources={"far": 1}, num_cpus=0)
    def down() -> Any:
        return fh.get(read.options(num_cpus=1).remote("data.bin"))

    where, found = fh.get(far.remote("data.bin"), timeout=SECONDS)
    assert found == data
    assert cluster.nodes[1].node_id in where
    assert fh.get(down.remote(), timeout=SECONDS)[1] == data
    fh.shutdown()
    cluster.shutdown()
    assert not cluster.session.exists()


def test_an_environment_outlives_its_zygote(cluster: Cluster) -> None:
    """Goal: a zygote of an environment that is killed takes its workers along, whose task runs
    again, from another zygote.

    Method: a task that kills its parent, the first time."""
    marker = cluster.session / "killed"

    @fh.remote(runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}}, max_retries=2)
    def kills(marker: str) -> str | None:
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        return os.environ.get("OMP_NUM_THREADS")

    assert fh.get(kills.remote(str(marker)), timeout=SECONDS) == "1"


def test_a_node_that_is_killed_leaves_nothing_of_its_environments(
    home: Path, tmp_path: Path
) -> None:
    """Goal: with a daemon go the zygotes of environments, their workers and what was unpacked.

    Method: a worker of such a zygote is at work when the daemon is killed."""
    program = tmp_path / "program"
    program.mkdir()
    (program / "file").write_text("x")
    environment = {"working_dir": program, "env_vars": {"OMP_NUM_THREADS": "1"}}
    with Cluster(2, num_cpus=1) as two:
        fh.init(address=two.address, log_to_driver=False)

        @fh.remote(runtime_env=environment, max_retries=0)
        def family(path: str) -> None:
            Path(path).write_text(f"{os.getpid()} {os.getppid()}")
            signal.pause()

        notes = [tmp_path / f"note{index}" for index in range(2)]
        refs = [family.remote(str(note)) for note in notes]
        until(lambda: all(note.exists() and note.read_text() for note in notes), SECONDS)
        pids = [int(pid) for note in notes for pid in note.read_text().split()]
        two.kill_node(two.nodes[1])

        def gone() -> bool:
            return sum(psutil.pid_exists(pid) for pid in pids) == 2

        until(gone, SECONDS)
        with pytest.raises(errors.FreeholdError):
            fh.get(refs, timeout=SECONDS)
        fh.shutdown()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), SECONDS)


def namespaces() -> bool:
    """Whether this machine lets us make a mount namespace."""
    unshare = shutil.which("unshare")
    return (
        unshare is not None and not subprocess.run([unshare, "-m", "true"], check=False).returncode
    )


@pytest.mark.skipif(not namespaces(), reason="mount namespaces cannot be made here")
def test_a_driver_whose_files_nobody_else_sees(home: Path, tmp_path: Path) -> None:
    """Goal: a program imports from the file beside it, and its tasks run on nodes that do not have
    that file, with no word about it in the program.

    Method: the program lives in a file system that is mounted in its own namespace only."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    inside = 'mount -t tmpfs none "$0" && cd "$0" && exec "$@"'
    with Cluster(1, num_cpus=1) as one:
        program = Program(
            home,
            """
            from pathlib import Path
            Path("helpers.py").write_text("def double(x): return 2 * x")
            sys.path.insert(0, os.getcwd())
            import helpers

            @fh.remote
            def task(x):
                return helpers.double(x), os.path.exists(helpers.__file__)

            fh.init(address=sys.argv[1])
            say(fh.get(task.remote(21)))
            """,
            one.address,
            before=["unshare", "-m", "--propagation", "private", "sh", "-c", inside, str(folder)],
        )
        assert program.line() == "(42, False)"
        program.end()
