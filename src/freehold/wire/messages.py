"""The protocol: every message between two processes, grouped by who talks to whom.

A message is an array on the wire, its first element a number that names its type; a frame carries
a list of messages (``frames``). On one connection messages arrive in the order sent, once. There
is no acknowledgement and no resending: a connection's end, after its last bytes, is the peer's.

Words: the *owner* of an object is the process that made its reference; a *borrower* is any other
process that holds one. A *lease*: the right to run tasks of one class on a worker, by its node.
"""

from collections.abc import Callable
from typing import ClassVar, TypeAlias

import msgspec

from freehold.ids import FunctionId, JobId, LeaseId, NodeId, ObjectId, ProcessId, TaskId
from freehold.resources import Resources
from freehold.wire.actors import ActorExited as ActorExited
from freehold.wire.actors import ActorRestarts as ActorRestarts
from freehold.wire.actors import Call as Call
from freehold.wire.actors import Creation as Creation
from freehold.wire.actors import EndActor as EndActor
from freehold.wire.actors import KillActor as KillActor
from freehold.wire.actors import KillLease as KillLease
from freehold.wire.actors import LocateActor as LocateActor
from freehold.wire.attendance import Fenced as Fenced
from freehold.wire.attendance import Heartbeat as Heartbeat
from freehold.wire.attendance import JobEnded as JobEnded
from freehold.wire.attendance import JobStarted as JobStarted
from freehold.wire.attendance import JoinCluster as JoinCluster
from freehold.wire.attendance import Joined as Joined
from freehold.wire.attendance import News as News
from freehold.wire.attendance import NodeChanged as NodeChanged
from freehold.wire.attendance import NodeKnown as NodeKnown
from freehold.wire.attendance import NodeReport as NodeReport
from freehold.wire.attendance import ProcessLost as ProcessLost
from freehold.wire.cancelling import CancelObject as CancelObject
from freehold.wire.cancelling import CancelTask as CancelTask
from freehold.wire.cancelling import TaskBegun as TaskBegun
from freehold.wire.detached import Detaching as Detaching
from freehold.wire.draining import DrainNode as DrainNode
from freehold.wire.draining import DrainProgress as DrainProgress
from freehold.wire.draining import ObjectMoved as ObjectMoved
from freehold.wire.draining import ObjectTaken as ObjectTaken
from freehold.wire.draining import TakeObject as TakeObject
from freehold.wire.environments import AddPackage as AddPackage
from freehold.wire.environments import DescribeEnvironment as DescribeEnvironment
from freehold.wire.environments import EnvironmentDescribed as EnvironmentDescribed
from freehold.wire.environments import FindModule as FindModule
from freehold.wire.environments import Furnished as Furnished
from freehold.wire.environments import ModuleFound as ModuleFound
from freehold.wire.environments import PackagePart as PackagePart
from freehold.wire.environments import PackagePlace as PackagePlace
from freehold.wire.environments import PullPackage as PullPackage
from freehold.wire.estate import Bequeath as Bequeath
from freehold.wire.estate import GiveObject as GiveObject
from freehold.wire.estate import Inherited as Inherited
from freehold.wire.estate import ObjectsGiven as ObjectsGiven
from freehold.wire.estate import Retire as Retire
from freehold.wire.estate import Vacate as Vacate
from freehold.wire.estate import Vacated as Vacated
from freehold.wire.fetches import CancelFetch as CancelFetch
from freehold.wire.fetches import FetchAhead as FetchAhead
from freehold.wire.fetches import FetchObject as FetchObject
from freehold.wire.fetches import FetchTogether as FetchTogether
from freehold.wire.fetches import ObjectMissing as ObjectMissing
from freehold.wire.fetches import ObjectReady as ObjectReady
from freehold.wire.fetches import UnpinObject as UnpinObject
from freehold.wire.inquiry import Asking as Asking
from freehold.wire.leases import LeaseEnded as LeaseEnded
from freehold.wire.leases import LeaseGranted as LeaseGranted
from freehold.wire.leases import LeaseRedirected as LeaseRedirected
from freehold.wire.leases import LeaseRefused as LeaseRefused
from freehold.wire.leases import LeaseWanted as LeaseWanted
from freehold.wire.leases import RequestLease as RequestLease
from freehold.wire.leases import ReturnLease as ReturnLease
from freehold.wire.leases import StillQueued as StillQueued
from freehold.wire.names import ActorLent as ActorLent
from freehold.wire.names import ActorsFound as ActorsFound
from freehold.wire.names import BorrowActor as BorrowActor
from freehold.wire.names import FindActors as FindActors
from freehold.wire.names import NameActor as NameActor
from freehold.wire.names import Naming as Naming
from freehold.wire.names import UnnameActor as UnnameActor
from freehold.wire.placement import AwaitGroup as AwaitGroup
from freehold.wire.placement import BundlesReserved as BundlesReserved
from freehold.wire.placement import CreateGroup as CreateGroup
from freehold.wire.placement import FindGroups as FindGroups
from freehold.wire.placement import GroupChanged as GroupChanged
from freehold.wire.placement import Groups as Groups
from freehold.wire.placement import GroupSettled as GroupSettled
from freehold.wire.placement import Placement as Placement
from freehold.wire.placement import ReleaseBundles as ReleaseBundles
from freehold.wire.placement import RemoveGroup as RemoveGroup
from freehold.wire.placement import ReserveBundles as ReserveBundles
from freehold.wire.records import ACTOR as ACTOR
from freehold.wire.records import FAILED as FAILED
from freehold.wire.records import INLINE as INLINE
from freehold.wire.records import STORED as STORED
from freehold.wire.records import Address as Address
from freehold.wire.records import Argument as Argument
from freehold.wire.records import Claim as Claim
from freehold.wire.records import Death as Death
from freehold.wire.records import Link as Link
from freehold.wire.records import NodeInfo as NodeInfo
from freehold.wire.records import Record as Record
from freehold.wire.records import Reference as Reference
from freehold.wire.records import Value as Value
from freehold.wire.streams import CloseStream as CloseStream
from freehold.wire.streams import StreamEnd as StreamEnd
from freehold.wire.streams import StreamItem as StreamItem
from freehold.wire.streams import StreamTaken as StreamTaken
from freehold.wire.streams import StreamTerms as StreamTerms

