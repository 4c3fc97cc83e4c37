"""Live mode: the frames are the offline ones, late ones are dropped, and every output is whole."""

from __future__ import annotations

import collections
import io
import json
import os
import signal
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from conftest import GOLDEN, REPOSITORY, assert_refused, run_script

from errors import InputError
from inference import LipSync
from media import iter_frames, load_audio
from realtime import LipSyncStream
from realtime_loop import run_live
from realtime_output import ContainerSink, FileSink, create_sink
from realtime_sound import Inbox, Sound, file_pieces, open_sound, stdin_pieces
from speech_stream import SpeechStream

FOLDER = GOLDEN / "inference"
FACE, VIDEO, SPEECH = (str(FOLDER / name) for name in ("face.png", "face25.mkv", "speech.wav"))
CASES = {
    "image": (FACE, {"box": (40, 200, 60, 190)}),
    "image30": (FACE, {"box": (40, 200, 60, 190), "fps": 30.0}),
    "video": (VIDEO, {"box": (30, 170, 40, 150)}),
    "bounce": (VIDEO, {"box": (30, 170, 40, 150), "pad": "bounce"}),
    "hold": (VIDEO, {"box": (30, 170, 40, 150), "pad": "hold", "paste": "hard"}),
    "static": (VIDEO, {"box": (30, 170, 40, 150), "static": True}),
}


@pytest.fixture(scope="module")
def lipsync(filled_generator):
    return LipSync(filled_generator, device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_frames_are_those_of_offline_inference(lipsync, tmp_path, case):
    face, options = CASES[case]
    out = str(tmp_path / "out.mkv")
    lipsync.run(face, SPEECH, out, **options)
    assert face == FACE or len(list(iter_frames(VIDEO))) < 18  # a video is played again
    offline = [frame for _, frame in iter_frames(out)]
    pcm = np.round(load_audio(SPEECH) * 32768).astype(np.int16)
    with LipSyncStream(lipsync, face, **options) as stream:
        live = [frame for part in np.array_split(pcm, 31) for frame in stream.feed(part)]
        live += stream.flush()
    assert len(live) == len(offline)
    for frame, expected in zip(live, offline, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - expected).max() <= 1


def test_close_ends_the_threads(lipsync):
    before = threading.active_count()
    stream = LipSyncStream(lipsync, VIDEO, box=CASES["video"][1]["box"])
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before


def test_a_frame_without_a_face_passes(filled_generator, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"boxes": [[40, 30, 150, 170]] * 3 + [None] * 50}))
    lipsync = LipSync(filled_generator, "cpu", "boxes", {"path": str(path)})
    source = [frame for _, frame in iter_frames(VIDEO)]
    with LipSyncStream(lipsync, VIDEO, no_face="pass") as stream:
        frames = stream.feed(load_audio(SPEECH))
    for index, frame in enumerate(frames):
        shown = index % len(source)
        assert (frame == source[shown]).all() == (shown >= 3)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_and_channels(rate):
    """The windows are those of the sound that offline inference resamples."""
    from realtime import _Resampler, as_float

    seconds = np.arange(round(1.3 * rate)) / rate
    wav = (0.4 * np.sin(2 * np.pi * 300 * seconds)).astype(np.float32)
    stereo = np.stack([wav, wav], 1)
    resampler = _Resampler(rate)
    parts = [resampler.feed(as_float(p).mean(axis=1)) for p in np.array_split(stereo, 57)]
    out = np.concatenate([*parts, resampler.flush()])
    expected = 0.4 * np.sin(2 * np.pi * 300 * np.arange(len(out)) / 16000)
    assert abs(len(out) - 1.3 * 16000) <= 2
    assert np.abs(out - expected)[200:-200].max() < 0.01  # no shift: 300 Hz would show it


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"silence_gate": -40.0}, "silence_gate"),
        ({"enhance": "cat"}, "enhance"),
        ({"faithful": True}, "faithful"),
        ({"pad": "stretch"}, "stretch"),
        ({"sample_rate": 10}, "10 Hz"),
    ],
)
def test_what_a_stream_cannot_do(lipsync, options, word):
    with pytest.raises(InputError, match=word):
        LipSyncStream(lipsync, FACE, box=CASES["image"][1]["box"], **options)


def test_sound_of_another_kind(lipsync):
    with LipSyncStream(lipsync, FACE, box=CASES["image"][1]["box"]) as stream:
        with pytest.raises(InputError, match="int16 or float32"):
            stream.feed(np.zeros(100))
        with pytest.raises(InputError, match="finite"):
            stream.feed(np.full(100, np.nan, np.float32))
        assert stream.feed(np.zeros(0, np.int16)) == [] and stream.flush() == []


# The loop, in simulated time


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


def test_no_sound_is_an_error():
    clock = Clock()
    inbox = SimulatedInbox(clock, np.zeros(0, np.float32))
    with pytest.raises(InputError, match="no sound"):
        run_live(SlowStream(clock, 25, 0.0), inbox, Shown(clock), 16000, 0.2, clock.now)


# Sound


class Waiting:
    """A threading.Event that passes simulated time instead of waiting."""

    def __init__(self, clock):
        self.clock = clock

    def wait(self, seconds):
        self.clock.time += seconds
        return False


def test_a_file_is_heard_in_real_time():
    clock = Clock()
    pieces = list(file_pieces(SPEECH, 16000, 1, Waiting(clock), clock.now))
    heard = 0
    for arrival, pcm in pieces:
        heard += len(pcm)
        assert arrival == pytest.approx(heard / 16000) and len(pcm) <= 320
    assert clock.time == pytest.approx(heard / 16000)
    assert (np.concatenate([pcm for _, pcm in pieces])[:, 0] == load_audio(SPEECH)).all()


