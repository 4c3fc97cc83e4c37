"""streams.ahead: order, faults, bounded queues, ends."""

from __future__ import annotations

import threading
import time

import pytest

from media.streams import ahead


def counted(limit: int, seen: list, closed: list):
    try:
        for number in range(limit):
            seen.append(number)
            yield number
    finally:
        closed.append(threading.current_thread())


def stages() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "stage"]


def test_items_come_in_order_from_another_thread():
    seen, closed = [], []
    with ahead(counted(50, seen, closed), 3) as items:
        assert list(items) == list(range(50))
    assert closed[0] is not threading.main_thread() and not stages()


def test_only_so_many_are_made_ahead():
    seen = []
    with ahead(counted(100, seen, []), 4) as items:
        next(items)
        for _ in range(500):
            if len(seen) >= 6:
                break
            time.sleep(0.01)
        time.sleep(0.1)  # for a seventh, which must not come
        assert len(seen) == 6  # one used, four waiting, one in hand


def test_leaving_early_ends_the_thread_and_closes_the_generator():
    closed = []
    with ahead(counted(10**9, [], closed), 2) as items:
        assert next(items) == 0
    assert closed and not stages()


def test_a_fault_is_raised_at_its_place():
    def faulty():
        yield 1
        raise ValueError("broken")

    with ahead(faulty(), 5) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)
    assert not stages()


def test_stages_nest_and_leave_together():
    with ahead(range(10**9), 2) as inner, ahead((2 * n for n in inner), 2) as outer:
        assert [next(outer) for _ in range(3)] == [0, 2, 4]
    assert not stages()
