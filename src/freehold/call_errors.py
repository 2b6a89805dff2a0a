"""Errors of calls of actors, of streams and of event loops; ``freehold.errors`` has them under its
name, and tells the rules.
"""

from __future__ import annotations

from freehold import errors


class PendingCallsLimitExceededError(errors.FreeholdError):
    """As many calls of the actor as its ``max_pending_calls`` allows are not done yet.

    What happened: this process has submitted so many calls through its handles; this one was not
    submitted. Fault: the program. Retryable: yes, when some are done.
    What to do: get some results first, or raise the limit.
    """

    __module__ = errors.__name__  # where users find it
    fault = "program"
    retryable = True
    summary = "too many calls of the actor are pending"
    remedy = "Get some results first, or create the actor with a larger max_pending_calls."


class ActorAlreadyExistsError(errors.FreeholdError, ValueError):
    """A living actor has this name in this namespace already.

    Fault: the program. Retryable: no, until that actor is dead.
    What to do: take another name, or create it with ``get_if_exists=True`` to get that one.
    """

    __module__ = errors.__name__  # where users find it
    fault = "program"
    summary = "an actor of this name exists already"
    remedy = "Take another name, or pass get_if_exists=True to get the one that is there."


class NoEventLoopError(errors.FreeholdError, RuntimeError):
    """Something that only works inside a running asyncio event loop was used outside one.

    Fault: the program. Retryable: no.
    What to do: call it in a coroutine that runs under ``asyncio.run``, or use ``get``.
    """

    __module__ = errors.__name__  # where users find it
    fault = "program"
    summary = "there is no running event loop in this thread"
    remedy = "Call it in a coroutine that asyncio.run() runs, or use freehold.get() and wait()."


class StreamReplayError(errors.FreeholdError):
    """A generator task was run again, to replace lost values, and yielded fewer than before.

    Fault: the program: the function does not yield the same for the same arguments.
    Retryable: no.
    What to do: make the generator depend on its arguments only, or give it ``max_retries=0``.
    """

    __module__ = errors.__name__  # where users find it
    fault = "program"
    summary = "a generator task was run again and yielded fewer values than before"
    remedy = "Let what it yields depend on its arguments only, or give it max_retries=0."
