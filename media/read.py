"""Video and audio files through PyAV: frames with timestamps, audio of any container, an
exact-length writer.

Everything streams. Times are seconds counted from the first video frame of a file. Frames are uint8
BGR (H, W, 3). A file that cannot be used raises errors.InputError with one line that says why.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError, require_file
from media.picture import moving_picture, refuse_heic
from media.screen import Screen

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Demuxers that read one file and nothing else. Playlists (hls, concat, dash) open other files and
# addresses, and the text-art demuxer takes any .txt for a video: none of them belongs in a face or
# audio argument.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,wav,w64,aiff,au,mp3,flac,"
    "aac,ac3,eac3,amr,caf,rm,mxf,nut,dv,h264,hevc,m4v,ivf"
)
MAX_STATED_FPS = 120  # a header that states more is not believed: browsers' recordings say 1000
VARIABLE_FPS = (20, 60)  # of the output where a video's rate varies
AUDIO_GAP = 0.05  # seconds of missing audio that become silence; less is container rounding
# Seconds that no track of a recording leaves out, and that no clock goes back: more is where two
# were joined. Only in formats whose clock can break (FFmpeg's AVFMT_TS_DISCONT).
CLOCK_JUMP, CLOCK_BACK = 3.0, 0.5
CANCELLED = 0.1  # of a channel's level: a mono mix below that has lost the speech
CANCEL_CHUNKS = 15000  # of sound, about 20 ms each, that are listened to for that

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """Size as displayed (upright, of square pixels), frames a second, duration in seconds."""

    width: int
    height: int
    fps: float
    duration: float
    has_audio: bool


@contextlib.contextmanager
def _open(path: str | os.PathLike, what: str) -> Iterator[InputContainer]:
    """The opened container; decoding faults inside the block become InputErrors naming the file."""
    import av

    path = require_file(path, what)
    refuse_heic(path)
    # text that is not UTF-8: PyAV 19 keeps it, and has no such argument
    text = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{os.path.abspath(path)}", options=options, **text) as container:
            yield container
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} cannot be decoded: {path} ({reason})") from error


@functools.lru_cache(maxsize=1024)
def tell(line: str) -> None:
    """Say once what was made of a file's oddity, though the file is read several times."""
    logger.warning(line)


def _track(container: InputContainer, kind: str, path: str | os.PathLike) -> av.stream.Stream:
    """The video or audio track that is marked as the default one, else the first. Covers of songs
    and pictures for a player's time bar are none.
    """
    import av

    sign = av.stream.Disposition
    pictures = sign.attached_pic | sign.timed_thumbnails | sign.still_image
    found = [s for s in getattr(container.streams, kind) if not s.disposition & pictures]
    if not found:
        raise InputError(f"no {kind} track in {path}")
    stream = next((s for s in found if s.disposition & sign.default), found[0])
    if len(found) > 1:
        number = found.index(stream) + 1
        tell(f"{path}: {kind} track {number} of {len(found)} is used, the default one")
    return stream


@contextlib.contextmanager
def _video(path: str | os.PathLike) -> Iterator[tuple[Iterator[av.VideoFrame], Screen, float]]:
    """Decoded frames, what shows them, and how long one lasts by the header."""
    frames = moving_picture(path) if os.path.isfile(path) else None
    if frames is not None:
        yield frames, Screen(), 0.1
        return
    with _open(path, "video") as container:
        stream = _track(container, "video", path)
        stream.thread_type = "AUTO"
        yield _decode(container, stream), Screen(stream), 1 / _stated_fps(stream)


def _stated_fps(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)


def probe(path: str | os.PathLike) -> VideoInfo:
    """Size, rate and length of a video file; InputError where it has no video that decodes."""
    with _video(path) as (frames, screen, _):
        frame = next(frames, None)
        if frame is None:
            raise InputError(f"no frame can be decoded from {path}")
        height, width = screen.show(frame).shape[:2]
        if screen.stream is None:
            times = [0.0, *(frame.time for frame in frames)]
            fps = _paced_fps(path, times)
            return VideoInfo(width, height, fps, times[-1] + 1 / fps, False)
    with _open(path, "video") as container:
        stream = _track(container, "video", path)
        fps = _stated_fps(stream)
        length = (stream.duration or 0) * stream.time_base or (container.duration or 0) / 1e6
        sound = bool(container.streams.audio)
        if fps > MAX_STATED_FPS or abs(float(stream.base_rate or 0) - fps) > 0.01 * fps:
            packets = (p for p in container.demux(stream) if p.size)
            times = [p.pts and float(p.pts * p.time_base) for p in packets]
            fps = _paced_fps(path, times, fps)
        return VideoInfo(width, height, fps, float(length), sound)


