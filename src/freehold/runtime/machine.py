"""What this machine has: the defaults of a node's offer; and switches for measurements."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Final, SupportsIndex

from freehold import resources
from freehold.core.spilling import FUSE_BYTES
from freehold.resources import Resources

STORE_SHARE: Final = 0.3
LEAST_STORE: Final = 1 << 20
LEAST_DEAD_AFTER: Final = 0.5
MOST_DEAD_AFTER: Final = 3600.0


def memory_bytes() -> int:
    """Memory that we may use: the machine's, or less if a control group says so."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def offer(
    num_cpus: float | None,
    num_gpus: float | None,
    memory: float | None,
    custom: Mapping[str, float] | None,
) -> Resources:
    """What a node offers: what was asked for, and for the rest what the machine has."""
    return resources.vector(
        num_cpus=len(os.sched_getaffinity(0)) if num_cpus is None else num_cpus,
        num_gpus=_gpus() if num_gpus is None else num_gpus,
        memory=int(memory_bytes() * (1 - STORE_SHARE)) if memory is None else memory,
        custom=custom,
    )


def _gpus() -> int:
    """GPUs that the NVIDIA driver shows; those of other makers are given as ``num_gpus``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return 0


def check_patience(dead_after: object) -> None:
    """Raise TypeError or ValueError for a ``dead_after`` with which no cluster could live: a loaded
    machine may say nothing for a while.
    """
    if isinstance(dead_after, bool) or not isinstance(dead_after, int | float):
        raise TypeError(f"dead_after must be seconds, not {dead_after!r}")
    if not LEAST_DEAD_AFTER <= dead_after <= MOST_DEAD_AFTER:
        raise ValueError(
            f"dead_after must be between {LEAST_DEAD_AFTER:g} and {MOST_DEAD_AFTER:g} seconds, "
            f"not {dead_after:g}"
        )


def spill_file_bytes() -> int:
    """How much is written into one spill file: $FREEHOLD_SPILL_FILE_BYTES, 0 for a file per value,
    as long as nobody knows better. Raises ValueError for what is no number of bytes.
    """
    asked = os.environ.get("FREEHOLD_SPILL_FILE_BYTES", "")
    if asked and not asked.isdecimal():
        raise ValueError(f"$FREEHOLD_SPILL_FILE_BYTES must be a number of bytes, not {asked!r}")
    return int(asked) if asked else FUSE_BYTES


def prefetch() -> bool:
    """Whether what a task will read is fetched before it begins: unless $FREEHOLD_PREFETCH is 0.
    Raises ValueError for anything but 0 and 1.
    """
    asked = os.environ.get("FREEHOLD_PREFETCH") or "1"
    if asked not in ("0", "1"):
        raise ValueError(f"$FREEHOLD_PREFETCH must be 0 or 1, not {asked!r}")
    return asked == "1"


def store_bytes(asked: object) -> int:
    """The size of the object store. Raises ValueError for less than 1 MiB or more than the
    machine's memory.
    """
    total = memory_bytes()
    if asked is None:
        return int(total * STORE_SHARE)
    if isinstance(asked, bool) or not isinstance(asked, SupportsIndex):
        raise TypeError(f"object_store_memory must be bytes, not {asked!r}")
    size = index(asked)  # (numpy's integers too)
    if not LEAST_STORE <= size <= total:
        raise ValueError(f"object_store_memory={size:,}: must be between 1 MiB and {total:,} bytes")
    return size
