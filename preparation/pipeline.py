"""One video into its clip or clips, and a station that does this for many with one detector."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from errors import InputError
from face_detection.shots import ShotCuts
from media.files import write_json
from preparation.clip_writer import (
    FPS,
    SAMPLES_PER_FRAME,
    SHORTEST_SOUND,
    Busy,
    PieceWriter,
    claim,
    finished_pieces,
    is_done,
    write_sound,
)
from preparation.detection import DetectionService, Immediate, Stages
from preparation.pieces import Piece, PieceRules, Pieces

CHUNK_BYTES = 2**26  # of frames decoded at once for one video, whatever their size


class Stopped(Exception):
    """The run is being ended."""


@dataclass(frozen=True)
class Settings:
    """What decides a run; plain values, so that it can be sent to other processes."""

    preprocessed_root: str
    detector: str
    detector_options: dict
    batch_size: int
    rules: PieceRules
    workers: int  # clips at a time on one device; on a CPU also the detectors
    float32: bool = False  # S3FD in full precision on a GPU too


@dataclass(frozen=True)
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


class Station:
    """A device with its detector, and process() for the threads that feed it."""

    def __init__(self, settings: Settings, device: str) -> None:
        self.settings, self.stages, self.stopping = settings, Stages(), False
        self.known_boxes = settings.detector == "boxes"  # they lie beside each video
        self.service = None
        if not self.known_boxes:
            self.service = self._start_service(device)

    def _start_service(self, device: str) -> DetectionService:
        import cv2

        from face_detection import create_detector

        on_cpu = device == "cpu"
        options = dict(self.settings.detector_options)
        if self.settings.detector == "sfd":
            options["half"] = not (on_cpu or self.settings.float32)
        threads = self.settings.workers if on_cpu else 1
        if on_cpu:  # the workers are the parallelism: more threads would fight over the cores
            cv2.setNumThreads(max(1, (os.cpu_count() or 1) // threads))
        return DetectionService(
            lambda: create_detector(self.settings.detector, device, **options),
            threads,
            self.settings.batch_size,
            merge=not on_cpu,
            stages=self.stages,
        )

    def process(self, name: str, video: str) -> Result:
        """process_video; what is wrong with the video becomes the Result's error."""
        try:
            return process_video(name, video, self)
        except Busy:
            return Result(name, busy=True)
        except Stopped:
            raise
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            return Result(name, error=kind + " ".join(str(error).split()))

    def detection(self, video: str, start: int) -> DetectionService | Immediate:
        """What finds the faces of `video`, whose first frame to come is number `start`."""
        if self.service is not None:
            return self.service
        from face_detection import create_detector

        known = create_detector("boxes", path=os.path.splitext(video)[0] + ".json")
        known.reset(start)
        return Immediate(known)

    def close(self) -> None:
        self.stopping = True
        if self.service is not None:
            self.service.close()


def process_video(name: str, video: str, station: Station) -> Result:
    """One video into `<preprocessed_root>/<name>/`: one clip, or a folder of pieces.

    Raises InputError where the video gives no clip (no sound, no face, not decodable), Busy where
    another run is working on it, Stopped where this run is being ended.
    """
    from media.read import probe

    folder = os.path.join(station.settings.preprocessed_root, name)
    if is_done(folder):
        return Result(name, skipped=True)
    with claim(folder) as part:
        if is_done(folder):  # by another run, just now
            return Result(name, skipped=True)
        start = time.monotonic()
        sound = os.path.join(part, "sound.wav")
        write_sound(video, sound)  # first: a video without sound is refused quickly
        rules = station.settings.rules
        long = rules.split and probe(video).duration * FPS > rules.max_frames
        station.stages.add("decode", start)
        job = VideoJob(name, video, folder, part, station, publish_at_once=long)
        return job.run()