def _paced_fps(path: str | os.PathLike, times: list[float | None], stated: float = 25.0) -> float:
    """Frames a second of a video with these timestamps. Where the rate varies its mean says little:
    the lips would move in the steps of the slowest part.
    """
    if None in times or len(times) < 2 or max(times) == min(times):
        return stated if stated <= MAX_STATED_FPS else 25.0
    mean = (len(times) - 1) / (max(times) - min(times))
    median = 1 / max(float(np.median(np.diff(sorted(times)))), 1e-3)
    if abs(median - mean) <= 0.1 * mean:
        return stated if abs(stated - mean) <= 0.1 * mean else mean
    fps = round(float(np.clip(median, *VARIABLE_FPS)), 3)
    tell(f"{path}: its rate varies, {mean:.3g} frames a second in the mean: {fps:.4g} are made")
    return fps


def _decode(container: InputContainer, stream: av.stream.Stream) -> Iterator:
    """Decoded frames; damaged packets are skipped: a truncated file gives what it holds."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def iter_frames(
    path: str | os.PathLike, fps: float | None = None, skip: int = 0
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds since the first frame, frame) of every frame after the first `skip`, one at a time,
    all of the first one's size.

    With `fps` the video is resampled to that constant rate: output k is the frame whose timestamp
    is nearest to k / fps, so variable and other rates keep their timing.
    """
    with _video(path) as (decoded, screen, period):
        timed, frame = _timestamps(decoded, path, screen, period), None
        timed = timed if fps is None else _resample(timed, fps, period)
        for number, (time, frame) in enumerate(timed):
            screen.fit(frame)
            if number >= skip:
                yield time, screen.show(frame)
        if frame is None:
            raise InputError(f"no frame can be decoded from {path}")


def count_frames(path: str | os.PathLike, fps: float, limit: int | None = None) -> int:
    """How many frames `iter_frames(path, fps)` gives, at most `limit`; decodes, converts none."""
    with _video(path) as (decoded, screen, period):
        timed = _resample(_timestamps(decoded, path, screen, period), fps, period)
        return sum(1 for _ in itertools.islice(timed, limit))


def _can_break(stream: av.stream.Stream | None) -> bool:
    """Whether the clock of a track's format is not believed without limit."""
    from av.format import Flags

    return stream is not None and bool(stream.container.format.flags & Flags.ts_discont.value)


def _jump(path: str | os.PathLike, last: float, time: float) -> float:
    """By how much a clock that goes from `last` to `time` is wrong: 0.0 where it may be right."""
    if last - CLOCK_BACK <= time <= last + CLOCK_JUMP:
        return 0.0
    wrong = time - last
    if wrong > 0:  # only where no other track goes on meanwhile; all tracks find the same hole
        with _open(path, "video") as container:
            packets = (p for p in container.demux() if p.dts is not None)
            times = sorted(float(p.dts * p.time_base) for p in packets)
        inside = [last, *(t for t in times if last < t < time), time]
        wrong = max(np.diff(inside))
        if wrong <= CLOCK_JUMP:
            return 0.0
    tell(f"{path}: its clock jumps by {wrong:+.1f} s, as where recordings are joined: not followed")
    return float(wrong)


def _timestamps(
    frames: Iterable[av.VideoFrame], path: str | os.PathLike, screen: Screen, period: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds from the first frame, frame), never going back; untimed frames follow on."""
    start = last = None
    can_break = _can_break(screen.stream)
    for frame in frames:
        time = frame.time
        if time is None:
            time = 0.0 if last is None else start + last + period
        start = time if start is None else start
        if can_break and last is not None and (wrong := _jump(path, start + last, time)):
            start += wrong - period
        last = time - start if last is None else max(last, time - start)
        yield last, frame


def _resample(
    timed: Iterable[tuple[float, av.VideoFrame]], fps: float, period: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    index, count, held = 0, 0, None
    for time, frame in timed:
        count += 1
        if held is not None:
            while index / fps < (held[0] + time) / 2:  # nearer to the held frame than to this one
                yield index / fps, held[1]
                index += 1
        held = (time, frame)
    if held is not None:
        # the last frame lasts as long as the others on average; some headers state absurd rates
        end = held[0] + (held[0] / (count - 1) if count > 1 else period)
        while (index + 0.5) / fps < end:
            yield index / fps, held[1]
            index += 1
        if not index:  # a single frame shorter than one output period
            yield 0.0, held[1]


def audio_format(path: str | os.PathLike) -> tuple[int, int]:
    """(sample rate, channels) that a file's audio begins with; InputError where it has none."""
    with _open(path, "audio") as container:
        stream = _audio_stream(container, path)
        # the header may tell what it ends with, and so may MP3's first frame, read by that
        begin = list(itertools.islice(_decode(container, stream), 3))
        if not begin:
            return stream.rate, stream.channels
        return begin[-1].sample_rate, begin[-1].layout.nb_channels


def _audio_stream(container: InputContainer, path: str | os.PathLike) -> av.AudioStream:
    stream = _track(container, "audio", path)
    if not stream.rate or not stream.channels:
        raise InputError(f"the audio track of {path} is damaged (no sample rate)")
    return stream


