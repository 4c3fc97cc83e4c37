"""Streams frames and sound into one video file, of exactly the same length, that appears only when
it is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from errors import InputError
from media.screen import SCALE_FLAGS

LOSSLESS = ".mkv"
CRF = 18  # of H.264
# x264's faster instruction sets and its threads pack the same frames in other bits on another
# machine, and some on the same one from run to run; this set is on every 64-bit PC
REPEATABLE = "threads=1:asm=SSE2"
AAC_RATES = (32000, 44100, 48000, 64000, 88200, 96000)  # those written as they are
AAC_BITS = 128000  # a second and channel
LAYOUTS = {1: "mono", 2: "stereo"}
# What a video with redrawn lips says of itself, to people and, as an IPTC term, to programs
SYNTHETIC = (
    "Synthetic video: lips redrawn to speech by wav2lip; "
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
OUTPUT_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", LOSSLESS: "matroska"}


class Muxer:
    """Frames and sound into the open `container`, so that both last the same.

    audio: chunks (channels, n) of float32 at `sample_rate`, each taken when its frame is there.
    lossless: FFV1 with exact BGR pixels and PCM, else H.264, with `options`, and AAC.
    """

    def __init__(
        self,
        fps: float,
        audio: Iterator[np.ndarray] | None,
        sample_rate: int | None,
        lossless: bool,
        options: dict[str, str],
        container=None,
    ) -> None:
        self.fps = Fraction(fps).limit_denominator(1001)
        self.frames = 0  # written so far
        self._lossless, self._options = lossless, options
        self._rate, self._samples = sample_rate, 0
        self._audio = audio
        self._pending = next(audio, None) if audio else None
        self._container, self._video_stream, self._audio_stream = container, None, None

    def _open_streams(self, height: int, width: int) -> None:
        container, lossless = self._container, self._lossless
        video = container.add_stream("ffv1" if lossless else "libx264", rate=self.fps)
        video.width, video.height = (
            (width, height) if lossless else (width + width % 2, height + height % 2)
        )
        video.pix_fmt = "bgr0" if lossless else "yuv420p"
        video.time_base = 1 / self.fps
        if not lossless:
            video.options = self._options
            video.codec_context.color_range = 1  # limited
            for tag in ("color_primaries", "color_trc", "colorspace"):
                setattr(video.codec_context, tag, 1)  # BT.709, converted to in `write`
        self._video_stream = video
        if self._pending is not None:
            # 16 kHz AAC frames last 64 ms, more than a video frame: 48 kHz ends where it should
            rate = self._rate if lossless or self._rate in AAC_RATES else 48000
            codec, layout = "pcm_s16le" if lossless else "aac", LAYOUTS[len(self._pending)]
            self._audio_stream = container.add_stream(codec, rate=rate, layout=layout)
            if not lossless:
                # FFmpeg's default coder and bit rate leave 4 dB of some frames, as clicks
                self._audio_stream.options = {"aac_coder": "fast"}
                self._audio_stream.bit_rate = AAC_BITS * len(self._pending)

    def write(self, frame: np.ndarray) -> None:
        """Append one uint8 BGR frame (H, W, 3), scaled to the first one's size if of another.
        Odd sides gain one edge pixel in H.264, which has none.
        """
        import av

        if self._video_stream is None:
            self._open_streams(*frame.shape[:2])
        video = self._video_stream
        pad = (video.height - frame.shape[0], video.width - frame.shape[1])
        if any(pad) and all(0 <= side <= 1 for side in pad) and not self._lossless:
            frame = np.pad(frame, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        picture = picture.reformat(  # to the first frame's size, too
            video.width,
            video.height,
            video.pix_fmt,
            dst_colorspace=None if self._lossless else "ITU709",
            interpolation=SCALE_FLAGS,
        )
        picture.pts, picture.time_base = self.frames, 1 / self.fps
        self._container.mux(video.encode(picture))
        self.skip()

    def skip(self) -> None:
        """A frame's time passes, with its sound."""
        self.frames += 1
        self._write_audio(round(self.frames / self.fps * self._rate) if self._audio else 0)

    def _write_audio(self, until: int | None) -> None:
        """Encode audio up to sample `until` (None: all there is)."""
        while self._pending is not None and (until is None or self._samples < until):
            count = self._pending.shape[1] if until is None else until - self._samples
            chunk, rest = self._pending[:, :count], self._pending[:, count:]
            self.encode_sound(chunk)
            self._pending = rest if rest.shape[1] else next(self._audio, None)

    def encode_sound(self, chunk: np.ndarray) -> None:
        """The next sound (channels, n), float32, at once; streams are there from a frame on."""
        import av

        if not chunk.shape[1]:
            return
        sound = np.ascontiguousarray(chunk, np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=LAYOUTS[len(sound)])
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = self._samples
        self._samples += chunk.shape[1]
        self._container.mux(self._audio_stream.encode(frame))

    def finish(self, keep_tail: bool = False) -> None:
        """What the encoders still hold; sound to the picture's end, or to its own."""
        if self._audio_stream:
            end = round(self.frames / self.fps * self._rate)
            self._write_audio(None if keep_tail else end)
            silence = (self._audio_stream.layout.nb_channels, max(0, end - self._samples))
            self.encode_sound(np.zeros(silence, np.float32))
            self._container.mux(self._audio_stream.encode(None))
        self._container.mux(self._video_stream.encode(None))
        self._container.close()


