"""What an owner, a worker and a node say of what is in their tables, state by state.

The machines are real; the node and the workers of an owner are played by the test (``owners``).
"""

from __future__ import annotations

from typing import Any

import pytest

from core.owners import NEAR, NODE, Bench, Errors, worker
from core.world import (
    World,
    cpus,
    death,
    failed,
    function_id,
    info,
    inline,
    job,
    lease,
    object_id,
    process,
    reference,
    stored,
    task_id,
)
from freehold.core.objects import Objects
from freehold.core.scheduling import Scheduling
from freehold.core.telling import BREADTH, span
from freehold.core.telling_node import ENDS_KEPT, NodeTelling
from freehold.core.workers import Worker, Workers
from freehold.ids import return_id
from freehold.roles.executor import Executor
from freehold.store.allocator import Allocator
from freehold.wire.fetches import ARGUMENT
from freehold.wire.inquiry import (
    END,
    LEASE,
    MAY,
    MORE,
    NAMED,
    NEEDS,
    OBJECT,
    ONE_OF,
    PROCESS,
    REQUEST,
    RUN,
    SAME,
    STORED,
    TASK,
    Explain,
    Explanation,
    Finding,
    Question,
)
from freehold.wire.messages import (
    Argument,
    Blocked,
    CreateObject,
    DefineFunction,
    FetchObject,
    FetchTogether,
    JobStarted,
    Locate,
    Located,
    ObjectCreated,
    PushTask,
    Reference,
    RequestLease,
    StillQueued,
    TaskDone,
    TaskReturned,
    Unblocked,
)

BOSS, HOLDER = process("boss"), process("holder")


@pytest.fixture
def bench(world: World) -> Bench:
    made = Bench(world)
    made.owner.telling.title = "driver 5"
    return made


def look(bench: Bench, about: str, key: bytes) -> Finding:
    """The answer to a question, by message; others that it leads to come after it."""
    bench.say(Explain(3, about, key), BOSS)
    answer = bench.world.one(Explanation, BOSS)
    assert answer.request == 3
    return answer.findings[0]


def named(name: str) -> str:
    return f"{name}() [{task_id(name).hex()[:8]}]"


def test_times_are_for_people() -> None:
    """Goal: a time has two figures that matter."""
    seconds = (-1, 0.04, 9.94, 12.3, 119.4, 125, 3599, 7320)
    words = ["0.0 s", "0.0 s", "9.9 s", "12 s", "119 s", "2 min 5 s", "59 min 59 s", "2 h 2 min"]
    assert [span(time) for time in seconds] == words


# -- owners ----------------------------------------------------------------------------------------


def test_the_states_of_a_task(bench: Bench, world: World) -> None:
    """Goal: each state of a task says what it waits for and who knows more. Method: one task from
    its arguments to its result, and what depends on it."""
    task = bench.submit(micros=1.0)
    key = object_id("t1")
    request = Question(MORE, NODE, REQUEST, lease(1))
    text, more = f"{named('t1')} is queued", ": no free worker yet for CPU 1"
    assert look(bench, OBJECT, key) == Finding(OBJECT, key, text, more, named("t1"), [request])
    bench.say(StillQueued(lease(1), "waits for CPU 1"))
    assert look(bench, TASK, task.id).else_text == ": waits for CPU 1"
    after = bench.submit(deps=[Reference(key, world.address)])
    finding = look(bench, TASK, after.id)
    assert finding.text == f"{named('t2')} waits for 1 of its 1 arguments"
    assert finding.questions == [Question(NEEDS, world.address, OBJECT, key)]
    bench.grant(1)
    text = f"{named('t1')} was sent to worker 101 on node {NODE.node.hex()[:8]}"
    run = Question(MORE, worker(1), RUN, task.id)
    assert look(bench, OBJECT, key) == Finding(OBJECT, key, text, "", named("t1"), [run])
    assert bench.pushed(1) == [task.id]
    bench.done(task, 1)
    done = f"object {key.hex()[:8]} is done: 5 bytes, in memory"
    assert look(bench, OBJECT, key) == Finding(OBJECT, key, done)
    assert bench.pushed(1) == [after.id]
    bench.done(after, 1)
    assert "is done, or was never here" in look(bench, TASK, after.id).text
    bench.drop(task, after)
    bench.asked()
    assert "is not known to driver 5 (any more)" in look(bench, OBJECT, key).text
    bench.finished()


