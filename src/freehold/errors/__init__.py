"""Every exception a user of Freehold can see.

Theory of operation. An error is a message for a person and a value for a program. The person
reads one paragraph: what happened, then what to do. The program reads the class, the attributes
and two class attributes:

* ``fault``: ``"program"`` (the code you wrote), ``"machine"`` (memory, disk, network, power),
  ``"setup"`` (how the cluster or the call is configured), ``"freehold"`` (a bug here) or
  ``"unclear"``.
* ``retryable``: True when the same call, unchanged, may well succeed if it is made again.

The first argument of each class is the sentence that says what happened; keyword arguments are
facts, kept as attributes of the same name. The remedy belongs to the class and is added when the
error is printed.

Errors travel between processes, so each is rebuilt from its arguments and attributes without a
second run of ``__init__``. A task's own exception travels as a ``TaskError``; that journey is
told in ``wire/failures.py``. This module knows no other part of Freehold but
``wording``, imports nothing that takes time, holds no state and therefore has no races.
"""

from __future__ import annotations

from freehold.errors.actors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorUnavailableError,
    PendingCallsLimitExceededError,
)
from freehold.errors.base import FreeholdError
from freehold.errors.cluster import (
    ActorPlacementGroupRemovedError,
    AlreadyInitializedError,
    AuthenticationError,
    ClusterUnreachableError,
    NoEventLoopError,
    NotInitializedError,
    PlacementGroupRemovedError,
    ProtocolError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemovedError,
    UnschedulableError,
)
from freehold.errors.tasks import (
    NodeDiedError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
    WorkerDiedError,
)
from freehold.errors.values import (
    GetTimeoutError,
    LineageEvictedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OwnerDiedError,
    SerializationError,
    StreamReplayError,
)

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorPlacementGroupRemovedError",
    "ActorUnavailableError",
    "AlreadyInitializedError",
    "AuthenticationError",
    "ClusterUnreachableError",
    "FreeholdError",
    "GetTimeoutError",
    "LineageEvictedError",
    "NoEventLoopError",
    "NodeDiedError",
    "NotInitializedError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OwnerDiedError",
    "PendingCallsLimitExceededError",
    "PlacementGroupRemovedError",
    "ProtocolError",
    "RuntimeEnvSetupError",
    "SerializationError",
    "StreamReplayError",
    "TaskCancelledError",
    "TaskError",
    "TaskPlacementGroupRemovedError",
    "TaskTimeoutError",
    "UnschedulableError",
    "WorkerDiedError",
]

# Users find them here, and so do pickles: which file a class stands in is nobody's business.
for _name in __all__:
    globals()[_name].__module__ = __name__
