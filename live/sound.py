"""Where live speech comes from: a file in real time, standard input, the microphone.

Sound travels as pieces: (time of arrival, float32 (n, channels), full scale 1).
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import select
import struct
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
HEADER_WAIT = 0.5  # seconds for the first bytes of standard input; later ones are plain samples
WAV = {(1, 8): "u1", (1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}  # tag, bits
CONTAINER = re.compile(  # how files begin that are no plain samples; the last: MP3 and AAC
    rb"RIF[FX]|RF64|ID3|OggS|fLaC|FORM|\.snd|caff|....ftyp|\x1aE\xdf\xa3|#!AMR|FLV\x01|\0\0\x01\xba"
    rb"|\xff[\xfb\xfa\xf3\xf2\xe3\xe2][\x10-\xef]|\xff[\xf0\xf1\xf8\xf9][\x40-\x7f]",
    re.DOTALL,
)

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
        return _standard_input(sys.stdin.fileno(), sample_rate, now)
    from media.read import audio_format, louder_channel

    rate, channels = audio_format(audio)
    channels = 1 if louder_channel(audio, rate) is not None else min(2, channels)
    return Sound(rate, channels, lambda stop: file_pieces(audio, rate, channels, stop, now))


def file_pieces(
    path: str, rate: int, channels: int, stop: threading.Event, now: Callable
) -> Iterator[Piece]:
    """A file's sound, each piece at the moment at which its last sample would have been spoken."""
    from media.read import iter_audio

    size, start, count = max(1, round(PIECE * rate)), None, 0
    for chunk in iter_audio(path, rate, channels, picture=False):
        start = now() if start is None else start
        for first in range(0, chunk.shape[1], size):
            piece = chunk[:, first : first + size].T
            count += len(piece)
            due = start + count / rate
            if stop.wait(max(0.0, due - now())):
                return
            yield due, piece


def _standard_input(file: int, sample_rate: int, now: Callable) -> Sound:
    """Plain 16-bit mono sound, or what a WAV's header says that comes within HEADER_WAIT."""

    def begin() -> tuple:
        """Form of a sample, channels, rate, what has been read, bytes until the end."""
        head = _take(file, 12)
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            form, channels, rate, left = _wav_header(file)
            return form, channels, rate, b"", left
        if CONTAINER.match(head):
            raise _no_samples("a file that is compressed or of another format")
        return "<i2", 1, sample_rate, head, math.inf

    plain = "<i2", 1, sample_rate
    early = begin() if select.select([file], [], [], HEADER_WAIT)[0] else None
    _, channels, rate = early[:3] if early else plain

    def pieces(stop: threading.Event) -> Iterator[Piece]:
        while not early and not select.select([file], [], [], POLL)[0]:
            if stop.is_set():
                return
        form, channels, rate, head, left = early or begin()
        if not early and (form, channels, rate) != plain:
            raise _no_samples(f"a WAV of {rate} Hz that began too late to be asked what it is")
        width = np.dtype(form).itemsize * channels
        read = _reader(file, width * max(1, round(PIECE * rate)), head, left)
        yield from stdin_pieces(read, rate, stop, now, form, channels)

    return Sound(rate, min(2, channels), pieces)


def _take(file: int, count: int) -> bytes:
    """So many bytes, fewer where the file ends."""
    data = b""
    while len(data) < count and (more := os.read(file, count - len(data))):
        data += more
    return data


def _no_samples(what: str) -> InputError:
    return InputError(
        f"standard input is {what}: 16-bit PCM or a plain WAV is expected, as from "
        "ffmpeg -i FILE -ac 1 -ar 16000 -f wav - | python realtime.py --audio - ..."
    )


def _wav_header(file: int) -> tuple[str, int, int, float]:
    """Form of a sample, channels, rate, and bytes of sound, infinite where nobody knows."""
    form = None
    while len(head := _take(file, 8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data" and form is not None:
            return *form, size if 0 < size < 2**31 - 2**16 else math.inf
        chunk = _take(file, min(size + size % 2, 2**16))
        if name == b"fmt ":
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16].ljust(16, b"\0"))
            tag = int.from_bytes(chunk[24:26], "little") if tag == 0xFFFE else tag  # extensible
            if (tag, bits) not in WAV or not channels or not rate:
                raise _no_samples(f"a WAV of format {tag} with {bits} bits")
            form = WAV[tag, bits], channels, rate
    raise _no_samples("a WAV without sound")


def stdin_pieces(
    read: Callable[[threading.Event], bytes],
    rate: int,
    stop: threading.Event,
    now: Callable,
    form: str = "<i2",
    channels: int = 1,
) -> Iterator[Piece]:
    """Sound (n, 1 or 2) from `read`, whose b"" is the end; of more channels the first two.

    What comes faster than real time, from a file or a speech synthesiser, is held back: only BURST
    may run ahead, so that a live source that was stuck for a moment catches up.
    """
    rest, due, width = b"", now(), np.dtype(form).itemsize * channels
    full = {"f": 1, "i": 2 ** (8 * np.dtype(form).itemsize - 1), "u": 128}[np.dtype(form).kind]
    while data := read(stop):
        data = rest + data
        whole = len(data) // width * width
        piece, rest = np.frombuffer(data[:whole], form).reshape(-1, channels)[:, :2], data[whole:]
        due = max(now() - BURST, due + len(piece) / rate)
        if stop.wait(max(0.0, due - now())):
            return
        middle = 128 if form == "u1" else 0
        yield now(), ((piece.astype(np.float64) - middle) / full).astype(np.float32)


def _reader(file: int, size: int, head: bytes, left: float) -> Callable[[threading.Event], bytes]:
    """Reads what there is of a pipe, up to `size` bytes; b"" at its end or when stopped. head: what
    has been read of it. left: bytes until its end.
    """

    def read(stop: threading.Event) -> bytes:
        nonlocal head, left
        while left and not stop.is_set():
            if head or select.select([file], [], [], POLL)[0]:
                data = head or os.read(file, int(min(size, left)))
                head, left = b"", left - len(data)
                return data
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