def test_further_attempts_and_others_of_the_kind_are_told(bench: Bench, world: World) -> None:
    """Goal: "attempt 2" and the length of the queue stand in the text. Method: three tasks; the
    first is given back unbegun, which is no attempt, and sent again; then its worker dies."""
    tasks = [bench.submit(max_retries=5) for _ in range(3)]
    bench.grant(1)
    bench.say(TaskReturned(tasks[0].id, 0), worker(1))
    sent = f"was sent to worker 101 on node {NODE.node.hex()[:8]}"
    assert look(bench, TASK, tasks[0].id).text == f"{named('t1')} {sent}"
    bench.end(1)
    again = f"{named('t1')} (attempt 2) is queued with 2 more like it"
    assert look(bench, TASK, tasks[0].id).text == again
    assert look(bench, TASK, tasks[2].id).text == f"{named('t3')} is queued with 2 more like it"
    world.sent.clear()


def test_an_answer_holds_what_it_leads_to_here(bench: Bench, world: World) -> None:
    """Goal: a chain within one process costs one round trip. Method: four tasks in a row, and a
    task of many arguments, of which the first few are named."""
    task = bench.submit()
    row = [task]
    for _ in range(3):
        row.append(bench.submit(deps=[Reference(return_id(row[-1].id, 0), world.address)]))
    bench.say(Explain(1, TASK, row[-1].id), BOSS)
    findings = world.one(Explanation, BOSS).findings
    assert [finding.name for finding in findings] == [named(f"t{n}") for n in (4, 3, 2, 1)]
    many = [bench.submit() for _ in range(BREADTH + 3)]
    deps = [Reference(return_id(other.id, 0), world.address) for other in many]
    wide = look(bench, TASK, bench.submit(deps=deps).id)
    assert wide.text == f"{named('t12')} waits for {BREADTH + 3} of its {BREADTH + 3} arguments"
    assert [question.id for question in wide.questions] == [ref.object for ref in deps[:BREADTH]]
    world.sent.clear()


def test_values(bench: Bench, world: World) -> None:
    """Goal: a value that is there says where; one on its way here refers to our node; an error
    says that it is one."""
    for name, value, text in (
        ("a", inline(b"value"), "is done: 5 bytes, in memory"),
        (
            "b",
            stored(7000, NEAR),
            f"is done: 7,000 bytes in the store of node {NEAR.node.hex()[:8]}",
        ),
        ("c", failed(), "has failed: get() raises its error"),
    ):
        bench.owner.put(object_id(name), value)
        finding = look(bench, OBJECT, object_id(name))
        label = f"object {object_id(name).hex()[:8]}"
        assert finding == Finding(OBJECT, object_id(name), f"{label} {text}")
    bench.owner.get([object_id("b")], lambda: None)
    assert world.one(FetchObject, NODE).object == object_id("b")
    finding = look(bench, OBJECT, object_id("b"))
    assert finding.questions == [Question(MORE, NODE, STORED, object_id("b"))]
    assert finding.else_text == ", and on its way here"


def test_what_is_borrowed_is_known_to_its_owner(bench: Bench, world: World) -> None:
    """Goal: a borrower refers to the owner."""
    key = object_id("x")
    bench.owner.ownership.accept(reference("x", HOLDER), HOLDER, Any)  # type: ignore[arg-type]
    bench.owner.ownership.pin(key)
    finding = look(bench, OBJECT, key)
    who = f"process {HOLDER.process.hex()[:8]} on node {HOLDER.node.hex()[:8]}"
    assert finding.text == f"object {key.hex()[:8]} is owned by {who}"
    assert finding.questions == [Question(SAME, HOLDER, OBJECT, key)]


def test_leases(bench: Bench, world: World) -> None:
    """Goal: who holds what others wait for says for which task. Method: busy, idle, returned."""
    (task,) = bench.running()
    at = f"worker 101 on node {NODE.node.hex()[:8]}"
    finding = look(bench, LEASE, lease(1))
    assert finding.text == f"{named('t1')} holds CPU 1; it was sent to {at}"
    assert finding.questions == [Question(MORE, worker(1), RUN, task.id)]
    bench.done(task, 1)
    assert look(bench, LEASE, lease(1)).text == f"{at} holds CPU 1, and is idle"
    bench.drop(task)
    bench.finished()
    assert look(bench, LEASE, lease(1)).text == "a lease that has just been returned"


def test_ids_by_their_first_digits(bench: Bench, world: World) -> None:
    """Goal: tasks and values are found by any beginning of their id, also by an odd number of
    digits, a pending task once for all its results, and nothing that we have only borrowed."""
    task = bench.submit(num_returns=3)
    bench.owner.put(object_id("t1zz"), inline())
    bench.owner.ownership.accept(reference("t1bb", HOLDER), HOLDER, Any)  # type: ignore[arg-type]
    me = world.address
    everything = [Question(MAY, me, TASK, task.id), Question(MAY, me, OBJECT, object_id("t1zz"))]
    digits = task.id.hex()
    for length, found in ((2, everything), (5, everything[:1]), (32, everything[:1])):
        finding = look(bench, NAMED, digits[:length].encode())
        assert (finding.text, finding.questions) == ("driver 5", found)
    assert look(bench, NAMED, b"ffff").questions == []
    world.sent.clear()


def test_an_unknown_kind_of_question_has_an_answer(bench: Bench) -> None:
    """Goal: a question that is not for us is answered, not dropped: the asker would wait."""
    assert look(bench, PROCESS, b"x") == Finding(PROCESS, b"x", "not known to this process")


# -- workers ---------------------------------------------------------------------------------------


class WorkerBench:
    """A worker whose user code is the test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executor = Executor(world, Errors(), NODE, job())  # type: ignore[arg-type]
        self.executor.telling.title = "worker 7"
        self.executor.handle(DefineFunction(function_id("f"), "f", b"code"), BOSS)

    def push(self, name: str, **fields: Any) -> None:
        message = PushTask(task_id(name), 0, lease(1), function_id("f"), b"", **fields)
        self.executor.handle(message, BOSS)

    def look(self, about: str, key: bytes) -> Finding:
        self.executor.handle(Explain(1, about, key), BOSS)
        return self.world.one(Explanation, BOSS).findings[0]

    def run(self, name: str) -> Finding:
        return self.look(RUN, task_id(name))


@pytest.fixture
def runner(world: World) -> WorkerBench:
    return WorkerBench(world)


def test_a_running_task(runner: WorkerBench, world: World) -> None:
    """Goal: a worker tells for how long it has run a task, and where that is. Method: not here,
    behind another, running, at a line, over."""
    runner.push("a")
    runner.push("b")
    assert runner.run("zz").text.startswith(", which does not have it")
    run = runner.executor.execution.next()
    assert run is not None
    world.advance(12)
    assert runner.run("a").text == ", where it has run for 12 s"
    assert runner.run("b").text == ", where it waits for the task before it to end"
    runner.executor.telling.whereabouts = lambda: "line 7 of prog.py, in nap()"
    assert runner.run("a").text == (
        ", where it has run for 12 s and is at line 7 of prog.py, in nap()"
    )
    runner.executor.execution.finished(run, [inline()], 1, retry=False)
    assert world.one(TaskDone, BOSS).task == task_id("a")
    assert runner.run("a").text.startswith(", which does not have it")


def test_a_task_that_waits_for_its_arguments(runner: WorkerBench, world: World) -> None:
    """Goal: an argument on its way is asked for at our node."""
    value = stored(5000, NEAR)
    runner.push("a", deps=[Argument(Reference(object_id("x"), BOSS), value)])
    assert world.one(FetchObject, NODE).object == object_id("x")
    finding = runner.run("a")
    assert finding.text == ", where an argument is on its way from a store"
    assert finding.questions == [Question(MORE, NODE, STORED, object_id("x"))]


def test_a_blocked_task(runner: WorkerBench, world: World) -> None:
    """Goal: a task in get needs all of the values, in wait one or several of them, and with a
    timeout none: the answer leads on to them. Method: each of these; then it goes on."""
    names = [object_id(name) for name in ("x", "y", "z")]
    refs = [Reference(name, BOSS) for name in names]
    runner.push("a", borrowed=refs)
    run = runner.executor.execution.next()
    assert run is not None
    executor, me = runner.executor, world.address
    getting = executor.get(names, lambda: None)
    some = executor.wait(names[:2], 1, False, lambda: None)
    both = executor.wait(names[:2], 2, False, lambda: None)
    two = executor.wait(names, 2, False, lambda: None)
    world.take(Locate)
    world.advance(1)
    ran = ", where it has run for 1.0 s, and waits in"
    for awaited, deadline, text, how in (
        (getting, None, "get() for 3 values", NEEDS),
        (getting, world.now() + 4, "get() for 3 values (4.0 s left until its timeout)", MAY),
        (some, None, "wait() for 1 of 2 values", ONE_OF),
        (both, None, "wait() for 2 of 2 values", NEEDS),
        (two, None, "wait() for 2 of 3 values", MAY),
    ):
        executor.block(awaited, deadline)
        finding = runner.run("a")
        assert finding.text == f"{ran} {text}"
        assert finding.questions == [
            Question(how, me, OBJECT, object_id) for object_id in awaited.pending
        ]
        executor.unblock()
    assert runner.run("a").text == ", where it has run for 1.0 s"
    assert (len(world.take(Blocked, NODE)), len(world.take(Unblocked, NODE))) == (5, 5)
    executor.handle(Located(names[0], inline()), BOSS)
    executor.block(getting, None)
    assert runner.run("a").text == f"{ran} get() for 2 values"
    world.sent.clear()


def test_a_task_that_waits_for_room(runner: WorkerBench, world: World) -> None:
    """Goal: a worker that has a value to store refers to its node until there is room."""
    runner.push("a")
    assert runner.executor.execution.next() is not None
    runner.executor.create(object_id("x"), 5000, BOSS, lambda: None)
    world.one(CreateObject, NODE)
    finding = runner.run("a")
    assert finding.text == ", where it has run for 0.0 s and has a value to store"
    assert finding.questions == [Question(MORE, NODE, STORED, object_id("x"))]
    runner.executor.handle(ObjectCreated(object_id("x"), 0), NODE)
    assert runner.run("a").questions == []


# -- nodes -----------------------------------------------------------------------------------------


class Shell:
    """Does nothing: no test here gets so far."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class NodeBench:
    """The machines of a node of two CPUs, a GPU, and 10,000 bytes."""

    def __init__(self, world: World) -> None:
        world.address = NODE
        self.world = world
        total = {**cpus(2), "GPU": 10_000}
        self.scheduling = Scheduling(world, total, grace=10)
        self.workers = Workers(world, Shell(), keep=2)
        self.scheduling.job_known = lambda job: True
        self.scheduling.want_worker = lambda lease, job: None
        self.objects = Objects(world, Allocator(9984), Shell())
        started = JobStarted(job(), BOSS, 5, [], "", True)
        self.telling = NodeTelling(
            world, self.scheduling, self.workers, self.objects, {job(): started}, {}
        )
        self.telling.drivers = {BOSS.process: job()}
        self.telling.processes = {BOSS.process: BOSS}

    def request(self, number: int, **resources: int) -> None:
        wanted = {name: amount * 10_000 for name, amount in resources.items()}
        self.scheduling.on_request(RequestLease(lease(number), BOSS, job(), wanted))

    def look(self, about: str, key: bytes) -> Finding:
        (finding,) = self.telling.explain(about, key)
        return finding


