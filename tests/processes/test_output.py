"""What tasks print: it reaches the program that submitted them, whole and marked, or the report of
a death.

Programs run as processes of their own (``programs``), because what is tested is what stands on
their real standard output and error.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processes.programs import Program

PREFIX = r"\(pid=\d+, node=[0-9a-f]{8}\) "


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder for this test alone."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def run(home: Path, body: str, *, options: str = "", cpus: int = 1) -> tuple[str, str]:
    """Run a program that defines ``task`` and submits it as ``body`` says. Returns what it wrote
    on stdout and stderr; it must end with status 0. It ends as soon as its tasks are done."""
    text = f"fh.init(num_cpus={cpus}{options})\n{body}\n"
    with Program(home, text) as program:
        code, out, err = program.end(30)
    assert code == 0, err
    return out, err


def test_print_stderr_and_raw_writes_arrive_with_their_worker(home: Path) -> None:
    """Goal: whatever way a task writes, it arrives on the same stream, marked with process and
    node. Method: print, sys.stderr, os.write and a child process, once each."""
    out, err = run(
        home,
        """
@fh.remote
def task():
    import subprocess
    print("by print")
    sys.stderr.write("by stderr\\n")
    os.write(1, b"by os.write\\n")
    os.write(2, b"by os.write to 2\\n")
    subprocess.run(["sh", "-c", "echo by a child"])
    return os.getpid()

say("worker", fh.get(task.remote()))
""",
    )
    (pid,) = re.findall(r"^worker (\d+)$", out, re.MULTILINE)
    assert set(re.findall(rf"^{PREFIX}(.*)$", out, re.MULTILINE)) == {
        "by print",
        "by os.write",
        "by a child",
    }
    assert set(re.findall(rf"^{PREFIX}(.*)$", err, re.MULTILINE)) == {
        "by stderr",
        "by os.write to 2",
    }
    assert set(re.findall(r"\(pid=(\d+)", out + err)) == {pid}


def test_repeated_lines_are_folded(home: Path) -> None:
    """Goal: a line that a thousand tasks print is shown once and counted; different lines are all
    shown. Method: 1,000 tasks print the same line and ten another each."""
    out, _ = run(
        home,
        """
@fh.remote
def task(i):
    print("the same")
    if i % 100 == 0:
        print("line", i)

fh.get([task.remote(i) for i in range(1000)])
""",
    )
    assert len(re.findall(rf"^{PREFIX}the same$", out, re.MULTILINE)) == 1
    assert "the same [repeated 999x]" in out
    assert len(re.findall(rf"^{PREFIX}line \d+$", out, re.MULTILINE)) == 10


def test_log_to_driver_false_silences(home: Path) -> None:
    """Goal: a program may want none of it. Method: the same task with and without."""
    body = """
@fh.remote
def task():
    print("spoken")
    sys.stderr.write("spoken\\n")

fh.get(task.remote())
"""
    out, err = run(home, body)
    assert "spoken" in out
    assert "spoken" in err
    out, err = run(home, body, options=", log_to_driver=False")
    assert "spoken" not in out + err


def test_long_lines_unfinished_lines_and_junk(home: Path) -> None:
    """Goal: nothing that a task writes is lost or breaks the program. Method: a line of 300 KB;
    text without a newline at the end, which comes after a moment; bytes that are no UTF-8;
    empty lines; a carriage return."""
    out, _ = run(
        home,
        """
@fh.remote
def task():
    print("x" * 300_000)
    os.write(1, b"junk \\xff\\xfe\\x00 end\\n")
    print()
    print("50 %\\r100 %")
    sys.stdout.write("unfinished")
    sys.stdout.flush()

fh.get(task.remote())
time.sleep(0.4)  # longer than an unfinished line waits for its end
""",
    )
    assert re.search(rf"^{PREFIX}x{{300000}}$", out, re.MULTILINE)
    assert "junk \ufffd\ufffd\x00 end\n" in out
    assert "50 %\r100 %\n" in out
    assert re.search(rf"^{PREFIX}unfinished$", out, re.MULTILINE)


def test_a_lot_of_output_arrives_whole_and_in_order(home: Path) -> None:
    """Goal: output faster than a pipe holds is not lost. Method: 50,000 numbered lines, then
    read them all."""
    out, _ = run(
        home,
        """
@fh.remote
def task():
    for i in range(50_000):
        print("n", i)

fh.get(task.remote())
""",
    )
    numbers = [int(n) for n in re.findall(rf"^{PREFIX}n (\d+)$", out, re.MULTILINE)]
    assert numbers == list(range(50_000))


CRASH = """
@fh.remote(max_retries=0)
def task():
    print("last words on stdout")
    sys.stderr.write("last words on stderr\\n")
    os.write(2, b"no newline")
    CRASH

try:
    fh.get(task.remote())
except fh.errors.WorkerDiedError as error:
    say("DIED", str(error).replace("\\n", "|"))
"""


@pytest.mark.parametrize(
    ("crash", "how"),
    [
        ("os._exit(7)", "exit code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_what_was_said_before_a_crash(home: Path, crash: str, how: str) -> None:
    """Goal: the last words of a worker reach both the terminal and the error. Method: a task
    writes and at once exits, kills itself, or reads address 0."""
    out, err = run(home, CRASH.replace("CRASH", crash))
    (report,) = re.findall(r"^DIED (.*)$", out, re.MULTILINE)
    assert "last words on stderr" in report
    assert "no newline" in report
    assert how in report
    assert re.search(rf"^{PREFIX}last words on stdout$", out, re.MULTILINE)
    assert re.search(rf"^{PREFIX}last words on stderr$", err, re.MULTILINE)


def test_a_program_that_closed_its_output_goes_on(home: Path) -> None:
    """Goal: printing for workers never ends the program. Method: close sys.stdout, then have a
    task print."""
    _, err = run(
        home,
        """
@fh.remote
def task():
    print("to nobody")
    return 1

sys.stdout.close()
sys.stdout = open(os.devnull, "w")
sys.stdout.close()
for _ in range(3):
    assert fh.get(task.remote()) == 1
    time.sleep(0.1)
""",
    )
    assert "Traceback" not in err


def test_output_of_two_programs_is_not_mixed(home: Path) -> None:
    """Goal: on one cluster each program sees what its own tasks print. Method: two programs, one
    in the other's cluster, print different words."""
    host = """
with fh.init(num_cpus=2) as session:
    say(session["address"])

    @fh.remote
    def task(word):
        print(word)

    fh.get(task.remote("of the host"))
    time.sleep(3.0)
"""
    guest = """
fh.init(address=sys.argv[1])

@fh.remote
def task(word):
    print(word)

fh.get(task.remote("of the guest"))
"""
    with Program(home, host) as first:
        address = first.line()
        with Program(home, guest, address) as second:
            code, theirs, err = second.end()
            assert code == 0, err
        _, ours, _ = first.end()
    assert "of the host" in ours
    assert "of the guest" in theirs
    assert "of the guest" not in ours
    assert "of the host" not in theirs
