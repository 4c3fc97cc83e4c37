"""Many videos: threads on one device, a process for each of several, or actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from errors import InputError, deaf_to_interrupts
from preparation.pipeline import Result, Settings, Station, Stopped

Video = tuple[str, str]  # clip name, path


@dataclass
class Usage:
    """Where the time went: seconds per stage, summed over threads, and how many detectors ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: dict[str, float]) -> None:
        for stage, value in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    def shares(self) -> dict[str, float]:
        """Stage -> its share of all the time, 0..1."""
        total = sum(self.seconds.values())
        return {stage: value / total for stage, value in self.seconds.items()} if total else {}


def run(
    videos: Sequence[Video], settings: Settings, devices: Sequence[str], usage: Usage
) -> Iterator[Result]:
    """A Result for each video as it is done, in any order. Where the caller stops listening, the
    videos in work are given up within a moment.
    """
    if len(devices) == 1:
        yield from _run_threads(videos, settings, devices[0], usage)
    else:
        yield from _run_processes(videos, settings, devices, usage)


def _run_threads(
    videos: Sequence[Video], settings: Settings, device: str, usage: Usage
) -> Iterator[Result]:
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    for video in (*videos, *[None] * settings.workers):
        tasks.put(video)
    results: queue.SimpleQueue = queue.SimpleQueue()
    station = Station(settings, device)
    threads = _start_threads(station, tasks, results)
    try:
        for _ in videos:
            yield results.get()
    finally:
        station.stopping = True
        for thread in threads:
            thread.join()
        station.close()
        usage.add(station.stages.seconds)


def _start_threads(station: Station, tasks, results) -> list[threading.Thread]:
    """Threads that take videos from `tasks` until None comes, and put Results."""

    def work() -> None:
        while not station.stopping and (video := tasks.get()) is not None:
            try:
                results.put(station.process(*video))
            except Stopped:
                return

    threads = [threading.Thread(target=work) for _ in range(station.settings.workers)]
    for thread in threads:
        thread.start()
    return threads


def _run_processes(
    videos: Sequence[Video], settings: Settings, devices: Sequence[str], usage: Usage
) -> Iterator[Result]:
    """A process for each device: one interpreter cannot feed several GPUs. A process that dies
    takes the videos it was at along as failures; the others do the rest.
    """
    context = multiprocessing.get_context("spawn")
    workers, at_work = [], {}
    for device in devices:
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=_serve, args=(settings, device, theirs), daemon=True))
        with deaf_to_interrupts():
            workers[-1].start()
        theirs.close()  # so that its death is seen here as an end of file
        at_work[ours] = set()
    todo = list(reversed(videos))
    try:
        while at_work and (todo or any(at_work.values())):
            for connection, names in at_work.items():
                while todo and len(names) < settings.workers:
                    video = todo.pop()
                    names.add(video[0])
                    with contextlib.suppress(OSError):  # it died just now: found out below
                        connection.send(video)
            for connection in multiprocessing.connection.wait(list(at_work)):
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    for name in at_work.pop(connection):
                        yield Result(name, error="its worker process died (out of memory?)")
                    continue
                if isinstance(message, InputError):
                    raise message
                at_work[connection].discard(message.name)
                yield message
        for name, _ in todo:
            yield Result(name, error="all worker processes died; run again")
        for connection in at_work:
            with contextlib.suppress(EOFError, OSError):  # died when its work was done
                connection.send(None)
                usage.add(connection.recv())
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _serve(settings: Settings, device: str, connection) -> None:
    """A worker process: videos come in until None, Results go out, then its stages' seconds."""
    try:
        station = Station(settings, device)
    except InputError as error:
        connection.send(error)
        return
    tasks, results = queue.SimpleQueue(), queue.SimpleQueue()
    threads = _start_threads(station, tasks, results)
    forwarder = threading.Thread(target=_forward, args=(results, connection))
    forwarder.start()
    try:
        while (video := connection.recv()) is not None:
            tasks.put(video)
    except EOFError:
        os._exit(1)  # the parent was killed: do not work on beside its next run
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        thread.join()
    station.close()
    results.put(station.stages.seconds)
    results.put(None)
    forwarder.join()


def _forward(results: queue.SimpleQueue, connection) -> None:
    """Send what the threads put, one thing at a time, until None."""
    while (message := results.get()) is not None:
        connection.send(message)


def run_on_ray(
    videos: Sequence[Video], settings: Settings, address: str, per_gpu: bool, usage: Usage
) -> Iterator[Result]:
    """Like `run`, on a Ray cluster: an actor for each GPU of the cluster, or each `workers` CPUs.

    An actor that dies is started again and its videos are given to it anew. The corpus and
    preprocessed_root must have the same paths on all machines (a shared file system). address:
    "local" starts Ray here, "auto" finds a running one; where the process is connected already, it
    counts for nothing. InputError where Ray is not installed or
    cannot be reached.
    """
    ray = _connect(address)
    resource = "GPU" if per_gpu else "CPU"
    amount = 1 if per_gpu else settings.workers
    count = int(ray.cluster_resources().get(resource, 0) // amount)
    if count < 1:
        raise InputError(f"the Ray cluster has fewer than {amount} {resource}s")
    actor = ray.remote(RayStation).options(
        num_gpus=1 if per_gpu else 0,
        num_cpus=0 if per_gpu else amount,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=settings.workers,
    )
    stations = [actor.remote(settings, "cuda" if per_gpu else "cpu") for _ in range(count)]
    todo, at_work = list(reversed(videos)), {}
    try:
        while todo or at_work:
            for station in stations:
                busy = sum(owner is station for owner, _ in at_work.values())
                while todo and busy < settings.workers:
                    video = todo.pop()
                    at_work[station.process.remote(*video)] = station, video
                    busy += 1
            ready, _ = ray.wait(list(at_work), num_returns=1)
            _, (name, _) = at_work.pop(ready[0])
            try:
                yield ray.get(ready[0])
            except ray.exceptions.RayError as error:
                yield Result(name, error=f"Ray: {' '.join(str(error).split())[:200]}")
        for seconds in ray.get([station.seconds.remote() for station in stations]):
            usage.add(seconds)
    finally:
        for station in stations:
            ray.kill(station)
        ray.shutdown()


class RayStation:
    """A Station as a Ray actor."""

    def __init__(self, settings: Settings, device: str) -> None:
        self.station = Station(settings, device)

    def process(self, name: str, video: str) -> Result:
        return self.station.process(name, video)

    def seconds(self) -> dict[str, float]:
        return self.station.stages.seconds


def _connect(address: str):
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray needs the ray package: pip install ray") from error
    if ray.is_initialized():
        return ray
    # the workers import this project's modules, wherever they are started
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        ray.init(
            address=None if address == "local" else address,
            runtime_env={"env_vars": {"PYTHONPATH": here}},
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"--ray {address}: {str(error).splitlines()[0]}") from error
    return ray
