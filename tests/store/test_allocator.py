"""The arena's allocator: exact placement where it matters, invariants everywhere else."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from freehold.store.allocator import ALIGNMENT, Allocator

KIB, MIB = 1 << 10, 1 << 20
CAPACITY = 64 * KIB + 17  # not a multiple of the alignment, on purpose


def place(allocator: Allocator, size: int) -> int:
    offset = allocator.allocate(size)
    assert offset is not None
    return offset


def test_repeated_put_and_free_uses_the_same_warm_memory() -> None:
    """Goal: 100 MiB put and freed again and again lies at the same offset each time.

    Method: the same beside a small live object, and the high water stays where it was."""
    allocator = Allocator(1024 * MIB)
    place(allocator, 100)
    first = place(allocator, 100 * MIB)
    water = allocator.high_water

    for _ in range(10):
        allocator.free(first)
        assert allocator.allocate(100 * MIB) == first
    assert allocator.high_water == water


def test_warm_hole_is_preferred_to_a_better_fitting_cold_tail() -> None:
    """Goal: memory never used before is the last choice, even where it would fit best.

    Method: a warm hole of 512 KiB, a cold tail of 128 KiB, and a request for 100 KiB."""
    allocator = Allocator(MIB)
    hole = place(allocator, 512 * KIB)
    place(allocator, 384 * KIB)
    allocator.free(hole)

    assert allocator.allocate(100 * KIB) == hole


def test_best_fit_then_lowest() -> None:
    """Goal: among warm holes the smallest that fits is taken, and of equal ones the lowest.

    Method: holes of 4, 2, 2 and 8 KiB between live blocks; a request for 2 KiB, twice."""
    allocator = Allocator(MIB)
    holes = []
    for size in (4 * KIB, 2 * KIB, 2 * KIB, 8 * KIB):
        holes.append(place(allocator, size))
        place(allocator, 64)  # keeps the holes apart
    for hole in reversed(holes):
        allocator.free(hole)

    assert [allocator.allocate(2 * KIB), allocator.allocate(2 * KIB)] == holes[1:3]
    assert allocator.allocate(1 * KIB) == holes[0]


def test_hole_at_the_top_grows_into_the_tail() -> None:
    """Goal: a request larger than any hole uses the warm hole below the tail together with it.

    Method: fill 60 of 100 KiB, free the upper 30, ask for 70."""
    allocator = Allocator(100 * KIB)
    place(allocator, 30 * KIB)
    upper = place(allocator, 30 * KIB)
    allocator.free(upper)

    assert allocator.largest_free == 70 * KIB
    assert allocator.allocate(70 * KIB) == upper
    assert allocator.allocate(1) is None
    allocator.check()


def test_blocks_of_zero_bytes_have_offsets_of_their_own() -> None:
    """Goal: an empty object is an object. Method: two of them; both are freed by their offsets."""
    allocator = Allocator(128)
    first, second = place(allocator, 0), place(allocator, 0)
    assert first != second
    assert allocator.allocate(0) is None
    allocator.free(first)
    allocator.free(second)
    assert allocator.used == 0


@pytest.mark.parametrize("offset", [64, 1, -64, 4096])
def test_free_of_what_is_not_live_changes_nothing(offset: int) -> None:
    """Goal: a wrong or repeated free is refused. Method: free inside, outside, and twice."""
    allocator = Allocator(MIB)
    block = place(allocator, 1000)
    with pytest.raises(ValueError, match=f"no live block at offset {offset}"):
        allocator.free(offset)
    assert allocator.used == 1024
    allocator.free(block)
    with pytest.raises(ValueError, match="no live block"):
        allocator.free(block)
    allocator.check()


def test_trim_lets_go_of_free_memory_above_the_mark() -> None:
    """Goal: trim names exactly the free warm range above both the last block and ``keep``.

    Method: one block of 10 KiB below 90 freed ones; trim to 50 KiB, to 0, and once more."""
    allocator = Allocator(MIB)
    place(allocator, 10 * KIB)
    allocator.free(place(allocator, 90 * KIB))

    assert allocator.trim(keep=200 * KIB) == (100 * KIB, 100 * KIB)
    assert allocator.trim(keep=50 * KIB) == (50 * KIB, 100 * KIB)
    allocator.check()
    assert allocator.trim(keep=0) == (10 * KIB, 50 * KIB)
    assert allocator.high_water == 10 * KIB
    assert allocator.trim(keep=0) == (10 * KIB, 10 * KIB)
    allocator.check()


@pytest.mark.parametrize("capacity", [-1, 0, ALIGNMENT - 1])
def test_capacity_too_small(capacity: int) -> None:
    """Goal: an allocator that could never give anything is refused at once."""
    with pytest.raises(ValueError, match=f"arena of {capacity} bytes"):
        Allocator(capacity)


def test_negative_size() -> None:
    """Goal: a negative size is the caller's mistake and says so."""
    with pytest.raises(ValueError, match="cannot be negative: -5"):
        Allocator(MIB).allocate(-5)


class AllocatorAgainstModel(RuleBasedStateMachine):
    """Random allocations and frees beside a dictionary of who owns which bytes."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(CAPACITY)
        self.live: dict[int, int] = {}

    @rule(target=blocks, size=st.one_of(st.integers(0, 300), st.integers(0, 40 * KIB)))
    def allocate(self, size: int) -> int | None:
        largest = self.allocator.largest_free
        offset = self.allocator.allocate(size)
        if offset is None:
            assert size > largest or largest == 0
            return None
        assert size <= largest
        end = offset + max(size, 1)
        assert offset % ALIGNMENT == 0
        assert 0 <= offset < end <= CAPACITY
        for other, length in self.live.items():
            assert end <= other or other + max(length, 1) <= offset
        self.live[offset] = size
        return offset

    @rule(offset=consumes(blocks))
    def free(self, offset: int | None) -> None:
        if offset is not None:
            self.allocator.free(offset)
            del self.live[offset]

    @rule(keep=st.integers(0, CAPACITY))
    def trim(self, keep: int) -> None:
        start, end = self.allocator.trim(keep)
        assert all(o + size <= start or o >= end for o, size in self.live.items())

    @precondition(lambda self: not self.live)
    @rule()
    def empty_gives_everything(self) -> None:
        assert self.allocator.largest_free == CAPACITY - CAPACITY % ALIGNMENT

    @invariant()
    def books_are_right(self) -> None:
        self.allocator.check()
        rounded = (max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT) for size in self.live.values())
        assert self.allocator.used == sum(rounded)


AllocatorAgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAllocatorAgainstModel = AllocatorAgainstModel.TestCase
