"""Options of remote functions: checked where they are written, not when the task runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from freehold import resources
from freehold.api.strategies import placement_of
from freehold.core.limits import LONGEST_PAUSE, Limits
from freehold.errors import TaskTimeoutError
from freehold.resources import UNIT, Resources
from freehold.wire import serial


class Asked(msgspec.Struct, frozen=True):
    """What tasks and actors both ask for: resources, a place, an environment, a name."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: float = 0
    resources: Mapping[str, float] = {}
    name: str = ""
    scheduling_strategy: Any = None
    label_selector: Any = None
    fallback_strategy: Any = None
    priority: int = 0
    placement_group: Any = None
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None
    runtime_env: Mapping[str, Any] | None = None

    def vector(self) -> Resources:
        """The resources in fixed point."""
        return resources.vector(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            memory=self.memory,
            custom=self.resources,
        )


class Options(Asked, frozen=True):
    """What a remote function asks for. See ``freehold.remote`` for the meaning of each."""

    num_returns: int = 1  # or STREAMING
    max_retries: int = 3
    max_calls: int = 0
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    timeout: float = math.inf
    retry_delay: float = 0.0
    retry_backoff: float = 1.0
    retry_jitter: float = 0.0
    backpressure: int = 0

    def limits(self) -> Limits | None:
        """The limits in time, if there are any."""
        if self.timeout == math.inf and not self.retry_delay:
            return None
        wanted = self.retry_exceptions
        return Limits(
            0.0 if self.timeout == math.inf else self.timeout,
            self.retry_delay,
            self.retry_backoff,
            self.retry_jitter,
            retry_timeout=wanted
            if isinstance(wanted, bool)
            else issubclass(TaskTimeoutError, wanted),
        )


#: Each return costs the owner half a kilobyte before the task has begun.
MOST_RETURNS: Final = 1 << 24
MOST_RETRIES: Final = 1 << 31

#: The least and the most that these options take. A timer is good to a millisecond.
SECONDS_AND_FACTORS: Final = {
    "timeout": (0.001, math.inf),
    "retry_delay": (0.0, LONGEST_PAUSE),
    "retry_backoff": (1.0, 1000.0),
    "retry_jitter": (0.0, 1.0),
}

#: ``num_returns`` of what yields its values one by one.
STREAMING: Final = -1

KNOWN: Final = Options.__struct_fields__


def checked(base: Options, given: Mapping[str, Any]) -> Options:
    """``base`` with ``given`` on top. Raises TypeError or ValueError, naming the option, its
    value and what it takes.
    """
    known(given, KNOWN)
    values = {name: value for name, value in given.items() if value is not None}
    # Subclasses of int and str (IntEnum, numpy.str_) become plain: a message takes nothing else.
    if "num_returns" in values:
        values["num_returns"] = returns(values["num_returns"])
    if "backpressure" in values:
        values["backpressure"] = integer("backpressure", values["backpressure"], 1, MOST_RETURNS)
    if "max_retries" in values:
        values["max_retries"] = integer("max_retries", values["max_retries"], -1, MOST_RETRIES)
    if "max_calls" in values:
        values["max_calls"] = integer("max_calls", values["max_calls"], 0, MOST_RETRIES)
    for name, (least, most) in SECONDS_AND_FACTORS.items():
        if name in values:
            values[name] = _number(name, values[name], least, most)
    if "name" in values:
        values["name"] = text("name", values["name"])
    if "resources" in values:
        values["resources"] = amounts(values["resources"])
    if "retry_exceptions" in values:
        values["retry_exceptions"] = exceptions(values["retry_exceptions"])
    if "runtime_env" in values:
        values["runtime_env"] = checked_environment(values["runtime_env"])
    options = msgspec.structs.replace(base, **values)
    check_vector(options.vector())
    placement_of(options)  # raises for what cannot be met
    return options


def returns(value: object) -> int:
    """``num_returns`` as a number."""
    if isinstance(value, str) and value == "streaming":
        return STREAMING
    if isinstance(value, str):
        raise ValueError(f"num_returns must be an integer >= 0 or 'streaming', not {value!r}")
    return integer("num_returns", value, 0, MOST_RETURNS)


#: What to say of options that Ray has and Freehold has not.
INSTEAD: Final = {
    "lifetime": "only actors have one",
    "accelerator_type": "use label_selector, or a resource of that name",
    "allow_out_of_order_execution": "serial actors keep the order, threaded and async ones do not",
    "enable_task_events": "nothing is recorded that could be turned off",
    "_generator_backpressure_num_objects": "it is called backpressure",
}


def known(given: Iterable[str], names: Sequence[str]) -> None:
    """Raise ValueError for an option that does not exist."""
    for name in given:
        if name not in names:
            if name in INSTEAD:
                raise ValueError(f"there is no option {name!r}: {INSTEAD[name]}")
            import difflib  # (for mistakes only)

            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(f"unknown option {name!r}{hint} Options are: {', '.join(names)}")


def checked_environment(value: object) -> dict[str, Any]:
    """The option ``runtime_env``."""
    from freehold.api import environments  # late: it needs what stands here, few need it

    return environments.checked(value)


def amounts(value: object) -> dict[str, float]:
    """The option ``resources``."""
    if not isinstance(value, Mapping):
        raise TypeError(f"resources must be a dict of names to amounts, not {value!r}")
    return {text("a resource name", key): amount for key, amount in value.items()}


def check_vector(vector: Resources) -> None:
    """Raise ValueError for amounts that a message cannot carry."""
    for name, amount in vector.items():
        if amount >= 1 << 63:
            raise ValueError(f"{name}={amount / UNIT:g} is more than any machine has")


def integer(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer >= {least}, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be >= {least} and <= {most:,}, not {value}")
    return int(value)


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number >= {least:g}, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be >= {least:g} and <= {most:g}, not {value}")
    return float(value)


def text(name: str, value: object) -> str:
    """``value`` as a plain string that a message can carry. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} {value!r} is no valid Unicode: {error.reason}") from None
    return str(value)


def exceptions(value: object) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    ):
        return tuple(value)
    raise TypeError(
        f"retry_exceptions must be True, False or a list of exception types, not {value!r}"
    )


def packed_exceptions(wanted: bool | tuple[type[BaseException], ...]) -> bytes:
    """The wire form of ``retry_exceptions``."""
    if wanted is True:
        return b"*"
    return serial.dump_plain(wanted) if wanted else b""
