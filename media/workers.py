"""Many tasks shared among workers: a thread for each of an executor, which does its task itself or
hands it to a process of its own, or of another machine.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from errors import InputError

Task, Answer = TypeVar("Task"), TypeVar("Answer")
PATIENCE = 20  # seconds a process gets to clean up before it is killed


def share_out(
    tasks: Iterable[Task],
    workers: Sequence[Callable[[Task], Answer]],
    stop: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Task, Answer]]:
    """(task, answer) of each task as it is done, in any order; begun in the order given.

    Each worker does one task at a time. What one raises ends all. stop: called when all is done,
    something is raised or the caller stops listening; it makes the workers give up what they do.
    """
    free: queue.SimpleQueue = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def do(task: Task) -> Answer:
        worker = free.get()
        try:
            return worker(task)
        finally:
            free.put(worker)

    executor = ThreadPoolExecutor(max(1, len(workers)))
    futures = {executor.submit(do, task): task for task in tasks}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        stop()
        executor.shutdown()


class Process:
    """A process of its own, whose `workers` answer tasks with start(*args)(task), each in a thread
    there; one alone in the main thread, so that a signal finds it.

    Where it dies, died(task, how it ended) is the answer to the tasks at hand, and the
    next task begins another. It ends with this process, and never meets Ctrl-C. InputError where
    `start` raises one, or the process does not come to answer.
    """

    def __init__(
        self,
        start: Callable[..., Callable[[Task], Answer]],
        args: tuple,
        died: Callable[[Task, str], Answer],
        threads: int = 1,
    ) -> None:
        self.workers = [functools.partial(self._ask, number) for number in range(threads)]
        self._start, self._args, self._died = start, args, died
        self._lock, self._stopped = threading.Lock(), False
        self._child: multiprocessing.process.BaseProcess | None = None
        self._pipes: list = []

    def _ask(self, worker: int, task: Task) -> Answer:
        with self._lock:
            if self._child is None or not self._child.is_alive():
                self._begin()
            child, pipe = self._child, self._pipes[worker]
        try:
            pipe.send(task)
            return pipe.recv()
        except (EOFError, OSError):
            with self._lock:
                return self._died(task, _ended(child))

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads
        pipes = [context.Pipe() for _ in self.workers]
        args = (self._start, self._args, [theirs for _, theirs in pipes])
        child = context.Process(target=_serve, args=args, daemon=True)
        with _deaf_to_interrupts():
            child.start()
        for _, theirs in pipes:
            theirs.close()  # so that its death is seen here as an end of file
        self._child, self._pipes = child, [ours for ours, _ in pipes]
        if self._stopped:
            child.terminate()
        try:
            fault = self._pipes[0].recv()
        except (EOFError, OSError):
            fault = InputError(f"a worker process could not begin: it {_ended(child)}")
        if fault is not None:
            raise fault

    def terminate(self) -> None:
        """Tell it to clean up and end; `end` waits for that."""
        self._stopped = True  # first: one that is about to begin sees this, or is seen here
        if self._child is not None:
            self._child.terminate()

    def end(self) -> None:
        with self._lock:
            if self._child is not None:
                _ended(self._child)


def stop_all(processes: Sequence[Process]) -> None:
    """What share_out takes as `stop` for the workers of processes."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.end()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that is started in here never meets Ctrl-C, which a terminal sends to all: it is
    for the parent, which ends it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # now: its own start would let interrupts through again
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def _ended(child: multiprocessing.process.BaseProcess) -> str:
    """How a process ended that is ending, or is killed for not doing so."""
    child.join(PATIENCE)
    if child.is_alive():
        child.kill()
        child.join()
    if child.exitcode < 0:
        return f"was killed (signal {-child.exitcode})"
    return f"ended (exit code {child.exitcode})"


def _serve(start: Callable, args: tuple, pipes: list) -> None:
    """In the process: start, then answer what comes through each pipe."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: cleaning up is not interrupted
        if len(pipes) > 1:
            os._exit(143)  # threads at work in native code cannot be ended otherwise
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        work, fault = start(*args), None
    except InputError as error:
        work, fault = None, error
    with contextlib.suppress(OSError):
        pipes[0].send(fault)
    if fault is None:
        for pipe in pipes[1:]:
            threading.Thread(target=_answer, args=(work, pipe), daemon=True).start()
        _answer(work, pipes[0])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending


def _answer(work: Callable, pipe) -> None:
    """Until the parent is gone, which shows as an end of file or, with answers unread, a reset."""
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        answer = work(task)
        with contextlib.suppress(OSError):
            pipe.send(answer)


def end_with_parent(end: Callable[[], None]) -> None:
    """Killed or not, the parent takes this process along: it would work on beside the next run.
    end: called in a thread when the parent is gone.
    """

    def follow() -> None:
        multiprocessing.parent_process().join()
        end()

    threading.Thread(target=follow, daemon=True).start()
