"""Options of remote functions: checked where they are written, not when the task runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from freehold import resources
from freehold.resources import UNIT, Resources


class Options(msgspec.Struct, frozen=True):
    """What a remote function asks for. See ``freehold.remote`` for the meaning of each."""

    num_returns: int = 1
    num_cpus: float = 1
    num_gpus: float = 0
    memory: float = 0
    resources: Mapping[str, float] = {}
    max_retries: int = 3
    max_calls: int = 0
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    name: str = ""

    def vector(self) -> Resources:
        """The resources in fixed point."""
        return resources.vector(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            memory=self.memory,
            custom=self.resources,
        )


#: Each return costs the owner half a kilobyte before the task has begun.
MOST_RETURNS: Final = 1 << 24
MOST_RETRIES: Final = 1 << 31

KNOWN: Final = Options.__struct_fields__


def checked(base: Options, given: Mapping[str, Any]) -> Options:
    """``base`` with ``given`` on top. Raises TypeError or ValueError, naming the option, its
    value and what it takes.
    """
    for name in given:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown option {name!r}{hint} Options are: {', '.join(KNOWN)}")
    values = {name: value for name, value in given.items() if value is not None}
    # Subclasses of int and str (IntEnum, numpy.str_) become plain: a message takes nothing else.
    if "num_returns" in values:
        values["num_returns"] = _integer("num_returns", values["num_returns"], 0, MOST_RETURNS)
    if "max_retries" in values:
        values["max_retries"] = _integer("max_retries", values["max_retries"], -1, MOST_RETRIES)
    if "max_calls" in values:
        values["max_calls"] = _integer("max_calls", values["max_calls"], 0, MOST_RETRIES)
    if "name" in values:
        values["name"] = text("name", values["name"])
    if "resources" in values:
        if not isinstance(values["resources"], Mapping):
            raise TypeError(
                f"resources must be a dict of names to amounts, not {values['resources']!r}"
            )
        values["resources"] = {
            text("a resource name", key): amount for key, amount in values["resources"].items()
        }
    if "retry_exceptions" in values:
        values["retry_exceptions"] = _exceptions(values["retry_exceptions"])
    options = msgspec.structs.replace(base, **values)
    for name, amount in options.vector().items():  # raises for bad amounts
        if amount >= 1 << 63:  # what a message can carry
            raise ValueError(f"{name}={amount / UNIT:g} is more than any machine has")
    return options


def _integer(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer >= {least}, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be >= {least} and <= {most:,}, not {value}")
    return int(value)


def text(name: str, value: object) -> str:
    """``value`` as a plain string that a message can carry. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} {value!r} is no valid Unicode: {error.reason}") from None
    return str(value)


def _exceptions(value: object) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    ):
        return tuple(value)
    raise TypeError(
        f"retry_exceptions must be True, False or a list of exception types, not {value!r}"
    )
