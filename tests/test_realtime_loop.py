"""The loop of live mode and its outputs, in simulated time."""

from __future__ import annotations

import collections
import io

import av
import numpy as np
import pytest

from errors import InputError
from live.loop import run_live
from live.output import ContainerSink, FileSink, create_sink
from live.speech import SpeechStream
from media.read import iter_frames, load_audio


class Clock:
    """Seconds that pass only when somebody works or waits."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time


class SlowStream:
    """As LipSyncStream; its frames show their number and take `cost` seconds, later `after`."""

    def __init__(self, clock, fps, cost, change=10**9, after=0.0):
        self.fps, self.clock = fps, clock
        self.cost, self.change, self.after = cost, change, after
        self.speech, self.number = SpeechStream(fps), 0

    def hear(self, pcm):
        return self.speech.feed(pcm[:, 0])

    def end(self):
        return self.speech.flush()

    def draw(self, windows):
        self.clock.time += self.cost if self.number < self.change else self.after
        frame = np.full((16, 16, 3), self.number % 256, np.uint8)
        self.number += len(windows)
        return [frame]

    def skip(self):
        self.number += 1


class SimulatedInbox:
    """20 ms pieces that arrive in real time of the clock."""

    def __init__(self, clock, wav, rate=16000):
        self.clock, self.ended = clock, False
        size = rate // 50
        ends = range(size, len(wav) + size, size)
        self.queue = collections.deque((end / rate, wav[end - size : end, None]) for end in ends)

    def take(self, wait):
        if wait and self.queue:
            self.clock.time = max(self.clock.time, self.queue[0][0])
        taken = []
        while self.queue and self.queue[0][0] <= self.clock.time:
            taken.append(self.queue.popleft())
        self.ended = not self.queue
        return taken


class Shown:
    """A sink that remembers (time, frame number or None where it was dropped)."""

    closed = False

    def __init__(self, clock):
        self.clock, self.shown = clock, []

    def sound(self, pcm):
        pass

    def frame(self, picture):
        self.shown.append((self.clock.time, int(picture[0, 0, 0])))

    def skip(self):
        self.shown.append((self.clock.time, None))


def simulate(seconds=8.0, fps=25, cost=0.0, **change):
    clock = Clock()
    rng = np.random.default_rng(0)
    wav = (0.1 * rng.standard_normal(round(seconds * 16000))).astype(np.float32)
    sink = Shown(clock)
    stream = SlowStream(clock, fps, cost, **change)
    report = run_live(stream, SimulatedInbox(clock, wav), sink, 16000, 0.2, clock.now)
    return report, sink.shown


@pytest.mark.parametrize("fps", [25, 30])
def test_a_fast_machine_adds_nothing_to_the_lookahead(fps):
    report, shown = simulate(fps=fps)
    assert [number for _, number in shown] == [k % 256 for k in range(8 * fps)]
    assert report.frames == 8 * fps and report.dropped == 0 and report.drift == 0
    assert report.lookahead_ms == pytest.approx(172.5)
    assert 150 <= report.latency_ms["p50"] <= 172.5 + 20  # pieces of 20 ms
    assert report.real_time_factor == 0


def test_a_slow_machine_drops_frames_and_stays_on_time():
    cost = 0.06  # a frame lasts 0.04 s
    report, shown = simulate(cost=cost)
    numbers = [number for _, number in shown]
    assert len(numbers) == report.frames == 200 and report.drift == 0
    assert all(number in (None, k % 256) for k, number in enumerate(numbers))
    assert 55 <= report.dropped == numbers.count(None) <= 70  # a third cannot be drawn
    assert report.latency_ms["max"] <= 1000 * (SpeechStream.LOOKAHEAD + 0.2 + 2 * cost)
    late = [time - k / 25 for k, (time, number) in enumerate(shown) if number is not None]
    assert max(late) <= SpeechStream.LOOKAHEAD + 0.2 + 2 * cost
    assert report.real_time_factor == pytest.approx(1, abs=0.1)


def test_after_a_jam_nothing_stays_behind():
    report, shown = simulate(cost=0.3, change=40, after=0.01)
    assert report.dropped > 20
    settled = [time - k / 25 for k, (time, _) in enumerate(shown) if 80 <= k < 190]
    assert max(settled) <= SpeechStream.LOOKAHEAD + 0.04
    assert [n for _, n in shown][80:] == [k % 256 for k in range(80, 200)]


def test_dropped_frames_keep_picture_and_sound_equally_long(tmp_path):
    clock, path = Clock(), str(tmp_path / "out.mkv")
    wav = (0.1 * np.random.default_rng(0).standard_normal(3 * 16000 + 100)).astype(np.float32)
    with FileSink(path, 25, 16000, 1) as sink:
        stream = SlowStream(clock, 25, 0.07)
        report = run_live(stream, SimulatedInbox(clock, wav), sink, 16000, 0.2, clock.now)
    assert report.dropped > 10 and report.frames == 75
    numbers = [int(frame[0, 0, 0]) for _, frame in iter_frames(path)]
    assert len(numbers) == 75
    for k, number in enumerate(numbers):  # itself, or the one before, repeated
        assert number == k or number == numbers[k - 1]
    assert np.abs(load_audio(path) - wav[: 3 * 16000]).max() < 1e-4


class Memory(io.BytesIO):
    """A pipe whose reader keeps everything."""

    gone = False

    def check(self):
        pass


@pytest.mark.parametrize("cost", [0.0, 0.07])
@pytest.mark.parametrize("name", ["mpegts", "mkv"])
def test_live_container_has_both_tracks(name, cost):
    clock, pipe = Clock(), Memory()
    pipe.seek = pipe.tell = None  # as a pipe: what is written stays written
    wav = (0.1 * np.random.default_rng(0).standard_normal(3 * 16000)).astype(np.float32)
    with ContainerSink(pipe, name, 25, 16000, 1) as sink:
        stream = SlowStream(clock, 25, cost)
        report = run_live(stream, SimulatedInbox(clock, wav), sink, 16000, 0.2, clock.now)
    spans = {}
    for kind in ("video", "audio"):
        with av.open(io.BytesIO(pipe.getvalue())) as container:
            frames = [(f.time, f) for f in container.decode(**{kind: 0})]
        last = frames[-1][1]
        length = 1 / 25 if kind == "video" else last.samples / last.sample_rate
        spans[kind] = frames[0][0], frames[-1][0] + length
        if kind == "video":
            numbers = np.round([25 * (time - frames[0][0]) for time, _ in frames])
            brightness = [f.to_ndarray(format="gray").mean() for _, f in frames]
            assert 0 <= len(frames) - (report.frames - report.dropped) <= 1  # one to fill the end
            steps = np.diff(brightness)[:-1] - np.diff(numbers)[:-1]
            assert np.abs(steps).max() < 2.5  # each picture at its own time
    assert (report.dropped > 10) == (cost > 0)
    assert abs(spans["video"][0] - spans["audio"][0]) <= 1 / 25
    assert abs(spans["video"][1] - spans["audio"][1]) <= 2 / 25  # an AAC frame lasts 21 ms


def test_a_frame_leaves_at_once():
    """FFmpeg keeps a frame until sound follows it: that must not be the next frame's."""
    clock, pipe, written = Clock(), Memory(), []
    pipe.seek = pipe.tell = None

    class Sink(ContainerSink):
        def frame(self, picture):
            super().frame(picture)
            written.append(len(pipe.getvalue()))

    wav = (0.1 * np.random.default_rng(0).standard_normal(2 * 16000)).astype(np.float32)
    with Sink(pipe, "mpegts", 25, 16000, 1) as sink:
        stream = SlowStream(clock, 25, 0.0)
        run_live(stream, SimulatedInbox(clock, wav), sink, 16000, 0.2, clock.now)
    with av.open(io.BytesIO(pipe.getvalue())) as container:
        begin = [packet.pos for packet in container.demux(video=0) if packet.size]
    assert len(begin) == len(written) == 50
    late = {k for k, begun in enumerate(begin) if begun >= written[k]}
    assert late <= {0, 49}  # the first waits for both tracks, behind the last there is no sound


def test_no_sound_is_an_error():
    clock = Clock()
    inbox = SimulatedInbox(clock, np.zeros(0, np.float32))
    with pytest.raises(InputError, match="no sound"):
        run_live(SlowStream(clock, 25, 0.0), inbox, Shown(clock), 16000, 0.2, clock.now)


def test_no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display.*--outfile"):
        create_sink("window", "raw", 25, 16000, 1)
