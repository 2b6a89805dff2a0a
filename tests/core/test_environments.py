"""Environments at a node: what is asked for, fetched and made, once; and what happens when it is
not to be had."""

from __future__ import annotations

import pytest

from core.making import Making
from core.world import World, node, process
from freehold.core.environments import KEPT_BYTES, KEPT_ZYGOTES, Environments, Made
from freehold.ids import NodeId
from freehold.wire.environments import (
    PART_BYTES,
    AddPackage,
    DescribeEnvironment,
    Environment,
    EnvironmentDescribed,
    Furnished,
    Installation,
    Package,
    PackagePart,
    PackagePlace,
    PullPackage,
    key_of,
)
from freehold.wire.messages import Address

HERE, HOME, NEAR = node("node"), node("home"), node("near")
OWNER = process("owner", "near")
DRIVER = process("driver")


def package(name: str, size: int = 10) -> Package:
    return Package(name.encode().ljust(16, b"."), name, size, HOME)


class Bench:
    """The environments of a node that knows two others."""

    def __init__(self, world: World) -> None:
        world.address = HERE
        self.world = world
        self.maker = Making()
        self.machine = Environments(world, self.maker)
        self.machine.node_of = self.node_of
        self.machine.in_use = lambda: self.used
        self.machine.changed = self.changed
        self.machine.refused = lambda key, words: self.refused.append((key, words))
        self.living = [HERE, HOME, NEAR]
        self.used: set[bytes] = set()
        self.ready: list[bytes] = []
        self.refused: list[tuple[bytes, str]] = []

    def node_of(self, wanted: NodeId) -> Address | None:
        return next((each for each in self.living if each.node == wanted), None)

    def changed(self, made: Made) -> None:
        self.ready.append(made.key)

    def ask(self, environment: Environment, owner: Address = OWNER) -> bytes:
        """A request names it; its owner describes it."""
        key = key_of(environment)
        assert not self.machine.ready(key, owner)
        self.world.expect((owner, DescribeEnvironment(key)))
        self.machine.on_described(EnvironmentDescribed(key, environment), owner)
        self.world.advance(0)
        return key

    def receive(self, digest: bytes, data: bytes, source: Address = HOME) -> None:
        """An archive comes in one part."""
        self.world.expect((source, PullPackage(digest, 0)))
        part = PackagePart(digest, 0, len(data), data)
        self.machine.on_part(part, source)
        assert self.maker.parts.pop() == part
        self.machine.written(part, "")


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_variables_alone_need_nothing(bench: Bench) -> None:
    """Goal: an environment of variables is ready as soon as it has been described, once.

    Method: two requests before the answer, one after it."""
    environment = Environment(env_vars={"A": "1"})
    key = key_of(environment)

    assert not bench.machine.ready(key, OWNER)
    assert not bench.machine.ready(key, DRIVER)
    bench.world.expect((OWNER, DescribeEnvironment(key)))
    bench.machine.on_described(EnvironmentDescribed(key, environment), OWNER)

    assert bench.ready == [key]
    assert bench.machine.ready(key, OWNER)
    assert bench.machine.zygote(key) == b""
    assert bench.machine.binding(key) == Furnished(environment)


def test_an_owner_that_dies_before_it_has_described(bench: Bench) -> None:
    """Goal: another owner is asked then.

    Method: the first owner dies; the second's request comes again."""
    key = key_of(Environment(env_vars={"A": "1"}))
    bench.machine.ready(key, OWNER)
    bench.world.take(DescribeEnvironment)

    bench.machine.process_lost(OWNER.process)
    assert not bench.machine.ready(key, DRIVER)

    bench.world.expect((DRIVER, DescribeEnvironment(key)))


def test_a_package_comes_part_by_part(bench: Bench) -> None:
    """Goal: parts are asked for one after the other, each when the last is on disk; then the
    whole is unpacked, and the environment is ready with its folder.

    Method: an archive of two and a half parts."""
    size = 2 * PART_BYTES + PART_BYTES // 2
    wanted = package("dir", size)
    environment = Environment(working_dir=wanted)
    key = bench.ask(environment)

    for offset in range(0, size, PART_BYTES):
        bench.world.expect((HOME, PullPackage(wanted.digest, offset)))
        part = PackagePart(wanted.digest, offset, size, bytes(min(PART_BYTES, size - offset)))
        bench.machine.on_part(part, HOME)
        assert bench.maker.unpacked == []
        bench.machine.written(part, "")
    assert bench.maker.unpacked == [wanted.digest]
    bench.machine.made(wanted.digest, "/there", 99)

    assert bench.ready == [key]
    assert bench.machine.binding(key) == Furnished(environment, "/there", ["/there"])


