"""The exceptions of Freehold itself: src/freehold/errors/."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from freehold import errors
from freehold.errors import (
    ActorDiedError,
    FreeholdError,
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    SerializationError,
    TaskError,
    UnschedulableError,
    WorkerDiedError,
)
from freehold.wire.failures import dump_error, load_error

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
PUBLIC = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FreeholdError)
]

SAMPLES: list[FreeholdError] = [
    WorkerDiedError(
        "f() was running",
        pid=7,
        node_id="n1",
        signal=9,
        memory="The machine had 1 % of its memory left",
        stderr_tail=["a", "b"],
    ),
    WorkerDiedError(exit_code=3),
    ActorDiedError("The actor died in its constructor", signal=11),
    GetTimeoutError("get of 1 value took over 2 s", waiting=["f() waits for 4 CPUs"]),
    UnschedulableError("f() fits nowhere", nearest="node n1 lacks GPU=1", request={"GPU": 2}),
    SerializationError("argument 'x'.lock is a _thread.lock", path="argument 'x'.lock"),
    SerializationError("cannot", remedy="Do that."),
    ObjectLostError("gone", object_id="ab"),
    ObjectStoreFullError("put", wanted=10, used=90, capacity=95),
    errors.TaskCancelledError(function_name="f", reason="deadline of 2 s"),
    errors.NodeDiedError(node_id="n9", reason="silent for 30 s"),
    errors.ClusterUnreachableError(address="10.0.0.1:6380"),
    errors.OutOfDiskError(folder="spill"),
]


@pytest.mark.parametrize("error", [*SAMPLES, *(kind() for kind in PUBLIC)], ids=repr)
@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy", "wire"])
def test_own_errors_round_trip(error: FreeholdError, way: str) -> None:
    """Goal: no fact is lost. Method: every class, by every way; compare type, text, attributes."""
    back: Any
    if way == "wire" and not isinstance(error, TaskError):
        back = load_error(dump_error(error, function_name="f", pid=1, node_id="n"))
        assert back.__dict__.pop("__notes__") == ["[raised in f(), pid 1 on node n]"]
    elif way == "pickle":
        back = pickle.loads(pickle.dumps(error))
    else:
        back = copy.copy(error) if way == "copy" else copy.deepcopy(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    if not isinstance(error, TaskError):
        assert back.__dict__ == error.__dict__


def test_messages_are_readable() -> None:
    """Goal: what happened, then what to do. Method: exact text of the richest errors."""
    assert str(SAMPLES[0]) == (
        "f() was running (pid 7, node n1, killed by SIGKILL, signal 9). "
        "The machine had 1 % of its memory left. "
        "Give it more memory= or run fewer such at a time. Last lines of its stderr:\n  a\n  b"
    )
    assert str(SAMPLES[1]) == "the worker died unexpectedly (exit code 3)."
    assert str(SAMPLES[4]) == (
        "f() fits nowhere. It asks for GPU=2. Nearest miss: node n1 lacks GPU=1. "
        "Ask for less, or add a node that has it."
    )
    assert "\n  f() waits for 4 CPUs" in str(SAMPLES[3])
    assert str(SAMPLES[6]) == "cannot. Do that."
    assert "10 bytes wanted, 90 of 95 in use" in str(SAMPLES[8])
    assert "(killed by signal 77)" in str(WorkerDiedError(signal=77))


def test_errors_are_also_the_standard_ones() -> None:
    """Goal: code that knows only Python catches them."""
    assert issubclass(GetTimeoutError, TimeoutError)
    assert issubclass(SerializationError, TypeError)
    assert issubclass(errors.ClusterUnreachableError, ConnectionError)
    assert issubclass(errors.NotInitializedError, RuntimeError)
    assert issubclass(errors.OwnerDiedError, ObjectLostError)


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_error_is_documented(kind: type[FreeholdError]) -> None:
    """Goal: docstring and manual tell fault and retry, and agree with the class attributes."""
    assert kind.fault in ("program", "machine", "setup", "freehold", "unclear")
    if kind is FreeholdError:
        return
    doc = " ".join((kind.__doc__ or "").split())
    assert "Fault: " in doc
    assert ("Retryable: yes" if kind.retryable else "Retryable: no") in doc
    assert "What to do: " in doc
    row = f"| `{kind.__name__}` | {kind.fault} | {'yes' if kind.retryable else 'no'} |"
    assert row in DOCS.read_text()
