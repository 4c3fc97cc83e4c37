"""Detection as a service: the frames of many clips in, batches on the device, boxes out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np


class Stages:
    """Seconds that all threads together have spent in each stage of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, start: float) -> None:
        """Count the time since `start` (time.monotonic()) to `stage`."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start


class DetectionService:
    """Detectors, each in a thread of its own, fed from one queue.

    create: makes a detector (they are not shared among threads). merge: frames of several requests
    share a batch of up to `batch_size` where their shapes allow, which pays on a GPU.
    """

    def __init__(
        self,
        create: Callable[[], object],
        threads: int,
        batch_size: int,
        merge: bool,
        stages: Stages,
    ) -> None:
        detectors = [create() for _ in range(threads)]  # here, where a fault can still be told
        self.name = detectors[0].name
        self.batch_size, self.merge, self.stages = batch_size, merge, stages
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(detector,), daemon=True)
            for detector in detectors
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, frames: list[np.ndarray]) -> Future:
        """A Future of the boxes of `frames`, uint8 BGR of one shape: a list of Box per frame."""
        future: Future = Future()
        self._requests.put((frames, future))
        return future

    def close(self) -> None:
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, detector) -> None:
        waiting: list[tuple[list[np.ndarray], Future]] = []
        while True:
            if not waiting:
                request = self._requests.get()
                if request is None:
                    return
                waiting.append(request)
            batch = self._gather(waiting) if self.merge else [waiting.pop(0)]
            start = time.monotonic()
            self._detect(detector, batch)
            self.stages.add("detect", start)

    def _gather(self, waiting: list) -> list:
        """Requests of one shape that fit into a batch, the oldest first; the others wait on."""
        while True:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                break
            if request is None:
                self._requests.put(None)
                break
            waiting.append(request)
        shape, room, batch = waiting[0][0][0].shape, self.batch_size, []
        for request in list(waiting):
            frames = request[0]
            if frames[0].shape == shape and (not batch or len(frames) <= room):
                batch.append(request)
                waiting.remove(request)
                room -= len(frames)
        return batch

    @staticmethod
    def _detect(detector, batch: list[tuple[list[np.ndarray], Future]]) -> None:
        """Answer all requests of a batch; one that makes it fail does not take the others along."""
        try:
            found = detector.detect(np.stack([frame for frames, _ in batch for frame in frames]))
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for request in batch:
                    DetectionService._detect(detector, [request])
            return
        first = 0
        for frames, future in batch:
            future.set_result(found[first : first + len(frames)])
            first += len(frames)


class Immediate:
    """A detector that costs nothing, such as known boxes, behind the same `submit`."""

    def __init__(self, detector) -> None:
        self.name, self._detector = detector.name, detector

    def submit(self, frames: list[np.ndarray]) -> Future:
        future: Future = Future()
        future.set_result(self._detector.detect(np.stack(frames)))
        return future