@pytest.fixture
def host(world: World) -> NodeBench:
    return NodeBench(world)


HERE = f" at node {NODE.node.hex()[:8]}"


def test_requests(host: NodeBench, world: World) -> None:
    """Goal: a request says for how long it has waited, for what, behind how many, and who holds
    that. Method: one that is granted, two that wait for it, one that no node can grant."""
    host.request(1, CPU=1, GPU=1)
    world.advance(1)
    starting = f"{HERE}, where a worker for it has been starting for 1.0 s"
    assert host.look(REQUEST, lease(1)).text == starting
    host.scheduling.granted[lease(1)].worker = Worker(1)
    assert host.look(REQUEST, lease(1)).text == f"{HERE}, which has just granted it worker 0"
    host.request(2, GPU=1)
    host.request(3, GPU=1)
    first, second = (host.look(REQUEST, lease(number)) for number in (2, 3))
    assert first.text.startswith(f"{HERE} for 0.0 s: waits for GPU 1 to come free")
    assert second.text.endswith("; 1 request before it")
    assert first.questions == [Question(ONE_OF, BOSS, LEASE, lease(1))]
    host.request(4, GPU=2)
    world.advance(3)
    never = host.look(REQUEST, lease(4)).text
    assert "GPU 2 is needed; the node has CPU 2, GPU 1, short of GPU 1; it fails in 7." in never
    assert never.endswith(" s unless such a node joins")
    assert host.look(REQUEST, lease(9)).text.startswith(f"{HERE}, which has just answered")
    world.sent.clear()


