"""Planted bugs in the relaying of large objects (``relaying``). As in ``mutants``, which takes
these in."""

from __future__ import annotations

from typing import Final

from freehold.core.relaying import Relaying, Sending
from freehold.sim.bugs import ignored, never
from freehold.sim.hunt import Mutant

RELAYS: Final = ("relays",)

RELAY_MUTANTS: Final = (
    Mutant("relays send what is not there", Sending, "arriving", RELAYS, 7, never),
    Mutant("copies under way are never over", Relaying, "over", RELAYS, 0, ignored),
)
