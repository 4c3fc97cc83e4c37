"""Live sound: real time in simulated time, faults, ends."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
from conftest import GOLDEN

from errors import InputError
from live.sound import Inbox, Sound, file_pieces, open_sound, stdin_pieces
from media.read import load_audio

FOLDER = GOLDEN / "inference"
FACE, VIDEO, SPEECH = (str(FOLDER / name) for name in ("face.png", "face25.mkv", "speech.wav"))


class Clock:
    """Seconds that pass only when somebody works or waits."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time


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


def test_no_microphone(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as if it were not installed
    with pytest.raises(InputError, match="pip install sounddevice"):
        open_sound("mic", 16000)
