"""Where live frames go: a window, raw pixels, a live container on a pipe, a file.

A sink is a context manager with sound(pcm float32 (n, channels)), frame(uint8 BGR (H, W, 3)),
skip() for a frame that was dropped, and `closed`, true when nobody looks any more.
"""

from __future__ import annotations

import collections
import os
import sys
from fractions import Fraction

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


class WindowSink:
    """Shows frames in a window; `closed` when the user has closed it or pressed q."""

    closed = False
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

    def sound(self, pcm: np.ndarray) -> None:
        pass

    def frame(self, picture: np.ndarray) -> None:
        import cv2

        cv2.imshow(self.title, picture)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        self.closed = key in (ord("q"), 27) or not visible

    def skip(self) -> None:
        pass

    def __enter__(self) -> WindowSink:
        return self

    def __exit__(self, *_: object) -> None:
        import cv2

        cv2.destroyWindow(self.title)


class RawSink:
    """BGR24 pixels, H * W * 3 bytes a frame, at a constant rate: a dropped frame is repeated."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._last = pipe, b""

    @property
    def closed(self) -> bool:
        return self._pipe.gone

    def sound(self, pcm: np.ndarray) -> None:
        pass

    def frame(self, picture: np.ndarray) -> None:
        self._last = picture.tobytes()
        self._pipe.write(self._last)

    def skip(self) -> None:
        self._pipe.write(self._last)

    def __enter__(self) -> RawSink:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._pipe.check()


class FileSink:
    """A VideoWriter's file with the sound, at a constant rate: a dropped frame is repeated."""

    closed = False

    def __init__(self, path: str, fps: float, rate: int, channels: int) -> None:
        from media.write import SYNTHETIC, VideoWriter

        self._sound = collections.deque([np.zeros((0, channels), np.float32)])
        self._last = None
        chunks = (self._sound.popleft().T for _ in iter(lambda: bool(self._sound), False))
        self._writer = VideoWriter(path, fps, chunks, rate, comment=SYNTHETIC)

    def sound(self, pcm: np.ndarray) -> None:
        self._sound.append(pcm)

    def frame(self, picture: np.ndarray) -> None:
        self._last = picture
        self._writer.write(picture)

    def skip(self) -> None:
        self._writer.write(self._last)

    def __enter__(self) -> FileSink:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._writer.__exit__(kind, *rest)


class ContainerSink:
    """H.264 and AAC in MPEG-TS or Matroska for players that follow live.

    Low delay: no B frames, no look-ahead, every packet is written at once, a key frame each second
    for viewers who join. A dropped frame is left out: the one before is shown longer.
    """

    def __init__(self, pipe: Pipe, format: str, fps: float, rate: int, channels: int) -> None:
        import av

        from media.write import SYNTHETIC

        self._pipe = pipe
        self.fps = Fraction(fps).limit_denominator(1001)
        self._rate, self._layout = rate, "mono" if channels == 1 else "stereo"
        self._waiting: list[np.ndarray] = []  # sound that came before the first frame
        self._frames = self._samples = 0
        self._last, self._skipped = None, False
        self._video = self._audio = None
        self._container = av.open(
            pipe, "w", format=CONTAINERS[format], options={"flush_packets": "1"}
        )
        # MPEG-TS has no comments; players show the service's name
        tag = "service_name" if format == "mpegts" else "comment"
        self._container.metadata[tag] = SYNTHETIC

    @property
    def closed(self) -> bool:
        return self._pipe.gone

    def _open_streams(self, height: int, width: int) -> None:
        video = self._container.add_stream("libx264", rate=self.fps)
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt, video.time_base = "yuv420p", 1 / self.fps
        gop = str(max(1, round(self.fps)))
        video.options = {"preset": "ultrafast", "tune": "zerolatency", "g": gop}
        context = video.codec_context
        context.color_range, context.colorspace = 1, 1  # limited, BT.709 (frame())
        context.color_primaries = context.color_trc = 1
        self._video = video
        self._audio = self._container.add_stream("aac", rate=48000, layout=self._layout)

    def sound(self, pcm: np.ndarray) -> None:
        import av

        self._waiting.append(pcm)
        data = np.concatenate(self._waiting).T  # (channels, n)
        if self._audio is None or not data.size:
            return
        self._waiting = []
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), "fltp", self._layout)
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = self._samples
        self._samples += data.shape[1]
        self._container.mux(self._audio.encode(frame))

    def frame(self, picture: np.ndarray) -> None:
        import av

        from media.screen import SCALE_FLAGS

        height, width = picture.shape[:2]
        self._last, self._skipped = picture, False
        if self._video is None:
            self._open_streams(height, width)
            self.sound(np.zeros((0, 1 if self._layout == "mono" else 2), np.float32))
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "bgr24").reformat(
            format="yuv420p", dst_colorspace="ITU709", interpolation=SCALE_FLAGS
        )
        image.pts, image.time_base = self._frames, 1 / self.fps
        self._frames += 1
        self._container.mux(self._video.encode(image))

    def skip(self) -> None:
        self._frames += 1
        self._skipped = True

    def __enter__(self) -> ContainerSink:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._video is not None and kind is None:
            if self._skipped:  # the end was dropped: the picture lasts as long as the sound
                self._frames -= 1
                self.frame(self._last)
            self._container.mux(self._audio.encode(None))
            self._container.mux(self._video.encode(None))
        self._container.close()
        if kind is None:
            self._pipe.check()