def test_standard_input_is_held_to_real_time():
    clock = Clock()
    data = (np.arange(64000) % 1000).astype("<i2").tobytes() + b"\x01"  # and half a sample
    file = io.BytesIO(data)
    pieces = list(stdin_pieces(lambda _: file.read(333), 16000, Waiting(clock), clock.now))
    pcm = np.concatenate([pcm for _, pcm in pieces])
    assert (pcm[:, 0] * 32768 == np.arange(64000) % 1000).all()
    assert pieces[-1][0] == pytest.approx(4.0, abs=0.6)


def test_inbox_hands_on_faults_and_ends_its_thread():
    def pieces(stop):
        yield 0.0, np.zeros((10, 1), np.float32)
        raise InputError("broken cable")

    before = threading.active_count()
    with Inbox(Sound(16000, 1, pieces)) as inbox, pytest.raises(InputError, match="cable"):
        while not inbox.ended:
            inbox.take(wait=True)
    assert threading.active_count() == before


def test_seconds_end_the_sound_exactly():
    def pieces(stop):
        while True:
            yield 0.0, np.zeros((320, 1), np.float32)

    taken = []
    with Inbox(Sound(16000, 1, pieces), seconds=0.11) as inbox:
        while not inbox.ended:
            taken += inbox.take(wait=True)
    assert sum(len(pcm) for _, pcm in taken) == 1760


# The script


@pytest.fixture(scope="module")
def small_generator(tmp_path_factory):
    """A narrow generator: the script's own behaviour is tested, quickly."""
    import torch
    from fill import fill

    from models import create_model

    path = tmp_path_factory.mktemp("small") / "wav2lip.pth"
    state = fill(create_model("Wav2Lip", width=0.125)).state_dict()
    torch.save({"state_dict": state, "model": {"name": "Wav2Lip", "width": 0.125}}, path)
    return path


def command(weights, *extra, face=FACE, audio=SPEECH):
    box = ("--box", "40", "200", "60", "190")
    argv = ("--checkpoint_path", weights, "--face", face, "--audio", audio, *box, *extra)
    return [sys.executable, str(REPOSITORY / "realtime.py"), *map(str, argv)]


def live(weights, *extra, **keywords):
    audio = {"audio": keywords.pop("audio", SPEECH)}
    argv = command(weights, *extra, **audio)
    return subprocess.run(argv, capture_output=True, timeout=600, cwd=REPOSITORY, **keywords)


def test_file_with_report(small_generator, tmp_path):
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    result = live(small_generator, "--outfile", out, "--report", report)
    assert result.returncode == 0 and not result.stdout, result.stderr
    seen = json.loads(report.read_text())
    seconds = len(load_audio(SPEECH)) / 16000
    assert seen["audio_seconds"] == pytest.approx(seconds)
    assert seen["frames"] == round(25 * seconds) and abs(seen["drift"]) < 0.021
    assert set(seen["latency_ms"]) == {"p50", "p95", "p99", "max"}
    with av.open(str(out)) as container:
        video, audio = (float(s.duration * s.time_base) for s in container.streams)
    assert abs(video - audio) <= 1 / 25
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", "report.json"]


def test_raw_pixels_from_standard_input(small_generator):
    pcm = np.round(load_audio(SPEECH) * 32767).astype("<i2")
    result = live(small_generator, "--outfile", "-", "--format", "raw", "--seconds", "0.4",
                  audio="-", input=pcm.tobytes())  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == 10 * 256 * 256 * 3
    assert b"10 frames" in result.stderr


def test_a_closed_pipe_ends_quietly(small_generator):
    argv = command(small_generator, "--outfile", "-")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0, errors
    assert b"Traceback" not in errors and b"error" not in errors
    process.stderr.close()


def test_interruption_finishes_the_file(small_generator, tmp_path):
    out = tmp_path / "out.mp4"
    argv = command(small_generator, "--outfile", out, audio="-")
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr.readline() == b"ready\n"
    process.stdin.write(np.zeros(16000, "<i2").tobytes())
    process.stdin.flush()
    threading.Event().wait(1.5)  # standard input stays open: only the signal can end it
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0, errors
    assert len(list(iter_frames(out))) > 0
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_bad_input_is_refused(small_generator, tmp_path):
    picture, text = str(tmp_path / "grey.png"), tmp_path / "text.wav"
    import cv2

    cv2.imwrite(picture, np.full((64, 64, 3), 128, np.uint8))
    text.write_text("not sound")
    out = tmp_path / "out.mp4"

    def refused(*words, **changes):
        flags = {"face": FACE, "audio": SPEECH, "outfile": out} | changes
        argv = [part for name, value in flags.items() for part in (f"--{name}", value)]
        result = run_script("realtime.py", "--checkpoint_path", small_generator, *argv)
        assert_refused(result, *words)
        assert sorted(os.listdir(tmp_path)) == ["grey.png", "text.wav"]

    refused("face not found", face=tmp_path / "none.png")
    refused("no face found", face=picture)
    refused("text.wav", audio=text)
    refused("audio not found", audio=tmp_path / "none.wav")
    refused("ends in .mp4", outfile=tmp_path / "out.txt")
    refused("at least 8", fps=5)
    refused("--silence_gate", silence_gate=-40)


def test_empty_standard_input(small_generator, tmp_path):
    result = live(small_generator, "--outfile", tmp_path / "o.mp4", audio="-", input=b"")
    assert result.returncode == 2 and b"no sound came" in result.stderr
    assert not os.listdir(tmp_path)


def test_no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display.*--outfile"):
        create_sink("window", "raw", 25, 16000, 1)


def test_no_microphone(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as if it were not installed
    with pytest.raises(InputError, match="pip install sounddevice"):
        open_sound("mic", 16000)
