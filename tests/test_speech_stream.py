"""The stream's mel windows are those of the whole speech, however it is chopped."""

from __future__ import annotations

import numpy as np
import pytest

from audio import speech_chunks
from errors import InputError
from live.speech import SAMPLE_RATE, SpeechStream


def speech(seconds, seed=0):
    """Noise whose loudness comes and goes, with a pause of exact silence."""
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    wav = rng.standard_normal(count) * np.sin(np.linspace(0, 9 * seconds, count)) ** 2 / 8
    wav[count // 3 : count // 2] = 0
    return wav.astype(np.float32)


def pieces(wav, sizes):
    position = 0
    while position < len(wav):
        size = next(sizes)
        yield wav[position : position + size]
        position += size


def streamed(wav, fps, sizes):
    stream = SpeechStream(fps)
    windows = [window for piece in pieces(wav, sizes) for window in stream.feed(piece)]
    return windows + stream.flush()


def constant(size):
    while True:
        yield size


def at_random(seed):
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.choice([0, 1, 7, 199, 200, 201, 641, 5000]))


def assert_same(wav, fps, sizes):
    windows, expected = streamed(wav, fps, sizes), speech_chunks(wav, fps, faithful=False)
    assert len(windows) == len(expected)
    for window, other in zip(windows, expected, strict=True):
        assert window.shape == (80, 16)
        assert np.abs(window - other).max() <= 1e-4


@pytest.mark.parametrize("fps", [25, 30, 29.97, 50, 24])
@pytest.mark.parametrize("chop", ["one", "10 ms", "all", "random"])
def test_windows_are_those_of_the_whole_speech(fps, chop):
    wav = speech(0.9 if chop == "one" else 3.37)
    sizes = {"one": constant(1), "10 ms": constant(160), "all": constant(160000)}
    assert_same(wav, fps, sizes[chop] if chop in sizes else at_random(int(fps)))


@pytest.mark.parametrize("fps", [1, 3, 6.25, 120])
def test_odd_frame_rates(fps):
    assert_same(speech(4.3), fps, constant(160))
    assert_same(speech(4.3), fps, constant(16000))


@pytest.mark.parametrize("samples", [1, 480, 639, 640, 960, 3199, 3200])
def test_tiny_speech(samples):
    assert_same(speech(1)[:samples], 25, constant(160))


def test_many_lengths_end_alike():
    rng = np.random.default_rng(3)
    for length in rng.integers(1, 16000, 20):
        assert_same(speech(1)[:length], 25, constant(1000))


def test_no_speech_has_no_windows():
    stream = SpeechStream(25)
    assert stream.feed(np.zeros(0, np.float32)) == [] and stream.flush() == []


def test_a_window_comes_within_the_lookahead():
    """Fed sample by sample, frame k's window is there LOOKAHEAD after k / fps, or earlier."""
    wav, stream, seen = speech(1.5), SpeechStream(25), 0
    waits = []
    for position in range(0, len(wav), 10):
        for _ in stream.feed(wav[position : position + 10]):
            waits.append((position + 10) / SAMPLE_RATE - seen / 25)
            seen += 1
    assert max(waits) <= SpeechStream.LOOKAHEAD + 10 / SAMPLE_RATE
    assert max(waits) >= SpeechStream.LOOKAHEAD - 10 / SAMPLE_RATE  # and the figure is no excuse


def test_memory_is_bounded():
    stream = SpeechStream(25)
    for _ in range(100):
        stream.feed(np.zeros(1600, np.float32))
        assert len(stream._wav) < 2 * 16000


def test_a_sample_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="finite"):
        SpeechStream(25).feed(np.array([0, np.nan], np.float32))