def iter_audio(
    path: str | os.PathLike, sample_rate: int, channels: int = 1, picture: bool = True
) -> Iterator[np.ndarray]:
    """Audio as float32 chunks (channels, n) at `sample_rate`, full scale 1.

    Where the file also has video, sample 0 is heard when the first frame is seen: audio that starts
    late is preceded by silence, audio before the picture is dropped, unless `picture` is false: it
    is not the one that is shown. Gaps in the track become silence. Of two channels that cancel each
    other in one, the louder is taken.
    """
    louder = louder_channel(path, sample_rate) if channels == 1 else None
    part = slice(None) if louder is None else slice(louder, louder + 1)
    for chunk in _audio(path, sample_rate, channels if louder is None else 2, picture):
        yield chunk[part]


def louder_channel(path: str | os.PathLike, sample_rate: int) -> int | None:
    """Which of two channels is louder where their mean has lost what they say, else None."""
    if audio_format(path)[1] != 2:
        return None
    power = np.zeros(3)  # of both and of their mean
    for chunk in itertools.islice(_audio(path, sample_rate, 2, True), CANCEL_CHUNKS):
        power += [np.square(c, dtype=np.float64).sum() for c in (*chunk, chunk.mean(axis=0))]
    if power[2] >= CANCELLED**2 * power[:2].max():
        return None
    louder = int(power[1] > power[0])
    tell(f"{path}: its channels cancel each other: the {('left', 'right')[louder]} one is heard")
    return louder


def _audio(
    path: str | os.PathLike, sample_rate: int, channels: int, picture: bool
) -> Iterator[np.ndarray]:
    start = _first_frame_time(path)
    with _open(path, "audio") as container:
        stream = _audio_stream(container, path)
        can_break = _can_break(stream)
        mixer = Mixer(sample_rate, channels)
        skip = 0  # output samples still to drop
        clock = start  # where the next input sample belongs, in the file's seconds
        wrong = 0.0  # seconds that the file's clock has jumped by so far
        begun = False
        for frame in _decode(container, stream):
            if frame.time is not None:
                time = frame.time - wrong
                if clock is None or (not picture and not begun):
                    clock = time if clock is None else min(clock, time)
                if can_break and begun and (jump := _jump(path, clock, time)):
                    wrong, time = wrong + jump, time - jump
                late = time - clock
                if not begun and late < 0:
                    skip = round(-late * sample_rate)
                elif late > AUDIO_GAP or (not begun and late > 0):
                    yield from _silence(round(late * sample_rate), channels, sample_rate)
                clock = time
            begun = True
            clock = (clock or 0.0) + frame.samples / frame.sample_rate
            frame.pts = None  # the clock above has placed it; the resampler must not place it again
            for chunk in mixer.feed(frame):
                yield chunk[:, skip:]
                skip = max(0, skip - chunk.shape[1])
        for chunk in mixer.feed(None):
            yield chunk[:, skip:]
            skip = max(0, skip - chunk.shape[1])


def _silence(count: int, channels: int, sample_rate: int) -> Iterator[np.ndarray]:
    """A second at a time: a gap may last for hours."""
    for first in range(0, count, sample_rate):
        yield np.zeros((channels, min(sample_rate, count - first)), np.float32)


class Mixer:
    """Frames of any form, which joined files and broadcasts change on the way, to chunks (channels,
    n) of one.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._rate, self._channels = sample_rate, channels
        self._form = self._resampler = None

    def feed(self, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
        """What the next frame gives; None for the end."""
        import av

        form = frame and (frame.format.name, frame.layout.name, frame.sample_rate)
        pieces = []
        if form != self._form:
            pieces += self._resampler.resample(None) if self._resampler else []
            self._form, self._resampler = form, None
            if frame:
                # mixing down in floats adds channels up beyond full scale; in integers it averages
                kind = "s16p" if frame.layout.nb_channels > self._channels else "fltp"
                layout = "mono" if self._channels == 1 else "stereo"
                self._resampler = av.AudioResampler(kind, layout, self._rate)
        for piece in pieces + (self._resampler.resample(frame) if frame else []):
            samples = piece.to_ndarray()  # (channels, n)
            yield samples if samples.dtype == np.float32 else samples.astype(np.float32) / 32768


def _first_frame_time(path: str | os.PathLike) -> float | None:
    """Presentation time of the first video frame in the container's clock; None without video."""
    with _open(path, "audio") as container:
        try:
            stream = _track(container, "video", path)
        except InputError:
            return None
        frame = next(_decode(container, stream), None)
        return None if frame is None else frame.time


def load_audio(
    path: str | os.PathLike, sample_rate: int = 16000, picture: bool = True
) -> np.ndarray:
    """The whole audio track of any file as float32 mono (n,), full scale 1; see `iter_audio`."""
    chunks = list(iter_audio(path, sample_rate, picture=picture))
    wav = np.concatenate([chunk[0] for chunk in chunks]) if chunks else np.zeros(0, np.float32)
    if not len(wav):
        raise InputError(f"the audio track of {path} holds no sound that can be decoded")
    if not np.isfinite(wav).all():
        raise InputError(f"the audio of {path} has samples that are not finite numbers")
    return wav
