"""``freehold start``, ``stop`` and ``status`` as a user types them, with real daemons."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import freehold as fh
from freehold.cli.main import main
from processes.programs import Program, left_after, named, processes, until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder for this test alone; whatever it started is stopped."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("FREEHOLD_HOME", str(folder))
    monkeypatch.delenv("FREEHOLD_TOKEN", raising=False)
    yield folder
    monkeypatch.setenv("FREEHOLD_HOME", str(folder))
    freehold("stop", "--all")
    assert left_after(folder) == []


def freehold(*arguments: object, stdin: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def start_head(*arguments: object) -> str:
    """Start a cluster of one CPU. Returns the head's address."""
    started = freehold("start", "--head", "--num-cpus", 1, *arguments)
    assert started.exit_code == 0, started.output
    match = re.search(r"Started a cluster at (\S+):", started.output)
    assert match is not None
    return match[1].rstrip(":")


@fh.remote
def where() -> str:
    """The node that runs it."""
    return fh.get_runtime_context().get_node_id()


# --- the life of a cluster ----------------------------------------------------------------------


def test_a_cluster_from_start_to_stop(home: Path) -> None:
    """Goal: the whole round works as the output says. Method: start a head, join a second node
    with a resource of its own, connect by "auto" and by address, run on both, look, stop."""
    address = start_head("--labels", "zone=a,disk=ssd")
    joined = freehold("start", "--address", address, "--num-cpus", 1, "--resources", '{"disk": 4}')
    assert joined.exit_code == 0, joined.output
    assert f"Joined the cluster at {address}" in joined.output
    for name in ("auto", address, f"localhost:{address.partition(':')[2]}"):
        with fh.init(address=name) as session:
            assert session["address"] == address
            there = where.options(resources={"disk": 1}).remote()
            assert len({fh.get(there), *fh.get([where.remote() for _ in range(2)])}) >= 1
            assert {node["Labels"].get("zone") for node in fh.nodes()} == {"a", None}
    until(lambda: "0 jobs" in freehold("status").output)  # the head hears of its end a moment later
    shown = freehold("status")
    assert shown.exit_code == 0, shown.output
    assert f"Cluster at {address}: 2 nodes, 0 jobs" in shown.output
    assert "CPU 0/1, disk 0/4, memory 0 B/" in shown.output
    stopped = freehold("stop", "--address", address)
    assert stopped.output == "Stopped: 2 nodes, 1 head.\n"
    assert left_after(home) == []


def test_no_cluster_is_told_as_such(home: Path) -> None:
    """Goal: nothing to show and nothing to stop are clear, and status says so by its status.
    Method: an empty home."""
    shown = freehold("status")
    assert (shown.exit_code, "No cluster runs on this machine" in shown.output) == (1, True)
    assert freehold("stop").output == "Nothing to stop.\n"
    assert freehold("stop", "--address", "127.0.0.1:1").exit_code == 0


def test_status_shows_jobs_and_what_is_in_use(home: Path) -> None:
    """Goal: who uses what is seen from outside. Method: a program holds the CPU and 4 MiB of the
    store while we look; then it is killed."""
    address = start_head()
    text = """
    fh.init(address=sys.argv[1])

    @fh.remote
    def nap():
        say("asleep")
        time.sleep(60)

    kept = fh.put(bytes(4 << 20))
    ref = nap.remote()
    time.sleep(60)
    """
    with Program(home, text, address) as program:
        assert "asleep" in program.line()
        shown = freehold("status", "--address", address).output
        assert "1 node, 1 job" in shown
        assert "CPU 1/1" in shown
        assert "4 MiB/" in shown
        assert f"pid {program.pid}" in shown
        program.kill()
        until(lambda: "1 node, 0 jobs" in freehold("status").output, 3)
    assert "CPU 0/1" in freehold("status").output


def test_a_second_cluster_is_another_one(home: Path) -> None:
    """Goal: a further --head does not join, and says so; stop takes the one that is named.
    Method: two heads; stop the first."""
    first = start_head()
    second = freehold("start", "--head", "--num-cpus", 1)
    assert f"already runs a head at {first}" in second.output
    assert freehold("status").output.count("Cluster at") == 2
    assert freehold("stop", "--address", first).output == "Stopped: 1 node, 1 head.\n"
    assert freehold("status").output.count("Cluster at") == 1


