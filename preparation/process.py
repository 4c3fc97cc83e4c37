"""One video into its clip or clips: claim its name, write the sound, then frame by frame find the
faces, cut, write crops; at last the finished folder takes its place by one rename.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import shutil
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.io import wavfile

from audio import TRAINING_FPS as FPS
from audio import melspectrogram, pcm16
from corpus.listing import LOCK, PART, is_done
from errors import InputError
from face_detection import create_detector
from face_detection.base import Box
from face_detection.boxes import read_boxes
from face_detection.shots import ShotCuts
from face_detection.track import padded_box
from face_detection.tracked import TrackedDetector
from media.files import write_json
from media.read import count_frames, iter_audio, iter_frames
from media.streams import ahead, frames_at_once
from preparation.pieces import Piece, PieceRules, Pieces

try:
    import fcntl
except ImportError:  # Windows: runs that share a root must be shards of it
    fcntl = None

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
REACH = SAMPLE_RATE // 5  # samples behind a piece's last frame: where 5 frames' mel windows end
SHORTEST_SOUND = 401  # samples; the spectrogram's padding needs that many
JPEG_QUALITY = 95
Video = tuple[str, str]  # clip name, path


class Busy(Exception):
    """Another run is working on this video."""


@dataclass(frozen=True)
class Settings:
    """What decides a run; plain values, so that it can be sent to other processes."""

    preprocessed_root: str
    detector: str
    detector_options: dict
    batch_size: int
    rules: PieceRules
    workers: int  # videos at a time on one device
    track: bool = False  # see face_detection/tracked.py
    float32: bool = False  # S3FD in full precision on a GPU too


@dataclass
class Result:
    """What became of one video: error is None where its clips are complete."""

    name: str
    clips: int = 0
    frames: int = 0
    faces: int = 0
    crowded: int = 0  # clips that show other people too
    short: int = 0  # pieces left out because they are shorter than --min_seconds
    skipped: bool = False
    busy: bool = False
    error: str | None = None


class Preparer:
    """A device's detectors, as one, and process() for `settings.workers` threads at a time."""

    def __init__(self, settings: Settings, device: str) -> None:
        self.settings, self.stopping = settings, False
        self.name, self.max_side = settings.detector, None
        self._detectors: queue.SimpleQueue = queue.SimpleQueue()
        options, on_cpu = dict(settings.detector_options), device == "cpu"
        if settings.detector == "sfd":
            options["half"] = not (on_cpu or settings.float32)
        # a GPU computes one batch at a time, while other threads decode and write
        count = settings.workers if on_cpu else 1
        for _ in range(0 if settings.detector == "boxes" else count):
            detector = create_detector(settings.detector, device, **options)
            self.max_side = detector.max_side
            self._detectors.put(detector)
        if on_cpu:  # the workers are the parallelism: more threads would fight over the cores
            cv2.setNumThreads(max(1, (os.cpu_count() or 1) // count))

    def process(self, video: Video) -> Result:
        """What is wrong with the video becomes the Result's error."""
        name, path = video
        try:
            return self._process(name, path)
        except Busy:
            return Result(name, busy=True)
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            return Result(name, error=kind + " ".join(str(error).split()))

    def _process(self, name: str, video: str) -> Result:
        folder = os.path.join(self.settings.preprocessed_root, name)
        if is_done(folder):
            return Result(name, skipped=True)
        with claim(folder) as part:
            if is_done(folder):  # by another run, just now
                return Result(name, skipped=True)
            clips = Clips(video, part, self.settings)  # first: no sound is told quickly
            known = known_boxes(video) if self.settings.detector == "boxes" else None
            track = TrackedDetector(self) if self.settings.track else None
            with ahead(_chunks(video, self.settings), 1) as chunks:
                for frames, cuts in chunks:
                    if self.stopping:
                        raise InputError("the run was ended")
                    if known:
                        found = [next(known, []) for _ in frames]
                    else:
                        found = track.detect(frames, cuts) if track else self.detect(frames)
                    for frame, cut, faces in zip(frames, cuts, found, strict=True):
                        clips.feed(frame, cut, faces)
            clips.publish(folder)
            return Result(name, **clips.counts)

    def detect(self, frames: list[np.ndarray]) -> list[list[Box]]:
        """The faces of frames of one shape."""
        detector = self._detectors.get()
        try:
            return detector.detect(np.stack(frames))
        finally:
            self._detectors.put(detector)


def known_boxes(video: str) -> Iterator[list[Box]]:
    """The faces at 25 frames a second by the file of boxes beside the video: one for all frames, or
    one for each frame of the video or of its 25 a second. InputError where it fits neither.
    """
    path = os.path.splitext(video)[0] + ".json"
    boxes = read_boxes(path)
    if len(boxes) == 1:
        return itertools.repeat(boxes[0])
    times = np.array([time for time, _ in iter_frames(video)])
    if len(boxes) != len(times):
        resampled = count_frames(video, FPS)
        if abs(len(boxes) - resampled) <= 1:  # decoders differ in the last frame
            return iter(boxes)
        if abs(len(boxes) - len(times)) > 1:
            raise InputError(
                f"{path} has {len(boxes)} boxes, {video} {len(times)} frames, and {resampled} at "
                f"{FPS} a second"
            )
    middles = (times[1:] + times[:-1]) / 2  # each 25th shows the frame nearest to it in time
    nearest = (int(np.searchsorted(middles, k / FPS, "right")) for k in itertools.count())
    return (boxes[frame] if frame < len(boxes) else [] for frame in nearest)


def _chunks(video: str, settings: Settings) -> Iterator[tuple[list[np.ndarray], list[bool]]]:
    """Frames at 25 a second in lists of one shape, and of each whether a shot begins with it."""
    shots = ShotCuts() if settings.rules.split or settings.track else None
    frames: list[np.ndarray] = []
    cuts: list[bool] = []
    for index, (_, frame) in enumerate(iter_frames(video, FPS)):
        full = len(frames) >= frames_at_once(frame, settings.batch_size)
        if frames and (full or frame.shape != frames[0].shape):
            yield frames, cuts
            frames, cuts = [], []
        frames.append(frame)
        cuts.append(shots is not None and shots.feed(index, frame))
    if frames:
        yield frames, cuts


@contextlib.contextmanager
def claim(folder: str) -> Iterator[str]:
    """The empty folder `<folder>.part`, this process' own while the block runs, gone afterwards.

    The lock dies with the process, however that ends, and what it left is cleared by the next one.
    Raises Busy where a living process holds it.
    """
    part, lock = folder + PART, os.path.join(folder + PART, LOCK)
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(part, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, handle)
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(lock).st_ino != os.fstat(handle).st_ino:
                raise Busy(part)
        except (BlockingIOError, FileNotFoundError) as error:  # or its owner removed it just now
            raise Busy(part) from error
        for entry in os.scandir(part):
            if entry.is_dir():
                shutil.rmtree(entry.path)
            elif entry.name != LOCK:
                os.remove(entry.path)
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        yield part


class Clips:
    """The clips of one video in the making, below `part`; feed() its frames, then publish()."""

    def __init__(self, video: str, part: str, settings: Settings) -> None:
        self.video, self.settings, self.rules = video, settings, settings.rules
        self.folder, sound = os.path.join(part, "clips"), os.path.join(part, "sound.wav")
        os.mkdir(self.folder)
        write_sound(video, sound)
        self._sound = np.memmap(sound, "<i2", "r", offset=44)
        self._pieces, self._index = Pieces(self.rules), 0
        self._open: str | None = None  # folder of the piece that frames go to
        self._boxes: list[list[int] | None] = []  # of its frames, cut to the frame
        self.counts: Counter = Counter()  # as Result has them

    def feed(self, frame: np.ndarray, cut: bool, faces: list[Box]) -> None:
        """The next frame, uint8 BGR: its face becomes `<frame>.jpg` of the piece it belongs to."""
        ended, box = self._pieces.feed(self._index, cut, faces)
        self._close(ended)
        self._index += 1
        piece = self._pieces.piece
        if piece is None:
            return
        if self._open is None:
            self._open = os.path.join(self.folder, f"{piece.first:06d}")
            os.mkdir(self._open)
        self._boxes.append(_write_crop(frame, box, self._open, len(self._boxes)))

    def _close(self, piece: Piece | None) -> None:
        """Finish the open clip, or throw it away where it is too short or has no face or sound."""
        if piece is None or self._open is None:
            return
        folder, self._open = self._open, None
        boxes, self._boxes = self._boxes[: len(piece.boxes)], []  # less where the face was gone
        faces = sum(box is not None for box in boxes)
        first = piece.first * SAMPLES_PER_FRAME
        last = first + len(boxes) * SAMPLES_PER_FRAME
        sound = self._sound[first : last + REACH] if self.rules.split else self._sound
        short = self.rules.split and len(boxes) < self.rules.min_frames
        if short or not faces or len(sound) < SHORTEST_SOUND:
            self.counts["short"] += faces > 0
            shutil.rmtree(folder)
            return
        self.counts.update(clips=1, frames=len(boxes), faces=faces, crowded=piece.crowded > 0)
        record = {
            "source": self.video,
            "fps": FPS,
            "first_frame": piece.first,
            "frames": len(boxes),
            "faces": faces,
            "other_faces": piece.crowded,
            "seconds": round(len(sound) / SAMPLE_RATE, 3),
            "detector": self.settings.detector + ", tracked" * self.settings.track,
            "boxes": boxes,
        }
        sound = np.array(sound)
        wavfile.write(os.path.join(folder, "audio.wav"), SAMPLE_RATE, sound)
        # of the 16-bit file, as in the released code, so that it can always be made again
        mel = melspectrogram(sound.astype(np.float32) / 32768)
        np.save(os.path.join(folder, "mel.npy"), np.ascontiguousarray(mel.T))
        write_json(os.path.join(folder, "clip.json"), record)

    def publish(self, folder: str) -> None:
        """Put the clips in their place: one alone as the video's own folder. InputError where there
        is none.
        """
        self._close(self._pieces.end())
        del self._sound
        if not self.counts["clips"]:
            short = f"piece of {self.rules.min_frames} frames" if self.counts["short"] else "face"
            raise InputError(f"no {short} in {self._index} frames: {self.video}")
        names = sorted(os.listdir(self.folder))
        if len(names) == 1:
            done = os.path.join(self.folder, names[0])
        else:  # a folder of pieces is told from what former versions left unfinished by this
            done = self.folder
            write_json(f"{done}/pieces.json", {"source": self.video, "pieces": names})
        if os.path.isdir(folder):  # such a one; where something else lies in it, this fails
            for name in filter(re.compile(r"\d{6}").fullmatch, os.listdir(folder)):
                shutil.rmtree(os.path.join(folder, name))
            os.rmdir(folder)
        os.rename(done, folder)


def write_sound(video: str, path: str) -> None:
    """The sound of `video` as 16 kHz mono PCM, streamed into `path`.

    Sample 0 is heard when the first frame is seen. InputError where there is no sound.
    """
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", None))
        for chunk in iter_audio(video, SAMPLE_RATE):
            if not np.isfinite(chunk).all():
                raise InputError(f"the audio of {video} has samples that are not finite numbers")
            file.writeframesraw(pcm16(chunk[0]).tobytes())
        samples = file.tell()
    if samples < SHORTEST_SOUND:
        raise InputError(f"the audio track of {video} holds {samples / SAMPLE_RATE:.3f} s of sound")


def _write_crop(frame: np.ndarray, box: Box | None, folder: str, number: int) -> list[int] | None:
    """`<number>.jpg` of the box in the frame; the box as cut, None where nothing is left."""
    found = padded_box(box, (0, 0, 0, 0), *frame.shape[:2]) if box else None
    if found is None:
        return None
    x1, y1, x2, y2 = found
    # not imwrite: it cannot take a name that is not UTF-8
    _, content = cv2.imencode(".jpg", frame[y1:y2, x1:x2], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with open(os.path.join(folder, f"{number}.jpg"), "wb") as file:
        file.write(content)
    return list(found)
