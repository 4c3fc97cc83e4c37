"""Writing clips so that one that is there is complete: in a claimed folder, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import wave
from collections.abc import Iterator

import numpy as np

from corpus.listing import PART
from errors import InputError
from media.files import write_json
from preparation.pieces import Piece

FPS = 25  # of the training clips, whatever the source's rate
SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
JPEG_QUALITY = 95
SHORTEST_SOUND = 401  # samples; the spectrogram's padding needs that many


class Busy(Exception):
    """Another run is working on this video."""


def is_done(folder: str) -> bool:
    """Whether a video has been finished: as one clip, or as pieces."""
    return any(os.path.exists(os.path.join(folder, name)) for name in ("clip.json", "pieces.json"))


@contextlib.contextmanager
def claim(folder: str) -> Iterator[str]:
    """The empty folder `<folder>.part`, this process' own while the block runs, gone afterwards.

    The lock dies with the process, however that ends, and what it left is cleared by the next one.
    Raises Busy where a living process holds it.
    """
    part = folder + PART
    lock = os.path.join(part, ".lock")
    try:
        os.makedirs(part, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError as error:  # its owner removed the folder just now
        raise Busy(part) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(lock).st_ino != os.fstat(handle).st_ino:
                raise Busy(part)
        except (BlockingIOError, FileNotFoundError) as error:
            raise Busy(part) from error
        for entry in os.scandir(part):
            if entry.is_dir():
                shutil.rmtree(entry.path)
            elif entry.path != lock:
                os.remove(entry.path)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(handle)


def write_sound(video: str, path: str) -> int:
    """The sound of `video` as 16 kHz mono PCM, streamed into `path`; returns its samples.

    Sample 0 is heard when the first frame is seen. InputError where there is no sound.
    """
    from audio import pcm16
    from media.read import iter_audio

    samples = 0
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for chunk in iter_audio(video, SAMPLE_RATE):
            if not np.isfinite(chunk).all():
                raise InputError(f"the audio of {video} has samples that are not finite numbers")
            pcm = pcm16(chunk[0])
            file.writeframesraw(pcm.tobytes())
            samples += len(pcm)
    if samples < SHORTEST_SOUND:
        raise InputError(f"the audio track of {video} holds {samples / SAMPLE_RATE:.3f} s of sound")
    return samples


class PieceWriter:
    """One clip in the making: its crops go to `folder` as they come, the rest at the end."""

    def __init__(self, folder: str, source: str, detector: str) -> None:
        os.mkdir(folder)
        self.folder, self.source, self.detector = folder, source, detector
        self.boxes: list[list[int] | None] = []

    def write(self, frame: np.ndarray, box: tuple[float, ...] | None) -> None:
        """The next frame: its face (x1, y1, x2, y2, ...) becomes `<frame>.jpg`."""
        import cv2

        from face_detection.track import padded_box

        found = padded_box(box, (0, 0, 0, 0), *frame.shape[:2]) if box else None
        if found:
            x1, y1, x2, y2 = found
            path = os.path.join(self.folder, f"{len(self.boxes)}.jpg")
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            if not cv2.imwrite(path, frame[y1:y2, x1:x2], quality):
                raise OSError(f"cannot write {path}")
        self.boxes.append(list(found) if found else None)

    @property
    def faces(self) -> int:
        return sum(box is not None for box in self.boxes)

    def finish(self, piece: Piece, sound: np.ndarray) -> None:
        """audio.wav, mel.npy and clip.json of the piece. sound: int16 (n,), aligned to its start.

        The mel is that of the 16-bit file, as in the released code, so it can always be made again.
        """
        from scipy.io import wavfile

        from audio import melspectrogram

        wavfile.write(os.path.join(self.folder, "audio.wav"), SAMPLE_RATE, sound)
        mel = melspectrogram(sound.astype(np.float32) / 32768)
        np.save(os.path.join(self.folder, "mel.npy"), np.ascontiguousarray(mel.T))
        record = {
            "source": self.source,
            "fps": FPS,
            "first_frame": piece.first,
            "next_frame": piece.next_frame,
            "frames": len(self.boxes),
            "faces": self.faces,
            "other_faces": piece.crowded,
            "seconds": round(len(sound) / SAMPLE_RATE, 3),
            "detector": self.detector,
            "boxes": self.boxes,
        }
        write_json(os.path.join(self.folder, "clip.json"), record)


def finished_pieces(folder: str) -> int | None:
    """Where an interrupted run of a long video is to be taken up: the frame at which the search for
    its next piece begins; None where no piece is there yet.
    """
    ends = []
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(entry.path, "clip.json")
        # anything else that lies there is no piece of ours
        with (
            contextlib.suppress(OSError, ValueError, KeyError),
            open(path, encoding="utf-8") as file,
        ):
            ends.append(int(json.load(file)["next_frame"]))
    return max(ends, default=None)
