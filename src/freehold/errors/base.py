"""The class that all errors share, and how one is rebuilt on the other side of a wire."""

from __future__ import annotations

from typing import Any, ClassVar

from freehold.wording import sentence


def rebuild(
    kind: type[FreeholdError], args: tuple[Any, ...], facts: dict[str, Any]
) -> FreeholdError:
    """Make an error again from what its ``__reduce__`` recorded, without ``__init__``."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class FreeholdError(Exception):
    """Base of every error that Freehold raises; catch it to catch them all.

    The subclass tells what happened, whose fault it is and what to do.

    Args:
        message: one sentence that says what happened and names the thing it happened to.
    """

    fault: ClassVar[str] = "unclear"
    retryable: ClassVar[bool] = False
    summary: ClassVar[str] = "something went wrong in Freehold"
    remedy: str = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.summary)

    @property
    def message(self) -> str:
        """What happened, without the remedy."""
        return str(self.args[0]) if self.args else self.summary

    def __str__(self) -> str:
        return f"{sentence(self.message)} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), self.args, dict(self.__dict__))