def test_stop_leaves_programs_own_clusters_alone(home: Path) -> None:
    """Goal: `stop` ends what `start` started; --all ends the rest too. Method: a program with a
    cluster of its own beside a started one."""
    start_head()
    with Program(home, "fh.init(num_cpus=1)\nsay('up')\ntime.sleep(60)") as program:
        assert program.line() == "up"
        assert freehold("stop").output == "Stopped: 1 node, 1 head.\n"
        assert len(named(home, "freehold-node")) == 1
        assert freehold("stop", "--all").output == "Stopped: 1 node, 1 head.\n"
        assert set(processes(home)) == {program.pid}


def test_stop_ends_what_does_not_listen(home: Path) -> None:
    """Goal: a daemon that hangs is killed after a while. Method: SIGSTOP the node first."""
    start_head()
    (pid,) = named(home, "freehold-node")
    os.kill(pid, signal.SIGSTOP)
    assert freehold("stop").output == "Stopped: 1 node, 1 head.\n"
    assert left_after(home) == []


def test_block_stays_and_takes_the_node_along(home: Path) -> None:
    """Goal: for service managers: the command lives as long as the node and ends it when told to.
    Method: start with --block, SIGTERM it."""
    command = [sys.executable, "-c", "from freehold.cli.main import main; main()"]
    with subprocess.Popen(
        [*command, "start", "--head", "--num-cpus", "1", "--block"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "Ctrl-C stops it" not in process.stdout.readline():
            assert process.poll() is None
        assert len(named(home, "freehold-node")) == 1
        process.terminate()
        assert process.wait(10) == 0
        assert "Stopped." in process.stdout.read()
    assert left_after(home) == []


# --- other machines -----------------------------------------------------------------------------


def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that knows nothing of the cluster, as another machine has it."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    monkeypatch.setenv("FREEHOLD_HOME", str(other))
    return other


@pytest.mark.parametrize("way", ["file", "standard input", "environment"])
def test_another_machine_joins_with_the_token(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Goal: the token comes by file, standard input or environment, never by an argument; the
    session there belongs to its user alone. Method: join from another home; a task runs there."""
    address = start_head()
    token = next(home.glob("s-*/token")).read_text()
    other = other_machine(tmp_path, monkeypatch)
    arguments: list[object] = ["start", "--address", address, "--num-cpus", 1]
    if way == "file":
        (tmp_path / "token").write_text(token + "\n")
        (tmp_path / "token").chmod(0o600)
        joined = freehold(*arguments, "--token-file", tmp_path / "token")
    elif way == "standard input":
        joined = freehold(*arguments, "--token-file", "-", stdin=token)
    else:
        monkeypatch.setenv("FREEHOLD_TOKEN", token)
        joined = freehold(*arguments)
    assert joined.exit_code == 0, joined.output
    with fh.init(address=address) as session:
        assert session["session"].startswith(str(other))
        assert len([node for node in fh.nodes() if node["Alive"]]) == 2
        assert fh.get(where.remote())
    for pid in named(other, "freehold-node"):
        assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert freehold("stop").output == "Stopped: 1 node, 0 heads.\n"
    assert left_after(other) == []


def test_status_from_another_machine_needs_the_token(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: nobody looks without the token. Method: none, a wrong one, the right one."""
    address = start_head()
    token = next(home.glob("s-*/token")).read_text()
    other_machine(tmp_path, monkeypatch)
    assert "no token for" in freehold("status", "--address", address).output
    monkeypatch.setenv("FREEHOLD_TOKEN", "w" * 64)
    assert "our token is not that" in freehold("status", "--address", address).output
    monkeypatch.setenv("FREEHOLD_TOKEN", token)
    assert "1 node" in freehold("status", "--address", address).output


# --- what can be wrong --------------------------------------------------------------------------


def failed(*arguments: object, **options: str) -> str:
    """Run a command that must fail with one line and no daemon left. Returns the line."""
    result = freehold(*arguments, **options)
    assert result.exit_code not in (0, None), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_arguments_that_cannot_be_meant(home: Path) -> None:
    """Goal: each wrong argument is named with its remedy, before anything is started. Method: one
    of each."""
    assert "either --head" in failed("start")
    assert "either --head" in failed("start", "--head", "--address", "127.0.0.1:1")
    assert "--port is the head's" in failed("start", "--address", "127.0.0.1:1", "--port", 7)
    assert "not HOST:PORT" in failed("start", "--address", "nonsense")
    assert "not a host that is known" in failed("start", "--address", "no-such-host.invalid:1")
    assert "num_cpus must be" in failed("start", "--head", "--num-cpus", -1)
    assert "object_store_memory" in failed("start", "--head", "--object-store-memory", "1KiB")
    assert "not a size" in failed("start", "--head", "--spill-quota", "much")
    assert "not a JSON object" in failed("start", "--head", "--resources", "disk=4")
    assert "use num_cpus=" in failed("start", "--head", "--resources", '{"CPU": 4}')
    assert "not NAME=VALUE" in failed("start", "--head", "--labels", "zone")
    assert "not a folder" in failed("start", "--head", "--spill-folder", home / "absent")
    assert "write file:///a/b" in failed("start", "--head", "--spill-folder", "file://a/b")
    assert list(home.iterdir()) == []


def test_addresses_that_cannot_be_listened_on(home: Path) -> None:
    """Goal: no daemon on every interface, none on an address that is not ours; a taken port is
    told. Method: 0.0.0.0, an address from the documentation range, a port that a socket holds."""
    assert "no address that others can be told" in failed("start", "--head", "--host", "0.0.0.0")
    assert "name an address of this machine" in failed("start", "--head", "--host", "192.0.2.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 cannot be used" in failed(
            "start", "--head", "--port", port
        )
    assert list(home.iterdir()) == []


def test_heads_that_cannot_be_joined(home: Path, tmp_path: Path) -> None:
    """Goal: nothing there, another program there, another version, a wrong token and no token are
    told apart. Method: join each, some of them played by a socket."""
    (tmp_path / "token").write_text("t" * 64)
    (tmp_path / "token").chmod(0o600)
    token = ("--token-file", tmp_path / "token")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "Connection refused" in failed("start", "--address", f"127.0.0.1:{port}", *token)
    for answer, words in (
        (b"220 mail.example.org ESMTP" + bytes(40), "not a Freehold process"),
        (b"FREEHOLD\x63" + bytes(32), "speaks protocol version 99"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:
            text = f"import socket; s = socket.socket(fileno={server.fileno()}); c = s.accept()[0];"
            text += f"c.sendall({answer!r}); c.recv(1)"
            with subprocess.Popen([sys.executable, "-c", text], pass_fds=[server.fileno()]):
                address = f"127.0.0.1:{server.getsockname()[1]}"
                assert words in failed("start", "--address", address, *token)
    address = start_head()
    assert "our token is not that" in failed("start", "--address", address, *token)
    assert "no token" in failed("start", "--address", "127.0.0.1:1")


def test_tokens_that_are_refused(home: Path, tmp_path: Path) -> None:
    """Goal: a token that others can read or guess is none. Method: modes, an empty file, one that
    is not there."""
    path = tmp_path / "token"
    path.write_text("t" * 64)
    path.chmod(0o644)
    assert "can be read by others" in failed("start", "--head", "--token-file", path)
    path.chmod(0o600)
    path.write_text("short")
    assert "too short" in failed("start", "--head", "--token-file", path)
    assert "No such file" in failed("start", "--head", "--token-file", tmp_path / "absent")


def test_nothing_listens_beyond_loopback(home: Path) -> None:
    """Goal: by default nobody else can even connect. Method: the listening sockets of all
    processes of the cluster, from the kernel's table."""
    start_head()
    inodes = set()
    for pid in processes(home):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
            except OSError:
                continue
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                listening.append(columns[1].partition(":")[0])
    assert listening == ["0100007F"] * 2  # the head and the node


# --- the command itself -------------------------------------------------------------------------


def test_help_imports_no_runtime() -> None:
    """Goal: `freehold --help` is quick. Method: run it in a fresh interpreter and look which
    modules it has imported: numpy and the commands are not among them."""
    text = (
        "import sys\nfrom freehold.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'freehold.cli.cluster', 'freehold.cli.sort'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    for word in ("start", "stop", "status", "sort"):
        assert re.search(rf"^  {word} ", run.stdout, re.MULTILINE)


def test_unknown_commands_and_version(home: Path) -> None:
    """Goal: the usual manners of a command. Method: a wrong name; --version."""
    assert "No such command 'strat'" in failed("strat")
    assert freehold("--version").output == f"freehold {fh.__version__}\n"
    for command in ("start", "stop", "status", "sort"):
        assert freehold(command, "--help").exit_code == 0


def test_the_module_is_the_command() -> None:
    """Goal: ``python -m freehold`` works where the script is not on the path. Method: ask for the
    version and for nothing."""
    command = [sys.executable, "-m", "freehold"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert fh.__version__ in version.stdout
    wrong = subprocess.run([*command, "strat"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "python -m freehold" in wrong.stderr