class VideoJob:
    """The state of one video on its way through decoding, detection and writing."""

    def __init__(
        self, name: str, video: str, folder: str, part: str, station: Station, publish_at_once: bool
    ) -> None:
        self.name, self.video, self.folder, self.part = name, video, folder, part
        self.station, self.stages, self.rules = station, station.stages, station.settings.rules
        resumed = finished_pieces(folder) if self.rules.split else None
        self.start = resumed or 0
        self.detection = station.detection(video, self.start)
        # pieces of a video that may turn out to be one clip wait until its end is seen
        self.publish_at_once = publish_at_once or resumed is not None
        self.pieces = Pieces(self.rules, self.start)
        self.sound = np.memmap(os.path.join(part, "sound.wav"), "<i2", "r", offset=44)
        self.writer: PieceWriter | None = None
        self.waiting: list[str] = []  # finished pieces that are not published yet
        self.clips = self.frames = self.faces = self.crowded = self.short = 0

    def run(self) -> Result:
        """Decode one chunk ahead of the detector, write the one that it has done."""
        ahead: deque[tuple[list, list[bool], Future]] = deque()
        index = self.start
        for frames, cuts in self._chunks():
            ahead.append((frames, cuts, self.detection.submit(frames)))
            if len(ahead) > 1:
                index = self._take(index, *ahead.popleft())
        while ahead:
            index = self._take(index, *ahead.popleft())
        self._close(self.pieces.end(index))
        self._publish_all(index)
        return Result(self.name, self.clips, self.frames, self.faces, self.crowded, self.short)

    def _chunks(self) -> Iterator[tuple[list[np.ndarray], list[bool]]]:
        """Frames at 25 fps from self.start on, in lists of one shape, and whether a shot begins."""
        from media.read import iter_frames

        shots = ShotCuts() if self.rules.split else None
        prime = max(0, self.start - 1)  # the frame before tells whether the first one is a cut
        frames: list[np.ndarray] = []
        cuts: list[bool] = []
        clock = time.monotonic()
        for index, (_, frame) in enumerate(iter_frames(self.video, FPS, skip=prime), prime):
            cut = shots is not None and shots.feed(index, frame)
            if index < self.start:
                continue
            full = len(frames) >= min(
                self.station.settings.batch_size, max(1, CHUNK_BYTES // frame.nbytes)
            )
            if frames and (full or frame.shape != frames[0].shape):
                self.stages.add("decode", clock)
                yield frames, cuts
                frames, cuts, clock = [], [], time.monotonic()
            frames.append(frame)
            cuts.append(cut)
        self.stages.add("decode", clock)
        if frames:
            yield frames, cuts

    def _take(self, index: int, frames: list, cuts: list[bool], found: Future) -> int:
        """Write a chunk whose boxes are there; returns the index of the frame behind it."""
        boxes = found.result()
        if self.station.stopping:
            raise Stopped
        start = time.monotonic()
        for frame, cut, faces in zip(frames, cuts, boxes, strict=True):
            ended, box = self.pieces.feed(index, cut, faces)
            self._close(ended)
            if self.pieces.piece is not None:
                if self.writer is None:
                    self.writer = self._open(self.pieces.piece)
                self.writer.write(frame, box)
            index += 1
        self.stages.add("write", start)
        return index

    def _open(self, piece: Piece) -> PieceWriter:
        folder = os.path.join(self.part, f"{piece.first:06d}")
        return PieceWriter(folder, self.video, self.detection.name)

    def _close(self, piece: Piece | None) -> None:
        """Finish the open clip, or throw it away where it is too short or has no face or sound."""
        if piece is None or self.writer is None:
            return
        writer, self.writer = self.writer, None
        del writer.boxes[len(piece.boxes) :]  # trimmed where the face was gone
        first = piece.first * SAMPLES_PER_FRAME
        last = first + len(piece.boxes) * SAMPLES_PER_FRAME
        sound = self.sound[first:last] if self.rules.split else self.sound
        short = self.rules.split and len(piece.boxes) < self.rules.min_frames
        if short or not writer.faces or len(sound) < SHORTEST_SOUND:
            self.short += bool(writer.faces)
            shutil.rmtree(writer.folder)
            return
        writer.finish(piece, np.array(sound))
        self.clips += 1
        self.frames += len(piece.boxes)
        self.faces += writer.faces
        self.crowded += piece.crowded > 0
        self.waiting.append(writer.folder)
        if self.publish_at_once:
            self._publish()

    def _publish(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        for folder in self.waiting:
            os.rename(folder, os.path.join(self.folder, os.path.basename(folder)))
        self.waiting.clear()

    def _publish_all(self, frames: int) -> None:
        """Put the clips in place: a single one of a short video as the video's own folder."""
        if not self.clips and not self.publish_at_once:
            reason = f"no piece of {self.rules.min_frames} frames" if self.short else "no face"
            raise InputError(f"{reason} in {frames} frames: {self.video}")
        if not self.publish_at_once and len(self.waiting) == 1:
            os.rename(self.waiting[0], self.folder)
            return
        self._publish()
        if not os.path.isdir(self.folder):
            raise InputError(f"no face in {frames} frames: {self.video}")
        pieces = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        write_json(
            os.path.join(self.folder, "pieces.json"), {"source": self.video, "pieces": pieces}
        )