# --------------------------------------------------------------------------- owner <-> worker


class DefineFunction(Record, tag=1):
    """Owner to worker, before the first task that uses it on this connection: a function's
    pickled form.

    ``references``: how many references it captured; they are the last of every task's ``borrowed``.
    """

    function: FunctionId
    name: str
    pickled: bytes
    references: int = 0


class PushTask(Record, tag=2):
    """Owner to leased worker: run this. A repeated (task, attempt) is the same task and is
    answered once.

    ``args`` is the blob of ``(args, kwargs)`` in which ``deps`` stand as numbered slots;
    ``borrowed`` are the references inside it. ``depth`` is how many tasks stand above this one.
    """

    task: TaskId
    attempt: int
    lease: LeaseId
    function: FunctionId
    args: bytes
    num_returns: int = 1
    depth: int = 0
    name: str = ""
    deps: list[Argument] = []
    borrowed: list[Reference] = []
    retry_exceptions: bytes = b""
    max_calls: int = 0  #: tasks of this function after which the worker exits; 0: it stays
    line: tuple[Link, ...] = ()  #: that of the run in which it was submitted
    claims: list[Claim] = []  #: what this run shall bring back; see ``core.rebirth``
    actor: Creation | Call | None = None  #: of a task that makes an actor, or calls one
    timed: bool = False  #: the owner wants to know when user code begins (TaskBegun)
    stream: StreamTerms | None = None  #: of a task that yields its values one by one


class TaskDone(Record, tag=3):
    """Worker to owner: the results. ``micros`` is the time in user code, for the depth of the
    pipeline.

    ``retry`` says that the exception is one the user asked to retry; ``children`` that the worker
    owns things made in this run (ChildrenGone will follow); ``unclaimed`` which of the objects
    claimed from this run it did not make.
    """

    task: TaskId
    attempt: int
    results: list[Value]
    micros: int = 0
    retry: bool = False
    children: bool = False
    unclaimed: list[ObjectId] = []


class Missing(Record):
    """An argument that none of the nodes in ``tried`` has."""

    object: ObjectId
    tried: list[NodeId]


class TaskReturned(Record, tag=4):
    """Worker to owner: not begun, and will not be here: place it elsewhere. Either the worker is
    busy for long, or it could not get the arguments named in ``missing``. An actor holds up the
    calls behind one that it returns, until that comes again or CancelTask says that it will not.
    """

    task: TaskId
    attempt: int
    missing: list[Missing] = []


class ChildrenGone(Record, tag=7):
    """Worker to owner: nothing is left of what a run of this task has made here."""

    task: TaskId


