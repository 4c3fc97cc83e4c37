"""Where live frames go: a window, raw pixels, a live container on a pipe, a file.

A sink is a context manager with sound(pcm float32 (n, channels)), frame(uint8 BGR (H, W, 3)),
skip() for a frame that was dropped, and `closed`, true when nobody looks any more.
"""

from __future__ import annotations

import collections
import os
import sys
from collections.abc import Iterator

import numpy as np

from errors import InputError

CONTAINERS = {"mpegts": "mpegts", "mkv": "matroska"}
FORMATS = (*CONTAINERS, "raw")


def create_sink(outfile: str, format: str, fps: float, rate: int, channels: int):
    """The sink for "window", "-" (standard output, in one of FORMATS) or a file of VideoWriter.

    rate, channels: of the sound. From then on what is printed goes to standard error where standard
    output carries frames. InputError where it cannot be written.
    """
    if outfile == "window":
        return WindowSink()
    if outfile != "-":
        return FileSink(outfile, fps, rate, channels)
    pipe = Pipe()
    return RawSink(pipe) if format == "raw" else ContainerSink(pipe, format, fps, rate, channels)


class Pipe:
    """Standard output for frames. `gone`: its reader has left; what is written then is lost.

    A fault cannot be raised inside a muxer's write: `check` raises it.
    """

    def __init__(self) -> None:
        self.gone, self._fault = False, None
        sys.stdout.flush()
        self._file = os.dup(1)
        os.dup2(2, 1)  # a library that prints would spoil the stream

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest and not self.gone:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self.gone = True
            self._fault = None if isinstance(error, BrokenPipeError) else error
        return len(data)

    def check(self) -> None:
        """InputError where something else than a closed pipe has stopped the output."""
        if self._fault:
            raise InputError(f"cannot write standard output: {self._fault.strerror}")


class Sink:
    """Where frames go, for a `with` block."""

    closed = False

    def sound(self, pcm: np.ndarray) -> None:
        pass

    def frame(self, picture: np.ndarray) -> None:
        raise NotImplementedError

    def skip(self) -> None:
        pass

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        pass


class WindowSink(Sink):
    """Shows frames in a window; `closed` when the user has closed it or pressed q."""

    title = "Wav2Lip"

    def __init__(self) -> None:
        import cv2

        remedy = "give --outfile FILE, or --outfile - to pipe the frames into a player"
        displays = ("DISPLAY", "WAYLAND_DISPLAY")
        # without one, Qt aborts the process instead of raising an error
        if sys.platform.startswith("linux") and not any(map(os.environ.get, displays)):
            raise InputError(f"there is no display for a window: {remedy}")
        try:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise InputError(f"this OpenCV cannot open a window: {remedy}") from error

    def frame(self, picture: np.ndarray) -> None:
        import cv2

        cv2.imshow(self.title, picture)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        self.closed = key in (ord("q"), 27) or not visible

    def __exit__(self, *_: object) -> None:
        import cv2

        cv2.destroyWindow(self.title)


class RawSink(Sink):
    """BGR24 pixels, H * W * 3 bytes a frame, at a constant rate: a dropped frame is repeated."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._last = pipe, b""

    @property
    def closed(self) -> bool:
        return self._pipe.gone

    def frame(self, picture: np.ndarray) -> None:
        self._last = picture.tobytes()
        self.skip()

    def skip(self) -> None:
        self._pipe.write(self._last)

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._pipe.check()


class FileSink(Sink):
    """A VideoWriter's file with the sound, at a constant rate: a dropped frame is repeated."""

    def __init__(self, path: str, fps: float, rate: int, channels: int) -> None:
        from media.write import SYNTHETIC, VideoWriter

        self._writer = VideoWriter(path, fps, self._begin(channels), rate, comment=SYNTHETIC)

    def _begin(self, channels: int) -> Iterator[np.ndarray]:
        """The sound that has come, in chunks (channels, n), for a Muxer."""
        self._sound = collections.deque([np.zeros((0, channels), np.float32)])
        return (self._sound.popleft().T for _ in iter(lambda: bool(self._sound), False))

    def sound(self, pcm: np.ndarray) -> None:
        self._sound.append(pcm)

    def frame(self, picture: np.ndarray) -> None:
        self._last, self._skipped = picture, False
        self._writer.write(picture)

    def skip(self) -> None:
        self._writer.write(self._last)

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._writer.__exit__(kind, *rest)


class ContainerSink(FileSink):
    """H.264 and AAC in MPEG-TS or Matroska for players that follow live.

    Low delay: no B frames, no look-ahead, every packet is written at once, a key frame each second
    for viewers who join. A dropped frame is left out: the one before is shown longer.
    """

    def __init__(self, pipe: Pipe, format: str, fps: float, rate: int, channels: int) -> None:
        import av

        from media.write import SYNTHETIC, Muxer

        self._pipe, self._skipped = pipe, False
        self._container = av.open(
            pipe, "w", format=CONTAINERS[format], options={"flush_packets": "1"}
        )
        # MPEG-TS has no comments; players show the service's name
        tag = "service_name" if format == "mpegts" else "comment"
        self._container.metadata[tag] = SYNTHETIC
        gop = str(max(1, round(fps)))
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": gop}
        self._sound = collections.deque()  # that came before the first frame
        form = iter([np.zeros((channels, 0), np.float32)])
        self._writer = Muxer(fps, form, rate, False, options, self._container)

    @property
    def closed(self) -> bool:
        return self._pipe.gone

    def sound(self, pcm: np.ndarray) -> None:
        super().sound(pcm)
        self._hand_on()

    def frame(self, picture: np.ndarray) -> None:
        super().frame(picture)
        self._hand_on()

    def _hand_on(self) -> None:
        """What has been heard, ahead of its frames: FFmpeg keeps a frame until sound follows it."""
        while self._writer.frames and self._sound:
            self._writer.encode_sound(self._sound.popleft().T)

    def skip(self) -> None:
        self._writer.skip()
        self._skipped = True

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self._writer.frames:
            if self._skipped:  # the end was dropped: the picture lasts as long as the sound
                self._writer.frames -= 1
                self._writer.write(self._last)
            self._writer.finish()
        self._container.close()
        if kind is None:
            self._pipe.check()
