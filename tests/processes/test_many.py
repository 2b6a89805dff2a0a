"""More workers than a process may usually have open files."""

from __future__ import annotations

import textwrap
from pathlib import Path

from processes.programs import Program, left_after

ACTORS = """
@fh.remote
class Member:
    def where(self):
        return os.getpid()

fh.init(num_cpus=1)
"""


def limited(how: str) -> list[str]:
    """The beginning of a command that runs under other limits."""
    return ["sh", "-c", f'ulimit {how} && exec "$@"', "sh"]


def test_the_usual_limit_is_not_the_limit(home: Path) -> None:
    """Goal: the usual 1,024 open files do not limit the workers of a node, nor the actors that one
    program calls; workers keep it, for select(). Method: a limit of 64, and 70 actors; the zygote
    and the program have a descriptor for each.
    """
    text = """
    import resource

    @fh.remote
    def usual():
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    members = [Member.remote() for _ in range(70)]
    say(len(set(fh.get([member.where.remote() for member in members]))), fh.get(usual.remote()))
    """
    with Program(home, ACTORS + textwrap.dedent(text), before=limited("-Sn 64")) as program:
        assert program.line(60) == "70 64"
    assert left_after(home) == []


def test_at_the_hard_limit_the_node_says_so_and_lives(home: Path) -> None:
    """Goal: a node that can have no more workers refuses them with the reason, and goes on with
    those that it has. Method: a limit that leaves eight; twelve actors.
    """
    text = """
    members = [Member.remote() for _ in range(12)]
    made = refused = 0
    for member in members:
        try:
            fh.get(member.where.remote())
            made += 1
        except fh.errors.ActorDiedError as error:
            assert "160 files open, enough for 8 workers" in str(error), error
            refused += 1
    say(made + refused, made)
    del member
    members.clear()
    say(fh.get(fh.remote(lambda: "well").remote()))
    """
    with Program(home, ACTORS + textwrap.dedent(text), before=limited("-n 160")) as program:
        assert program.line(60) == "12 8"
        assert program.line(60) == "well"
    assert left_after(home) == []