class ClaimFrom(Record, tag=8):
    """Owner to worker: a claim on what its run of ``task`` has made or will make."""

    task: TaskId
    claim: Claim


# --------------------------------------------------------------------------- owner <-> borrower


class Locate(Record, tag=10):
    """Borrower to owner: tell me (Located) when this object is finished, now or later."""

    object: ObjectId
    stale: list[NodeId] = []  #: nodes that were asked and did not have it


class Located(Record, tag=11):
    """Owner to borrower: the object is finished."""

    object: ObjectId
    value: Value


class Release(Record, tag=12):
    """Borrower to owner: I hold it no more. ``count``: how often I was given it since the last."""

    object: ObjectId
    count: int


class Provide(Record, tag=13):
    """Borrower to owner: I am passing the reference to ``taker``. Count it, then introduce it."""

    object: ObjectId
    taker: Address


class Introduce(Record, tag=14):
    """Owner to taker: you are counted; a reference that came from ``giver`` may be used."""

    ref: Reference
    giver: ProcessId


class AskGone(Record, tag=17):
    """Borrower to owner: the stream of ``process``, which has given me a reference to an object of
    yours, has ended. Tell me (Gone) when yours with it has: until then an introduction may come.
    """

    process: ProcessId


class Gone(Record, tag=15):
    """Owner to borrower: ``process`` is gone and drained: it introduces nothing any more."""

    process: ProcessId


class ClaimObject(Record, tag=9):
    """Holder to submitter: an owner has died; run ``claim.path[0]`` again, which you submitted."""

    claim: Claim


class Claimed(Record, tag=16):
    """Submitter to holder: your claim lies with this process now. If that dies, claim again."""

    object: ObjectId
    at: Address


class Reborn(Record, tag=19):
    """New owner to holder: the object has been made again, under this reference; you are counted
    for it once.
    """

    object: ObjectId
    ref: Reference


class Unclaimed(Record, tag=27):
    """Submitter to holder: the object cannot be brought back, and why."""

    object: ObjectId
    reason: str


# --------------------------------------------------------------------------- process <-> its node


class Register(Record, tag=30):
    """First message of a driver or worker to its node. ``token`` is the worker's start number, 0
    for a driver.
    """

    address: Address
    pid: int
    job: JobId
    start: int
    driver: bool
    log_to_driver: bool = True
    python_path: list[str] = []
    cwd: str = ""
    explain_after: float | None = None  #: seconds that a get waits before it says for what
    namespace: str = ""  #: of names that the job makes
    detached: str = ""  #: the actor for which this driver is, if it is a steward


class Registered(Record, tag=31):
    """Node's answer: where the process lives and how."""

    node: Address
    head: Address
    arena_bytes: int
    resources: Resources
    dead_after: float = 10.0  #: seconds of silence after which the head declares a node dead


class AssignJob(Record, tag=32):
    """Node to worker, before each lease: whose tasks it runs, where that job imports from, what
    the lease holds.
    """

    job: JobId
    driver: Address
    python_path: list[str]
    cwd: str
    resources: Resources = {}
    explain_after: float | None = None
    gpus: list[int] = []  #: the GPUs that the lease holds, by their number on this node
    placement: Placement | None = None  #: the request's, with the number of its bundle
    furnished: Furnished | None = None  #: the runtime environment that this worker is bound to
    lease: bytes = b""


class CreateObject(Record, tag=33):
    """Process to its node: room for ``size`` bytes, please. Waits while the store is full."""

    object: ObjectId
    size: int
    owner: Address
    job: JobId


class ObjectCreated(Record, tag=34):
    """Node: write the blob at ``offset``, then SealObject. Negative: refused, see ``reason``."""

    object: ObjectId
    offset: int
    reason: str = ""
    disk: bool = False  #: because nothing more can be spilled


class SealObject(Record, tag=35):
    """Process to node: the bytes are complete and will never change."""

    object: ObjectId


class AbortObject(Record, tag=36):
    """Process to node: forget the object that we have made, or were about to make."""

    object: ObjectId


class FreeObjects(Record, tag=42):
    """Owner to every node that holds a copy: nobody can name these any more."""

    objects: list[ObjectId]


class KeepObject(Record, tag=49):
    """Owner to node: your copy is the last that I know of, or you have taken it over (ObjectMoved):
    do not drop it.
    """

    object: ObjectId


