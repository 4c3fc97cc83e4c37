"""media/workers.py: tasks shared out among threads and processes, and what a death costs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY, is_deaf_to_interrupts

from errors import InputError
from media.workers import Process, share_out, stop_all


def start(factor):
    """In the process: tasks are numbers, or what is to befall it."""
    if factor == 0:
        raise InputError("not by 0")
    if factor < 0:
        os._exit(7)

    def work(task):
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "sleep":
            time.sleep(600)
        return factor * task if isinstance(task, int) else os.getpid()

    return work


def died(task, how):
    return task, how


def answers(tasks, *processes):
    workers = [worker for process in processes for worker in process.workers]
    return share_out(tasks, workers, lambda: stop_all(processes))


def test_threads_do_each_task_once_and_begin_in_order():
    begun, lock = [], threading.Lock()

    def work(task):
        with lock:
            begun.append(task)
        return task**2

    assert sorted(share_out(range(20), [work] * 3)) == [(n, n**2) for n in range(20)]
    assert sorted(begun) == list(range(20)) and begun[0] in range(3)
    assert list(share_out([], [])) == []


def test_what_a_worker_raises_ends_all():
    done, told = [], []

    def work(task):
        if task == 3:
            raise InputError("three")
        done.append(task)

    with pytest.raises(InputError, match="three"):
        list(share_out(range(1000), [work], lambda: told.append(True)))
    assert len(done) < 1000 and told == [True]


def test_a_process_that_dies_costs_the_task_at_hand_and_another_follows():
    process = Process(start, (2,), died)
    told = dict(answers([1, "die", 2, 3], process))
    assert told == {1: 2, "die": ("die", "was killed (signal 9)"), 2: 4, 3: 6}
    assert multiprocessing.active_children() == []


def test_threads_of_one_process_and_the_end_of_a_listener():
    process = Process(start, (2,), died, threads=3)
    stream = answers(["pid", "pid", "sleep", "pid", *range(500)], process)
    pid = next(stream)[1]
    assert is_deaf_to_interrupts(pid)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 15 and multiprocessing.active_children() == []


def test_a_process_that_cannot_start_ends_all():
    for factor, words in ((0, "not by 0"), (-1, "could not begin: it ended .exit code 7")):
        with pytest.raises(InputError, match=words):
            list(answers([1, 2], Process(start, (factor,), died), Process(start, (1,), died)))
        assert multiprocessing.active_children() == []


PARENT = """
import sys, time
sys.path[:0] = ["tests"]
from test_workers import answers, died, start, Process
if __name__ == "__main__":
    print(next(answers(["pid"], Process(start, (1,), died, 2)))[1], flush=True)
    process = Process(start, (1,), died, 2)
    print(process.workers[0]("pid"), flush=True)
    process._pipes[0].send("pid"); process._pipes[1].send("sleep")
    time.sleep(600)
"""


def test_no_process_outlives_its_parent_whatever_it_has_not_read(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], cwd=REPOSITORY,
                              env=os.environ | {"PYTHONPATH": "."}, text=True,
                              stdout=subprocess.PIPE)  # fmt: skip
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    time.sleep(1)  # its answer lies there, unread
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive
