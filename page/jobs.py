"""What the web page does with the files of its users: one job a user, and nothing is left of it.

An upload is deleted as soon as its job ends, however it ends; the result when the user's next job
begins, when the page is closed, or by the page's clock. No gradio here; see page/layout.py.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from backends.base import CHUNK
from errors import InputError
from lipsync.options import FlagParser

# Those of inference.py's flags that the page shows, in this order
SHOWN = ("pads", "box", "face_index", "target", "no_face", "nosmooth", "paste", "mask", "mark",
         "pad", "rotate", "silence_gate", "faithful")  # fmt: skip
MAX_SIDE = 2160  # px of the shorter side; larger frames are scaled down: few bytes can hold 13000
ORIGINAL_SIDE = 480  # px, at most, of the shorter side of the original that is shown
RATE = 16000  # Hz, at which the speech's length is counted
# A job can be stopped between two batches; on a CPU larger ones are no faster
CPU_BATCHES = {"face_det_batch_size": 4, "wav2lip_batch_size": CHUNK}


class Stopped(Exception):
    """The user has stopped the job, or has closed the page."""


def shown_flags() -> dict[str, argparse.Action]:
    """The flags of inference.py that the page shows: their choices, defaults and help."""
    actions = {action.dest: action for action in FlagParser()._actions}
    return {name: actions[name] for name in SHOWN}


def parse_options(values: dict[str, object]) -> dict:
    """Keyword arguments of Options from what the page's fields hold: text, or bool of a switch.

    InputError for a field that cannot be read. A field gives its own option and no other, whatever
    is written into it: --enhance runs a command and is not for visitors.
    """
    parser, options = FlagParser(), {}
    for name in SHOWN:
        value = values.get(name)
        if isinstance(value, bool):
            options[name] = value
        elif text := str("" if value is None else value).strip():
            options[name] = parser.value(name, text)
    return options


@dataclass
class Job:
    """folder: the job's own, its inputs; out: served by the page, its results."""

    folder: Path
    out: Path
    options: dict
    uploads: list[str]  # the page's copies
    face: str = ""
    audio: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    running: bool = False
    over: bool = False

    def go_on(self) -> None:
        if self.stop.is_set():
            raise Stopped