def test_a_package_that_was_put_here_is_not_fetched(bench: Bench) -> None:
    """Goal: what a process of this node has put is unpacked at once, and stays while that lives.

    Method: ask for it, put it, use it in an environment; the process dies before and after the
    piece has gone."""
    wanted = package("dir")
    bench.machine.on_add(AddPackage(1, wanted.digest), DRIVER)
    bench.machine.on_add(AddPackage(2, wanted.digest, 10), DRIVER)
    bench.machine.on_add(AddPackage(3, wanted.digest), DRIVER)
    bench.world.expect(
        (DRIVER, PackagePlace(1, "/packages", False)),
        (DRIVER, PackagePlace(2, "/packages", True)),
        (DRIVER, PackagePlace(3, "/packages", True)),
    )

    bench.ask(Environment(working_dir=wanted), DRIVER)
    assert bench.maker.unpacked == [wanted.digest]
    bench.machine.made(wanted.digest, "/there", KEPT_BYTES + 1)  # (too large to be kept)
    assert bench.maker.discarded == [wanted.digest]
    assert bench.maker.dropped == []

    bench.machine.process_lost(DRIVER.process)
    assert bench.maker.dropped == [wanted.digest]
    assert bench.machine.counts() == {"environments": 0, "pieces": 0, "archives": 0}


def test_the_next_node_is_asked_when_one_has_not_got_it(bench: Bench) -> None:
    """Goal: after the node where a package was put, the owner's node is asked, from the
    beginning; then the environment fails, by name.

    Method: the first dies in the middle, the second has dropped it."""
    wanted = package("dir", 2 * PART_BYTES)
    key = bench.ask(Environment(working_dir=wanted))
    bench.world.expect((HOME, PullPackage(wanted.digest, 0)))
    part = PackagePart(wanted.digest, 0, 2 * PART_BYTES, bytes(PART_BYTES))
    bench.machine.on_part(part, HOME)
    bench.machine.written(part, "")
    bench.world.expect((HOME, PullPackage(wanted.digest, PART_BYTES)))

    bench.machine.node_lost(HOME.node)
    bench.world.expect((NEAR, PullPackage(wanted.digest, 0)))
    bench.machine.on_part(part, HOME)  # the last that it sent: not what we asked for any more
    bench.machine.on_part(PackagePart(wanted.digest, 0, -1), NEAR)

    words = "the package of dir could not be brought here: the node where it was put has dropped it"
    assert bench.refused == [(key, words)]
    assert bench.machine.counts() == {"environments": 0, "pieces": 0, "archives": 0}


def test_no_node_has_a_package(bench: Bench) -> None:
    """Goal: that all who could have it are gone is an error, told after the request was taken in.

    Method: neither node is known; the failure must not come from within the request."""
    bench.living = [HERE]
    wanted = package("dir")
    environment = Environment(py_modules=[wanted])
    key = key_of(environment)
    bench.machine.on_described(EnvironmentDescribed(key, environment), OWNER)
    assert bench.refused == []

    bench.world.advance(0)

    words = "the package of dir could not be brought here: the node where it was put is gone"
    assert bench.refused == [(key, words)]


def test_other_nodes_fetch_from_here(bench: Bench) -> None:
    """Goal: a pull is answered with the part, or that there is none.

    Method: an archive of a part and ten bytes; one that cannot be read; one that is not here."""
    digest = package("dir").digest
    bench.machine.on_add(AddPackage(1, digest, PART_BYTES + 10), DRIVER)
    bench.world.take(PackagePlace)

    bench.machine.on_pull(PullPackage(digest, PART_BYTES), NEAR)
    bench.maker.reads.pop()[2](b"0123456789")
    bench.machine.on_pull(PullPackage(digest, 0), NEAR)
    bench.maker.reads.pop()[2](b"")
    bench.machine.on_pull(PullPackage(b"unknown", 0), NEAR)

    bench.world.expect(
        (NEAR, PackagePart(digest, PART_BYTES, PART_BYTES + 10, b"0123456789")),
        (NEAR, PackagePart(digest, 0, -1)),
        (NEAR, PackagePart(b"unknown", 0, -1)),
    )


def test_pieces_are_shared_and_made_once(bench: Bench) -> None:
    """Goal: two environments with the same requirements have one virtual environment and one
    zygote, which begins when the virtual environment is there.

    Method: they differ in a variable that no process has to begin with."""
    pip = Installation("pip", ["numpy"])
    one = bench.ask(Environment(installation=pip))
    two = bench.ask(Environment(installation=pip, env_vars={"A": "1"}))
    assert bench.maker.installed == [(key_of(pip), ["numpy"])]
    assert bench.maker.zygotes == {}

    bench.machine.made(key_of(pip), "/venv", 0)
    zygote = bench.machine.zygote(one)
    assert bench.machine.zygote(two) == zygote
    assert [venv for _, venv in bench.maker.zygotes.values()] == ["/venv"]
    assert bench.ready == []
    bench.machine.made(zygote, "ready", 0)

    assert bench.ready == [one, two]


