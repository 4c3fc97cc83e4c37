"""Video and audio files through PyAV: frames with timestamps, audio of any container, an
exact-length writer.

Everything streams. Times are seconds counted from the first video frame of a file. Frames are uint8
BGR (H, W, 3). A file that cannot be used raises errors.InputError with one line that says why.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError, require_file

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Demuxers that read one file and nothing else. Playlists (hls, concat, dash) open other files and
# addresses, and the text-art demuxer takes any .txt for a video: none of them belongs in a face or
# audio argument.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,wav,w64,aiff,au,mp3,flac,"
    "aac,ac3,eac3,amr,caf,gif,rm,mxf,nut,dv,h264,hevc,m4v,ivf,webp_pipe"
)
# swscale: bilinear | full chroma | accurate rounding. Its default rounds down and darkens each pass
# by 2 grey levels.
SCALE_FLAGS = 0x2 | 0x2000 | 0x40000
MAX_STATED_FPS = 120  # a header that states more is not believed: browsers' recordings say 1000
AUDIO_GAP = 0.05  # seconds of missing audio that become silence; less is container rounding


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says: size as displayed (rotation applied), duration in seconds."""

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
    # text that is not UTF-8: PyAV 19 keeps it, and has no such argument
    text = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{os.path.abspath(path)}", options=options, **text) as container:
            yield container
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} cannot be decoded: {path} ({reason})") from error


def _video_stream(container: InputContainer, path: str | os.PathLike) -> av.VideoStream:
    import av

    cover = av.stream.Disposition.attached_pic  # the picture of an mp3
    for stream in container.streams.video:
        if not stream.disposition & cover:
            stream.thread_type = "AUTO"
            return stream
    raise InputError(f"no video track in {path}")


def probe(path: str | os.PathLike) -> VideoInfo:
    """Size, rate and length of a video file; InputError where it has no video that decodes."""
    with _open(path, "video") as container:
        stream = _video_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        length = (stream.duration or 0) * stream.time_base or (container.duration or 0) / 1e6
        frame = next(_decode(container, stream), None)
        if frame is None:
            raise InputError(f"no frame can be decoded from {path}")
        sides = (frame.width, frame.height)
        width, height = sides[::-1] if frame.rotation % 180 else sides
        if fps > MAX_STATED_FPS:
            container.seek(0)
            fps = _counted_fps(container, stream) or 25.0
        return VideoInfo(width, height, fps, float(length), bool(container.streams.audio))