class VideoWriter(Muxer):
    """Streams frames to a video file and muxes audio so that both last the same.

    path: .mp4, .m4v, .mov (H.264 + AAC) or .mkv (lossless: FFV1 with exact BGR pixels + PCM).
    audio: float32 (n,) or (channels, n), or an iterable of (channels, n) chunks, at `sample_rate`;
    it is cut, or continued with silence, to the length of the picture (`audio_tail="keep"`: written
    whole, as the released program does). comment: the container's tag of this name; nothing is
    copied from the source's metadata. repeatable: the same frames give the same H.264 each time, by
    an encoder that is slower on large frames. The file appears under its name only when `close` (or
    the `with` block) has ended without a fault.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        fps: float,
        audio: np.ndarray | Iterable[np.ndarray] | None = None,
        sample_rate: int | None = None,
        audio_tail: str = "match",
        comment: str | None = None,
        repeatable: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        suffix = os.path.splitext(self.path)[1].lower()
        if suffix not in OUTPUT_FORMATS:
            raise InputError(
                f"output {self.path}: choose a name that ends in {', '.join(OUTPUT_FORMATS)}"
            )
        if os.path.isdir(self.path):
            raise InputError(f"output {self.path} is a folder")
        if not 0 < fps < 1000:
            raise InputError(f"a video cannot have {fps} frames a second")
        if isinstance(audio, np.ndarray):
            audio = [np.atleast_2d(audio)]
        options = {"crf": str(CRF), "preset": "veryfast"}
        if repeatable:
            options["x264-params"] = REPEATABLE
        audio = None if audio is None else iter(audio)
        super().__init__(fps, audio, sample_rate, suffix == LOSSLESS, options)
        self._keep_tail = audio_tail == "keep"
        self._temporary = partial_path(self.path, os.getpid())
        with self._faults():
            import av

            with contextlib.suppress(FileExistsError):  # no folder: opening it says so
                os.makedirs(os.path.dirname(self._temporary), exist_ok=True)
            remove_leftovers(self.path)
            self._container = av.open(self._temporary, "w", format=OUTPUT_FORMATS[suffix])
            if comment:
                self._container.metadata["comment"] = comment

    def write(self, frame: np.ndarray) -> None:
        with self._faults():
            super().write(frame)

    def close(self) -> None:
        """Finish both tracks and give the file its name. InputError where no frame was written."""
        with self._faults():
            if not self.frames:
                raise InputError(f"nothing to write to {self.path}: no frame came")
            self.finish(self._keep_tail)
            os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Give up: nothing is left behind."""
        # av's errors are OSErrors or follow from the first fault, already raised
        with contextlib.suppress(OSError):
            if self._container is not None:
                self._container.close()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(self._temporary)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        import av

        try:
            yield
        except (OSError, av.FFmpegError) as error:
            self.discard()
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def partial_path(path: str | os.PathLike, process: int) -> str:
    """The name that a video has while the process with this number writes it."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".{name}.{process}.part")


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove what processes that were killed have left of a video."""
    folder, name = os.path.split(os.path.abspath(path))
    pattern = re.compile(re.escape(f".{name}.") + r"(\d{1,9})\.part")
    for found in map(pattern.fullmatch, os.listdir(folder) if os.path.isdir(folder) else ()):
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.remove(os.path.join(folder, found[0]))


def _is_running(process: int) -> bool:
    if os.name == "nt":  # a signal would end it there, and what it writes cannot be removed
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