def test_what_a_process_has_to_begin_with_makes_another_zygote(bench: Bench) -> None:
    """Goal: variables that libraries read when they are loaded, and modules that are preloaded,
    need a zygote that has them; other variables do not.

    Method: keys of zygotes of some environments."""
    keys = [
        bench.machine.zygote(bench.ask(environment))
        for environment in (
            Environment(env_vars={"PATH": "x"}),
            Environment(env_vars={"OMP_NUM_THREADS": "1"}),
            Environment(env_vars={"OMP_NUM_THREADS": "1", "A": "1"}),
            Environment(env_vars={"OMP_NUM_THREADS": "2"}),
            Environment(preload=["numpy"]),
            Environment(preload=["numpy"], python_path=["/program"]),
        )
    ]

    assert keys[0] == b""
    assert keys[1] == keys[2]
    assert len(set(keys)) == 5


def test_a_failure_is_told_to_all_who_wait_and_not_kept(bench: Bench) -> None:
    """Goal: the environments that wait for a piece fail with its words; the next request tries
    anew.

    Method: two environments with one installation, which fails; then one of them again."""
    pip = Installation("pip", ["nonsense"])
    environment = Environment(installation=pip)
    one = bench.ask(environment)
    two = bench.ask(Environment(installation=pip, env_vars={"A": "1"}))

    bench.machine.failed(key_of(pip), "no such package")
    assert bench.refused == [(one, "no such package"), (two, "no such package")]

    assert bench.ask(environment) == one
    assert len(bench.maker.installed) == 2


def test_an_environment_has_its_time(bench: Bench) -> None:
    """Goal: what is not ready in time fails, saying for what it still waited; what was under way
    is of use to the next.

    Method: an installation that takes longer than its five seconds."""
    pip = Installation("pip", ["slow"])
    key = bench.ask(Environment(installation=pip, setup_seconds=5.0))

    bench.world.advance(5)
    words = (
        "it was not ready after 5 s (config['setup_timeout_seconds']): it still waits for its "
        "requirements to be installed (runtime environment, 5 s so far)"
    )
    assert bench.refused == [(key, words)]
    bench.machine.made(key_of(pip), "/venv", 0)

    assert bench.ask(Environment(installation=pip, setup_seconds=60.0)) != key
    assert len(bench.maker.installed) == 1


def test_a_zygote_that_dies_is_begun_anew(bench: Bench) -> None:
    """Goal: an environment whose zygote is gone is not ready until it has another; nothing fails.

    Method: it dies while nobody waits; then a request comes."""
    key = bench.ask(Environment(env_vars={"OMP_NUM_THREADS": "1"}))
    zygote = bench.machine.zygote(key)
    bench.machine.made(zygote, "ready", 0)
    bench.maker.zygotes.clear()

    bench.machine.failed(zygote, "it was killed")
    assert bench.refused == []
    assert not bench.machine.ready(key, OWNER)
    assert list(bench.maker.zygotes) == [zygote]
    bench.machine.made(zygote, "ready", 0)

    assert bench.machine.ready(key, OWNER)


def test_idle_pieces_go_longest_unused_first(bench: Bench) -> None:
    """Goal: when packages take too much, those go that nobody uses, the longest unused first, and
    no more of them than must.

    Method: three unpacked packages of four tenths of the limit; the first is in use."""
    keys = []
    for name in "abc":
        wanted = package(name)
        keys.append(bench.ask(Environment(working_dir=wanted)))
        bench.used = {keys[0], keys[-1]}
        bench.receive(wanted.digest, bytes(10))
        bench.machine.made(wanted.digest, f"/{name}", KEPT_BYTES * 4 // 10)
        bench.world.advance(1)

    assert bench.maker.discarded == [package("b").digest]
    assert bench.maker.dropped == [package("b").digest]
    assert bench.machine.binding(keys[1]) is None
    assert bench.machine.ready(keys[0], OWNER)
    assert bench.machine.ready(keys[2], OWNER)


def test_few_idle_zygotes_are_kept(bench: Bench) -> None:
    """Goal: zygotes that nobody uses stay up to a number.

    Method: two more than that, one after the other."""
    zygotes = []
    for number in range(KEPT_ZYGOTES + 2):
        key = bench.ask(Environment(env_vars={"OMP_NUM_THREADS": str(number)}))
        zygotes.append(bench.machine.zygote(key))
        bench.machine.made(zygotes[-1], "ready", 0)
        bench.world.advance(1)

    assert bench.maker.discarded == zygotes[:2]