def _counted_fps(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Frames a second by the packets' timestamps; None for fewer than two."""
    times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
    length = float((max(times) - min(times)) * stream.time_base) if times else 0
    return (len(times) - 1) / length if length else None


def is_image(path: str | os.PathLike) -> bool:
    """Whether the content is a still picture. What is named .gif counts as a video."""
    import cv2

    path = require_file(path, "face")
    return not path.lower().endswith(".gif") and cv2.haveImageReader(path)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """A picture as uint8 BGR (H, W, 3), turned upright by its EXIF tag."""
    import cv2
    from PIL import Image

    path = require_file(path, "picture")
    try:
        with Image.open(path) as picture:  # says what is wrong; OpenCV's decoders print it instead
            picture.load()
        image = cv2.imread(path, cv2.IMREAD_COLOR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"picture cannot be decoded: {path} ({error})") from error
    except cv2.error as error:  # e.g. more pixels than OpenCV accepts
        raise InputError(f"picture cannot be decoded: {path} ({error.err})") from error
    if image is None:
        raise InputError(f"picture cannot be decoded: {path} (damaged or not a picture)")
    return image


def _decode(container: InputContainer, stream: av.stream.Stream) -> Iterator:
    """Decoded frames; damaged packets are skipped: a truncated file gives what it holds."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _to_bgr(frame: av.VideoFrame) -> np.ndarray:
    """BGR pixels, upright. Untagged HD is taken for BT.709, smaller for BT.601, as players do."""
    untagged_hd = int(frame.colorspace) == 2 and frame.height >= 720
    frame_bgr = frame.reformat(
        format="bgr24", src_colorspace="ITU709" if untagged_hd else None, interpolation=SCALE_FLAGS
    )
    image = frame_bgr.to_ndarray()
    if frame.rotation % 360:  # degrees counter-clockwise
        image = np.ascontiguousarray(np.rot90(image, k=round(frame.rotation / 90)))
    return image


def iter_frames(
    path: str | os.PathLike, fps: float | None = None, skip: int = 0
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds since the first frame, frame) of every frame after the first `skip`, one at a time.

    With `fps` the video is resampled to that constant rate: output k is the frame whose timestamp
    is nearest to k / fps, so variable and other rates keep their timing.
    """
    with _open(path, "video") as container:
        stream = _video_stream(container, path)
        period = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        timed = _timestamps(_decode(container, stream), period)
        frame = None
        timed = timed if fps is None else _resample(timed, fps, period)
        for number, (time, frame) in enumerate(timed):
            if number >= skip:
                yield time, _to_bgr(frame)
        if frame is None:
            raise InputError(f"no frame can be decoded from {path}")


def count_frames(path: str | os.PathLike, fps: float, limit: int | None = None) -> int:
    """How many frames `iter_frames(path, fps)` gives, at most `limit`; decodes, converts none."""
    with _open(path, "video") as container:
        stream = _video_stream(container, path)
        period = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        timed = _resample(_timestamps(_decode(container, stream), period), fps, period)
        return sum(1 for _ in itertools.islice(timed, limit))


def _timestamps(
    frames: Iterable[av.VideoFrame], period: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds from the first frame, frame), never going back; untimed frames follow on."""
    start = last = None
    for frame in frames:
        time = frame.time
        if time is None:
            time = 0.0 if last is None else start + last + period
        start = time if start is None else start
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
    """(sample rate, channels) of a file's first audio track; InputError where it has none."""
    with _open(path, "audio") as container:
        stream = _audio_stream(container, path)
        return stream.rate, stream.channels


def _audio_stream(container: InputContainer, path: str | os.PathLike) -> av.AudioStream:
    if not container.streams.audio:
        raise InputError(f"no audio track in {path}")
    stream = container.streams.audio[0]
    if not stream.rate or not stream.channels:
        raise InputError(f"the audio track of {path} is damaged (no sample rate)")
    return stream


def iter_audio(
    path: str | os.PathLike, sample_rate: int, channels: int = 1
) -> Iterator[np.ndarray]:
    """Audio as float32 chunks (channels, n) at `sample_rate`, full scale 1.

    Where the file also has video, sample 0 is heard when the first frame is seen: audio that starts
    late is preceded by silence, audio before the picture is dropped. Gaps in the track become
    silence.
    """
    import av

    start = _first_frame_time(path)
    with _open(path, "audio") as container:
        stream = _audio_stream(container, path)
        # mixing down in floats adds channels up beyond full scale; in integers it averages them
        kind = "s16p" if stream.channels > channels else "fltp"
        resampler = av.AudioResampler(kind, "mono" if channels == 1 else "stereo", sample_rate)
        skip = 0  # output samples still to drop
        clock = start  # where the next input sample belongs, in the file's seconds
        for frame in _decode(container, stream):
            if frame.time is not None:
                if clock is None:
                    clock = frame.time
                late = frame.time - clock
                if clock == start and late < 0:
                    skip = round(-late * sample_rate)
                elif late > AUDIO_GAP or (clock == start and late > 0):
                    yield np.zeros((channels, round(late * sample_rate)), np.float32)
                clock = frame.time
            clock = (clock or 0.0) + frame.samples / frame.sample_rate
            frame.pts = None  # the clock above has placed it; the resampler must not place it again
            for chunk in _chunks(resampler, frame):
                yield chunk[:, skip:]
                skip = max(0, skip - chunk.shape[1])
        for chunk in _chunks(resampler, None):
            yield chunk[:, skip:]
            skip = max(0, skip - chunk.shape[1])


def _chunks(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
    for piece in resampler.resample(frame):
        samples = piece.to_ndarray()  # (channels, n)
        yield samples if samples.dtype == np.float32 else samples.astype(np.float32) / 32768


def _first_frame_time(path: str | os.PathLike) -> float | None:
    """Presentation time of the first video frame in the container's clock; None without video."""
    with _open(path, "audio") as container:
        try:
            stream = _video_stream(container, path)
        except InputError:
            return None
        frame = next(_decode(container, stream), None)
        return None if frame is None else frame.time


def load_audio(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """The whole audio track of any file as float32 mono (n,), full scale 1; see `iter_audio`."""
    chunks = list(iter_audio(path, sample_rate))
    wav = np.concatenate([chunk[0] for chunk in chunks]) if chunks else np.zeros(0, np.float32)
    if not len(wav):
        raise InputError(f"the audio track of {path} holds no sound that can be decoded")
    if not np.isfinite(wav).all():
        raise InputError(f"the audio of {path} has samples that are not finite numbers")
    return wav
