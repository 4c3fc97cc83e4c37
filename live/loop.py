"""The loop of live mode: sound in, frames out on time, late ones dropped; and how well it went."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from errors import InputError
from live.speech import SpeechStream

MAX_LAG = 0.2  # seconds


@dataclass
class LiveReport:
    """How a live run went. Times in seconds unless named ms."""

    frames: int  # of the output's time line, those dropped included
    dropped: int
    fps: float
    audio_seconds: float
    wall_seconds: float
    busy_seconds: float  # of them not spent waiting for sound
    latency_ms: dict[str, float]  # from the sound of a frame's instant to that frame written
    lookahead_ms: float  # how much of that the mel window needs to hear first, on any machine

    @property
    def drift(self) -> float:
        """Seconds of picture less seconds of sound: within half a frame, but for a closed pipe."""
        return self.frames / self.fps - self.audio_seconds

    @property
    def real_time_factor(self) -> float:
        """Below 1: faster than real time."""
        return self.busy_seconds / self.audio_seconds

    def to_dict(self) -> dict:
        return asdict(self) | {"drift": self.drift, "real_time_factor": self.real_time_factor}

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.0f} ms" for name, value in self.latency_ms.items())
        return (
            f"{self.frames} frames, {self.dropped} dropped, at {self.fps:g} fps for "
            f"{self.audio_seconds:.2f} s of sound (drift {self.drift * 1000:+.0f} ms)\n"
            f"latency {times}; the look-ahead alone is {self.lookahead_ms:.0f} ms\n"
            f"real-time factor {self.real_time_factor:.2f}"
        )


def run_live(
    stream,
    inbox,
    sink,
    rate: int,
    max_lag: float = MAX_LAG,
    now: Callable[[], float] = time.monotonic,
) -> LiveReport:
    """Frames into `sink` while sound comes from `inbox` (sound.Inbox), until either ends.

    Frame k is the frame of time k / fps. One that would come `max_lag` seconds after its sound was
    complete is dropped, and not drawn. InputError where no sound comes at all.
    """
    due: collections.deque = collections.deque()  # (mel window, when its sound was complete)
    arrivals: collections.deque = collections.deque()  # (samples up to its end, when it came)
    latencies: list[float] = []
    frames = dropped = heard = 0
    flushed, began, busy = False, None, 0.0
    while not sink.closed and not (flushed and not due):
        pieces = inbox.take(wait=not due)
        turn = now()
        began = turn if began is None else began
        for arrival, pcm in pieces:
            heard += len(pcm)
            arrivals.append((heard, arrival))
            sink.sound(pcm)
            due.extend((mel, arrival) for mel in stream.hear(pcm))
        if inbox.ended and not flushed:
            flushed = True
            due.extend((mel, now()) for mel in stream.end())
        if due:
            mel, complete = due.popleft()
            while arrivals[0][0] <= frames / stream.fps * rate:  # the sound of its instant
                arrivals.popleft()
            if latencies and now() - complete > max_lag:
                stream.skip()
                sink.skip()
                dropped += 1
            else:
                sink.frame(stream.draw([mel])[0])
                latencies.append(1000 * (now() - arrivals[0][1]))
            frames += 1
        busy += now() - turn
    if not heard:
        raise InputError("no sound came: nothing to say")
    shares = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    table = {key: float(np.percentile(latencies or [0.0], q)) for key, q in shares.items()}
    wall = now() - began
    return LiveReport(
        frames, dropped, stream.fps, heard / rate, wall, busy, table, 1000 * SpeechStream.LOOKAHEAD
    )
