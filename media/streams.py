"""Stages of a pipeline that work at the same time: a thread each, bounded queues between."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np

T = TypeVar("T")
FRAME_BYTES = 2**26  # of frames that a stage holds at once, whatever their size
POLL = 0.2  # seconds until a waiting thread looks whether it is still wanted


def frames_at_once(frame: np.ndarray, most: int = sys.maxsize) -> int:
    """How many frames like this one a stage may hold: `most`, if FRAME_BYTES allow, at least 1."""
    return max(1, min(most, FRAME_BYTES // frame.nbytes))


@contextlib.contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """`items`, made in a thread of their own, at most `depth` of them ahead of their use.

    with ahead(decode(path), 8) as frames: ...   A fault in that thread is raised where the items
    are used. However the block ends, the thread has ended too and `items`, if a generator, is
    closed. Decoding, networks and encoding release Python's lock, so stages do overlap.
    """
    made: queue.Queue = queue.Queue(depth)
    unwanted = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=POLL)
                return True
        return False

    def work() -> None:
        last: tuple[object, BaseException | None] = (end, None)
        try:
            for item in items:
                if not put((item, None)):
                    break
        except BaseException as error:  # raised again by the user of the items
            last = (end, error)
        finally:
            if isinstance(items, Generator):
                items.close()
        put(last)

    def use() -> Iterator[T]:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item

    thread = threading.Thread(target=work, name="stage", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        unwanted.set()
        thread.join()
