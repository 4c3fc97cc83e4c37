"""Where live speech comes from: a file in real time, standard input, the microphone.

Sound travels as pieces: (time of arrival, float32 (n, channels), full scale 1).
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from errors import InputError
from media.streams import POLL

PIECE = 0.02  # seconds of sound that are handed on at once
BURST = 0.5  # seconds of sound that standard input may deliver ahead of real time

Piece = tuple[float, np.ndarray]


@dataclass
class Sound:
    """A source of speech: its format, and its pieces as they arrive. `stop` ends a wait."""

    rate: int
    channels: int
    pieces: Callable[[threading.Event], Iterator[Piece]]


def open_sound(audio: str, sample_rate: int, now: Callable = time.monotonic) -> Sound:
    """The sound of a file in real time, of standard input ("-") or of the microphone ("mic").

    sample_rate: of the last two. InputError where there is no such sound.
    """
    if audio == "mic":
        return _microphone(sample_rate, now)
    if audio == "-":
        read = _reader(sys.stdin.fileno(), 2 * max(1, round(PIECE * sample_rate)))
        return Sound(sample_rate, 1, lambda stop: stdin_pieces(read, sample_rate, stop, now))
    from media.read import audio_format

    rate, channels = audio_format(audio)
    channels = min(2, channels)
    return Sound(rate, channels, lambda stop: file_pieces(audio, rate, channels, stop, now))


def file_pieces(
    path: str, rate: int, channels: int, stop: threading.Event, now: Callable
) -> Iterator[Piece]:
    """A file's sound, each piece at the moment at which its last sample would have been spoken."""
    from media.read import iter_audio

    size, start, count = max(1, round(PIECE * rate)), None, 0
    for chunk in iter_audio(path, rate, channels):
        start = now() if start is None else start
        for first in range(0, chunk.shape[1], size):
            piece = chunk[:, first : first + size].T
            count += len(piece)
            due = start + count / rate
            if stop.wait(max(0.0, due - now())):
                return
            yield due, piece


def stdin_pieces(
    read: Callable[[threading.Event], bytes], rate: int, stop: threading.Event, now: Callable
) -> Iterator[Piece]:
    """16-bit mono sound (n, 1) from `read`, whose b"" is the end.

    What comes faster than real time, from a file or a speech synthesiser, is held back: only BURST
    may run ahead, so that a live source that was stuck for a moment catches up.
    """
    rest, due = b"", now()
    while data := read(stop):
        data = rest + data
        whole = len(data) // 2 * 2
        piece, rest = np.frombuffer(data[:whole], "<i2"), data[whole:]
        due = max(now() - BURST, due + len(piece) / rate)
        if stop.wait(max(0.0, due - now())):
            return
        yield now(), (piece.astype(np.float32) / 32768)[:, None]


def _reader(file: int, size: int) -> Callable[[threading.Event], bytes]:
    """Reads what there is of a pipe, up to `size` bytes; b"" at its end or when stopped."""

    def read(stop: threading.Event) -> bytes:
        while not stop.is_set():
            if select.select([file], [], [], POLL)[0]:
                return os.read(file, size)
        return b""

    return read


def _microphone(rate: int, now: Callable) -> Sound:
    remedy = "give --audio FILE, or --audio - for 16-bit PCM on standard input"
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the PortAudio library is missing
        raise InputError(
            f"the microphone needs sounddevice ({error}): pip install sounddevice and install "
            f"libportaudio2, or {remedy}"
        ) from error
    try:
        sounddevice.check_input_settings(channels=1, samplerate=rate)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise InputError(f"no microphone can be used ({error}): {remedy}") from error

    def pieces(stop: threading.Event) -> Iterator[Piece]:
        heard: queue.SimpleQueue = queue.SimpleQueue()

        def take(data: np.ndarray, *_: object) -> None:
            heard.put((now(), data.copy()))

        with sounddevice.InputStream(
            rate, round(PIECE * rate), channels=1, dtype="float32", callback=take
        ):
            while not stop.is_set():
                with contextlib.suppress(queue.Empty):
                    yield heard.get(timeout=POLL)

    return Sound(rate, 1, pieces)


class Inbox:
    """Pieces of sound, collected by a thread of its own. A context manager: the thread ends."""

    def __init__(self, sound: Sound, seconds: float | None = None) -> None:
        """seconds: of sound, after which it ends."""
        self.ended = False
        self._queue: queue.SimpleQueue = queue.SimpleQueue()  # may be filled by a signal handler
        self._stop = threading.Event()
        left = None if seconds is None else round(seconds * sound.rate)
        self._thread = threading.Thread(target=self._collect, args=(sound, left), daemon=True)

    def _collect(self, sound: Sound, left: int | None) -> None:
        try:
            for arrival, piece in sound.pieces(self._stop):
                self._queue.put((arrival, piece[:left]))
                left = None if left is None else left - len(piece)
                if left is not None and left <= 0:
                    break
            self.stop()
        except BaseException as error:  # raised again where the sound is used
            self._queue.put(error)

    def take(self, wait: bool) -> list[Piece]:
        """What has arrived since; with `wait` at least one piece, or none when it has `ended`."""
        taken: list[Piece] = []
        with contextlib.suppress(queue.Empty):
            while not self.ended:
                item = self._queue.get(block=wait and not taken)
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    self.ended = True
                else:
                    taken.append(item)
        return taken

    def stop(self) -> None:
        """The sound ends here; what came before is still used."""
        self._queue.put(None)

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