class Jobs:
    """The jobs of all users. root: a folder of our own, with the examples, which are never deleted,
    and in root/served the page's uploads and results. max_seconds: of a face video and of a speech.
    user: any name that two users do not share.
    """

    def __init__(self, lipsync, root: Path, max_seconds: float) -> None:
        self.lipsync, self.max_seconds = lipsync, max_seconds
        self._fixed = CPU_BATCHES if lipsync.device.type == "cpu" else {}
        self._root = root.resolve()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        # the page's queue lets one job in at a time; but one that is stopped may not be out yet
        self._device = threading.Lock()

    def claim(self, user: str, face: str | None, audio: str | None, options: dict) -> None:
        """Take over a user's two files and look at them; the results of the last job go.

        Raises InputError where something is missing or is refused, or Stopped. Files that were
        looked at are then gone.
        """
        if not face or not audio:
            missing = "a face: a video or a photo" if not face else "a speech: a sound or a video"
            raise InputError(f"choose {missing}")
        name = uuid.uuid4().hex
        uploads = [path for path in (face, audio) if not self.is_example(path)]
        job = Job(self._root / "jobs" / name, self._root / "served" / name, options, uploads)
        with self._lock:
            last = self._jobs.get(user)
            if last and not last.over:
                raise InputError("your last job is not over: wait for it, or press Stop")
            self._jobs[user] = job
        if last:
            _remove(last.out)
        try:
            with self._plainly(job):
                job.face = self._take(job, face, "face")
                job.audio = self._take(job, audio, "speech")
                self._check(job)
            job.go_on()
        except BaseException as error:
            self._end(job)
            if job.stop.is_set():  # whatever was found missing then
                raise Stopped from error
            raise

    def run(self, user: str, report: Callable[[str, int, int], None]) -> tuple[str, str, str]:
        """Do the claimed job: (its video, the original, what there is to say about it).

        report: as of LipSync.run; its last stage is "original". Raises InputError, or Stopped.
        """
        with self._lock:
            job = self._jobs.get(user)
            if job is None or job.over or job.running:
                raise Stopped
            job.running = True

        def told(stage: str, done: int, total: int) -> None:
            job.go_on()
            report(stage, done, total)

        try:
            result, original = str(job.out / "result_voice.mp4"), str(job.out / "original.mp4")
            with self._device, self._plainly(job):
                job.go_on()
                options = self._fixed | {"max_short_side": MAX_SIDE} | job.options
                summary = self.lipsync.run(job.face, job.audio, result, told, **options)
                rotate = job.options.get("rotate", False)
                _write_original(job.face, original, summary.fps, summary.frames, rotate, told)
        except BaseException:
            _remove(job.out)
            raise
        finally:
            self._end(job)
        note = f"{summary.frames} frames at {summary.fps:g} frames a second."
        if summary.faceless:
            spans = ", ".join(f"{first}..{last}" for first, last in summary.faceless)
            note += f" No face in frames {spans}: left as they are."
        return result, original, note

    def stop(self, user: str) -> bool:
        """End a user's job: one that waits at once, one that runs at its next frame or batch. False
        where there is none.
        """
        with self._lock:
            job = self._jobs.get(user)
            if job is None or job.over:
                return False
            job.stop.set()
        if not job.running:
            self._end(job)
        return True

    def leave(self, user: str) -> None:
        """The user is gone: end the job, delete the results."""
        self.stop(user)
        with self._lock:
            job = self._jobs.pop(user, None)
        if job and job.over:
            _remove(job.out)

    def is_example(self, path: str) -> bool:
        return Path(path).resolve().is_relative_to(self._root / "examples")

    def _take(self, job: Job, path: str, what: str) -> str:
        """The file under the job's own name. Two users who upload one file share the page's copy of
        it, which the first job to end deletes: hence a link.
        """
        if self.is_example(path):
            return path
        taken = job.folder / what / Path(path).name
        with self._lock:  # a job that is being deleted takes no more
            job.go_on()
            taken.parent.mkdir(parents=True)
            try:
                os.link(path, taken)
            except FileNotFoundError as error:
                raise InputError(
                    f"the {what} is gone, as uploads are when a job has ended: choose it again"
                ) from error
        return str(taken)

    def _check(self, job: Job) -> None:
        """InputError unless both files can be opened and are short enough."""
        from media.picture import is_image
        from media.read import count_frames, iter_audio, probe

        limit = self.max_seconds
        if not is_image(job.face):
            info = probe(job.face)
            most = int(limit * info.fps) + 1
            # browsers' recordings do not state it
            length = info.duration or count_frames(job.face, info.fps, most) / info.fps
            if length > limit:
                raise InputError(f"the face video is longer than {limit:g} seconds: cut it")
        heard = 0
        for chunk in iter_audio(job.audio, RATE):
            heard += chunk.shape[1]
            if heard > limit * RATE:
                raise InputError(f"the speech is longer than {limit:g} seconds: cut it")

    def _end(self, job: Job) -> None:
        """Delete the uploads, and what nobody waits for."""
        with self._lock:
            _remove(job.folder)
            for path in job.uploads:
                Path(path).unlink(missing_ok=True)
            job.over = True
            if job.stop.is_set():
                _remove(job.out)

    @contextlib.contextmanager
    def _plainly(self, job: Job):
        """Error lines name files as the user does, not where they lie here."""
        try:
            yield
        except InputError as error:
            line = " ".join(str(error).split())
            inputs = (job.folder / "face", job.folder / "speech", self._root / "examples")
            for folder in (*inputs, job.out):
                line = line.replace(f"{folder}{os.sep}", "")
            raise InputError(line) from error


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _write_original(
    face: str, path: str, fps: float, count: int, rotate: bool,
    report: Callable[[str, int, int], None],
) -> None:  # fmt: skip
    """The first `count` frames of the face, small and silent, in a form that every browser plays:
    what is shown beside the result once the upload is gone.
    """
    from face_detection.track import face_frames
    from media.picture import is_image
    from media.write import VideoWriter

    frames = face_frames(face, rotate=rotate, max_short_side=ORIGINAL_SIDE)
    frames = itertools.repeat(next(frames)) if is_image(face) else frames
    with VideoWriter(path, fps) as writer:
        for frame in itertools.islice(frames, count):
            writer.write(frame)
            report("original", writer.frames, count)
