"""Errors of actors and their calls."""

from __future__ import annotations

from freehold.errors.base import FreeholdError
from freehold.errors.tasks import WorkerDiedError


class ActorDiedError(WorkerDiedError):
    """The actor is dead and will not be restarted; this and later calls to it fail.

    What happened: its process died with no restarts left, its constructor raised, or it was killed
    on purpose; the message says which. Fault: unclear, as for ``WorkerDiedError``.
    Retryable: no, the actor and its state are gone.
    What to do: create it again; give it ``max_restarts`` if it can rebuild its state.
    Arguments are those of ``WorkerDiedError``.
    """

    retryable = False
    summary = "The actor died"
    remedy = "Its state is gone: create it again, or set max_restarts if it can rebuild its state."

    def __str__(self) -> str:
        if not self.pid:  # it was ended, by no accident
            return FreeholdError.__str__(self)
        return super().__str__()


class ActorUnavailableError(FreeholdError):
    """The actor could not be reached for now; it may or may not have run the call.

    Fault: the machine. Retryable: yes, if the call may safely run twice.
    What to do: call again, or set ``max_task_retries`` on the actor.
    """

    fault = "machine"
    retryable = True
    summary = "the actor cannot be reached for now"
    remedy = "The call may or may not have run: repeat it if running twice does no harm."


class PendingCallsLimitExceededError(FreeholdError):
    """As many calls of the actor as its ``max_pending_calls`` allows are not done yet.

    What happened: this process has submitted so many calls through its handles; this one was not
    submitted. Fault: the program. Retryable: yes, when some are done.
    What to do: get some results first, or raise the limit.
    """

    fault = "program"
    retryable = True
    summary = "too many calls of the actor are pending"
    remedy = "Get some results first, or create the actor with a larger max_pending_calls."


class ActorAlreadyExistsError(FreeholdError, ValueError):
    """A living actor has this name in this namespace already.

    Fault: the program. Retryable: no, until that actor is dead.
    What to do: take another name, or create it with ``get_if_exists=True`` to get that one.
    """

    fault = "program"
    summary = "an actor of this name exists already"
    remedy = "Take another name, or pass get_if_exists=True to get the one that is there."