def test_who_may_wait_for_ever(host: NodeBench, world: World) -> None:
    """Goal: only what nobody else can give, and nobody lends, is waited for without hope. Method: a
    GPU that one task holds; CPUs that two hold (found by the simulator: a blocked task lends its
    CPU before its node hears of it); a GPU that another node has too."""
    host.request(1, CPU=1, GPU=1)
    host.request(2, CPU=1)
    host.request(3, CPU=1, GPU=1)
    host.request(4, CPU=1)

    def waits(number: int) -> list[tuple[str, bytes]]:
        return [(q.how, q.id) for q in host.look(REQUEST, lease(number)).questions]

    assert waits(3) == [(ONE_OF, lease(1))]
    assert waits(4) == [(MAY, lease(1)), (MAY, lease(2))]
    host.scheduling.peers[NEAR.node] = info(NEAR, {**cpus(1), "GPU": 10_000}, {})
    assert waits(3) == [(MAY, lease(1))]
    world.sent.clear()


def test_the_store(host: NodeBench, world: World) -> None:
    """Goal: what stands in the way of bytes is told: being written, waiting for room and who reads
    what fills it, being copied, there, unknown. Method: a store that is filled and read."""
    store = f"the store of node {NODE.node.hex()[:8]}"
    me = process("w")
    host.objects.on_create(CreateObject(object_id("a"), 6016, BOSS, job()), me)
    a = object_id("a")
    assert host.look(STORED, a).text == f"; 6,016 bytes are being written into {store}"
    host.objects.on_seal(a, me)
    host.objects.on_fetch(FetchObject(a, 6016, BOSS, [NODE]), BOSS)
    assert host.look(STORED, a).text == f"; its 6,016 bytes are in {store}"
    for name in ("b", "c"):
        host.objects.on_create(CreateObject(object_id(name), 5056, BOSS, job()), me)
    world.advance(4)
    full = "6,016 of 9,984 bytes are in use, and held by readers: 6,016 bytes by driver 5"
    waits = f"; it has waited for 4.0 s for room for 5,056 bytes in {store}: {full}"
    assert host.look(STORED, object_id("b")).text == waits
    assert host.look(STORED, object_id("c")).text == f"{waits}; 1 request for room before it"
    wishes = [FetchObject(object_id(name), 2048, BOSS, [NEAR], ARGUMENT) for name in "de"]
    host.objects.on_fetch_together(FetchTogether(wishes), me)
    both = f"; it has waited for 0.0 s for room for 4,096 bytes of 2 arguments in {store}: {full}"
    assert host.look(STORED, object_id("d")).text == both
    host.objects.on_fetch(FetchObject(object_id("f"), 64, BOSS, [NEAR], ARGUMENT), BOSS)
    assert host.look(STORED, object_id("f")).text.endswith("; 1 request for room before it")
    gone = f"; {store} knows nothing of it (yet, or any more)"
    assert host.look(STORED, object_id("zz")).text == gone
    world.sent.clear()


def test_a_copy_on_its_way(host: NodeBench, world: World) -> None:
    """Goal: a copy says where it comes from."""
    host.objects.on_fetch(FetchObject(object_id("d"), 64, BOSS, [NEAR]), BOSS)
    words = f"node {NODE.node.hex()[:8]} from node {NEAR.node.hex()[:8]}"
    text = f"; 64 bytes are being copied to the store of {words}"
    assert host.look(STORED, object_id("d")).text == text
    world.sent.clear()


def test_processes_and_their_ends(host: NodeBench) -> None:
    """Goal: a node says how a process of its machine has ended and when, also long after, but not
    without end. Method: one that runs, one that was killed, a driver that left, more than fit."""
    assert host.look(PROCESS, BOSS.process).text == "; it is driver 5, and runs"
    end = death()
    end.when = "10:31:05"
    host.telling.worker_ended(23, HOLDER.process, end)
    killed = "; worker 23 ended at 10:31:05: killed by SIGKILL, signal 9"
    assert host.look(PROCESS, HOLDER.process).text == killed
    assert [host.look(END, who.process).text for who in (HOLDER, BOSS)] == [killed, ""]
    host.telling.driver_ended(BOSS.process, left=True)
    assert host.look(PROCESS, BOSS.process).text == "; driver 5 has left in good order"
    for number in range(ENDS_KEPT):
        host.telling.driver_ended(process(f"p{number}").process, left=False)
    assert len(host.telling.ends) == ENDS_KEPT
    forgotten = host.look(PROCESS, HOLDER.process).text
    assert forgotten == "; its node knows no such process (any more)"


def test_a_node_names_its_processes(host: NodeBench) -> None:
    """Goal: who looks for an id is sent on to every process of the machine; what is no node's
    business has an answer too."""
    assert host.look(NAMED, b"01ab").questions == [Question(MAY, BOSS, NAMED, b"01ab")]
    assert host.look(OBJECT, b"x") == Finding(OBJECT, b"x", "not known to this node")