class ObjectAt(Record, tag=43):
    """Node to owner: a copy came to be here, or is gone from here.

    ``remains``: it is what a process has left that has just died. Unless its task could still
    report it, nobody knows of it.
    """

    object: ObjectId
    node: Address
    present: bool
    remains: bool = False


class Blocked(Record, tag=44):
    """Worker to node: my task waits in ``get``; lend its CPUs out."""


class Unblocked(Record, tag=45):
    """Worker to node: my task goes on."""


class LogLines(Record, tag=46):
    """Node to driver: lines that a worker of its job printed; ``error``: to stderr."""

    pid: int
    host: str
    error: bool
    name: str
    lines: list[str]


class Leave(Record, tag=47):
    """Driver to node: the job ends; stop what belongs to it."""


class Stop(Record, tag=48):
    """Node to worker: exit in good order, if nothing keeps you; with ``hand_over`` your values do
    not, but go to others. Anyone to a node or the head: stop everything.
    """

    hand_over: bool = False


# --------------------------------------------------------------------------- node <-> head


class Describe(Record, tag=66):
    """Anyone to head: what is the state of the cluster?"""

    request: int


class Description(Record, tag=67):
    """Head: the nodes and jobs."""

    request: int
    nodes: list[NodeInfo]
    jobs: list[JobStarted]


class DescribeNode(Record, tag=68):
    """Anyone to node: what is in you? (for tests, ``status`` and debugging)"""

    request: int


class NodeDescription(Record, tag=69):
    """Node: counts of what it holds."""

    request: int
    info: NodeInfo
    counts: dict[str, int]


Message: TypeAlias = (
    DefineFunction
    | PushTask
    | TaskDone
    | TaskReturned
    | CancelTask
    | TaskBegun
    | ChildrenGone
    | ClaimFrom
    | ClaimObject
    | Claimed
    | Reborn
    | Unclaimed
    | Locate
    | Located
    | Release
    | Provide
    | Introduce
    | AskGone
    | CancelObject
    | Gone
    | KeepObject
    | RequestLease
    | LeaseGranted
    | LeaseRedirected
    | LeaseRefused
    | ReturnLease
    | LeaseWanted
    | LeaseEnded
    | StillQueued
    | Register
    | Registered
    | AssignJob
    | CreateObject
    | ObjectCreated
    | SealObject
    | AbortObject
    | FetchObject
    | FetchTogether
    | FetchAhead
    | ObjectReady
    | ObjectMissing
    | UnpinObject
    | CancelFetch
    | FreeObjects
    | ObjectAt
    | Blocked
    | Unblocked
    | LogLines
    | Leave
    | Stop
    | JoinCluster
    | Joined
    | NodeChanged
    | NodeReport
    | News
    | Heartbeat
    | Fenced
    | NodeKnown
    | JobStarted
    | JobEnded
    | ProcessLost
    | Describe
    | Description
    | DescribeNode
    | NodeDescription
    | GiveObject
    | ObjectsGiven
    | Bequeath
    | Inherited
    | Vacate
    | Vacated
    | Retire
    | Asking
    | DrainNode
    | DrainProgress
    | TakeObject
    | ObjectTaken
    | ObjectMoved
    | StreamItem
    | StreamEnd
    | StreamTaken
    | CloseStream
    | AddPackage
    | DescribeEnvironment
    | EnvironmentDescribed
    | FindModule
    | ModuleFound
    | PackagePart
    | PackagePlace
    | PullPackage
    | EndActor
    | ActorExited
    | KillLease
    | KillActor
    | ActorRestarts
    | LocateActor
    | Naming
    | Detaching
    | CreateGroup
    | RemoveGroup
    | FindGroups
    | Groups
    | ReserveBundles
    | BundlesReserved
    | ReleaseBundles
    | GroupChanged
    | AwaitGroup
    | GroupSettled
)


def _build(frame: bytes | memoryview) -> list[Message]:
    """The first frame: make the decoder, which does the rest."""
    Wire.decode = msgspec.msgpack.Decoder(list[Message]).decode
    return Wire.decode(frame)


class Wire:
    """The two codecs. That of the whole union takes 10 ms to build, so it is not built for who
    only imports this. ``ready`` is for those who have time now.
    """

    encode: ClassVar = msgspec.msgpack.Encoder().encode
    decode: ClassVar[Callable[[bytes | memoryview], list[Message]]] = staticmethod(_build)

    @staticmethod
    def ready() -> None:
        """Build them."""
        Wire.decode(Wire.encode([]))
