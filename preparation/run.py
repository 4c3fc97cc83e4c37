"""Many videos: a thread for each that is in work, here, in a process for each of several devices,
or before an actor of a Ray cluster.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence

from errors import InputError, require_package
from media.workers import Process, share_out, stop_all
from preparation.process import Preparer, Result, Settings, Video


def run(videos: Sequence[Video], settings: Settings, devices: Sequence[str]) -> Iterator[Result]:
    """A Result for each video as it is done, in any order. Where the caller stops listening, the
    videos in work are given up within a moment.
    """
    if len(devices) == 1:
        preparer = Preparer(settings, devices[0])
        workers = [preparer.process] * settings.workers
        stop = functools.partial(setattr, preparer, "stopping", True)
    else:  # one interpreter cannot feed several GPUs
        processes = [
            Process(_start, (settings, device), _died, settings.workers) for device in devices
        ]
        workers = [w for row in zip(*(p.workers for p in processes), strict=True) for w in row]
        stop = functools.partial(stop_all, processes)
    for _, result in share_out(videos, workers, stop):
        yield result


def _start(settings: Settings, device: str) -> Callable[[Video], Result]:
    return Preparer(settings, device).process


def _died(video: Video, how: str) -> Result:
    return Result(video[0], error=f"its worker process {how}")


def run_on_ray(
    videos: Sequence[Video], settings: Settings, address: str, per_gpu: bool
) -> Iterator[Result]:
    """Like `run`, on a Ray cluster: an actor for each GPU of the cluster, or each `workers` CPUs.

    An actor that dies is started again and its videos are given to it anew. The corpus and
    preprocessed_root must have the same paths on all machines (a shared file system). address:
    "local" starts Ray here, "auto" finds a running one; where the process is connected already, it
    counts for nothing, and the connection stays. InputError where Ray is not installed or cannot be
    reached.
    """
    ray = require_package("ray", "--ray", "ray")
    ours, actors = not ray.is_initialized(), []
    if ours:
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
    try:
        resource, amount = ("GPU", 1) if per_gpu else ("CPU", settings.workers)
        count = int(ray.cluster_resources().get(resource, 0) // amount)
        if count < 1:
            raise InputError(f"the Ray cluster has fewer than {amount} {resource}s")
        actor = ray.remote(Preparer).options(
            num_gpus=1 if per_gpu else 0,
            num_cpus=0 if per_gpu else amount,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=settings.workers,
        )
        actors += [actor.remote(settings, "cuda" if per_gpu else "cpu") for _ in range(count)]
        workers = [functools.partial(_on_actor, ray, a) for a in actors] * settings.workers
        for _, result in share_out(videos, workers, lambda: [ray.kill(a) for a in actors]):
            yield result
    finally:
        if ours:
            ray.shutdown()


def _on_actor(ray, actor, video: Video) -> Result:
    try:
        return ray.get(actor.process.remote(video))
    except ray.exceptions.RayError as error:
        return Result(video[0], error=f"Ray: {' '.join(str(error).split())[:200]}")
