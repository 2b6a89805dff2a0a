"""Resource vectors in fixed point: add, subtract, fit, and say what is missing.

Quantities are integers of 1/10,000 (``UNIT``), so that ten tasks of ``num_cpus=0.1`` fill exactly
one CPU; floats would leave 1e-17 of a CPU behind and never grant the tenth. A vector is a plain
``dict[str, int]`` without zero entries: it travels in messages as it is.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping

UNIT = 10_000
CPU, GPU, MEMORY = "CPU", "GPU", "memory"
RESERVED = frozenset({CPU, GPU, MEMORY})

Resources = dict[str, int]


def quantity(name: str, value: object) -> int:
    """``value`` of resource ``name`` in fixed point.

    Raises TypeError or ValueError, naming the resource, for anything but a number >= 0 of at most
    four decimals.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r}")
    amount = float(value)  # (numpy's numbers are Reals, and stay themselves in arithmetic)
    if not 0 <= amount < float("inf"):  # (a NaN fails both comparisons)
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    fixed = round(amount * UNIT)
    if amount > 0 and fixed == 0:
        raise ValueError(f"{name}={value!r} is below the smallest share of a resource, {1 / UNIT}")
    if name == "num_gpus" and fixed > UNIT and fixed % UNIT:
        raise ValueError(f"{name}={value!r}: more than one GPU must be a whole number of them")
    return fixed


def vector(
    *,
    num_cpus: object = 0,
    num_gpus: object = 0,
    memory: object = 0,
    custom: Mapping[str, object] | None = None,
) -> Resources:
    """Build a vector from the options users write.

    Takes numbers of CPUs and GPUs, bytes of memory, and a mapping of custom resource names to
    amounts.
    """
    amounts = {
        CPU: quantity("num_cpus", num_cpus),
        GPU: quantity("num_gpus", num_gpus),
        MEMORY: quantity("memory", memory),
    }
    for name, value in (custom or {}).items():
        check_name(name)
        if name in RESERVED:
            option = {CPU: "num_cpus", GPU: "num_gpus", MEMORY: "memory"}[name]
            raise ValueError(f"use {option}= for {name!r}; resources= is for custom resources")
        amounts[name] = quantity(name, value)
    return {name: amount for name, amount in amounts.items() if amount}


def check_name(name: object) -> None:
    """Raise TypeError for what cannot name a resource."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"a resource name must be a non-empty string, not {name!r}")


def fits(request: Mapping[str, int], free: Mapping[str, int]) -> bool:
    """Whether ``free`` covers ``request``."""
    return all(amount <= free.get(name, 0) for name, amount in request.items())


def subtract(free: Resources, request: Mapping[str, int]) -> None:
    """Take ``request`` out of ``free`` in place. May go below zero: see scheduling, "lent CPUs"."""
    for name, amount in request.items():
        free[name] = free.get(name, 0) - amount


def add(free: Resources, request: Mapping[str, int]) -> None:
    """Give ``request`` back to ``free`` in place."""
    for name, amount in request.items():
        free[name] = free.get(name, 0) + amount


def missing(request: Mapping[str, int], total: Mapping[str, int]) -> Resources:
    """What ``total`` lacks to cover ``request``; empty when it fits."""
    return {
        name: amount - total.get(name, 0)
        for name, amount in request.items()
        if amount > total.get(name, 0)
    }


def describe(amounts: Mapping[str, int]) -> str:
    """``CPU 2, GPU 0.5`` for people."""
    if not amounts:
        return "nothing"
    return ", ".join(f"{name} {readable(name, amount)}" for name, amount in sorted(amounts.items()))


def readable(name: str, amount: int) -> str:
    """One amount for people: bytes for memory, a plain number otherwise."""
    value = amount / UNIT
    if name == MEMORY:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:g}"


def floats(amounts: Mapping[str, int]) -> dict[str, float]:
    """The vector in the units users write, as ``cluster_resources()`` returns it."""
    return {name: amount / UNIT for name, amount in sorted(amounts.items()) if amount > 0}
