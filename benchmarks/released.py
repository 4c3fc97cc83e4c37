"""The released program beside this one: `python benchmark.py released --repo PATH`.

The user's own checkout is run as its page says, unchanged, in turns with inference.py.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import add_shared, best_times, circumstances, random_checkpoint, report
from benchmarks.inference import Job, make_job
from errors import InputError

RELEASED = "released"
OURS = Path(__file__).resolve().parent.parent / "inference.py"
PARTS = ("inference.py", "face_detection/detection/sfd/sfd_detector.py")  # of a checkout
WEIGHTS = "face_detection/detection/sfd/s3fd.pth"
COLUMNS = {
    "program": "program", "faces": "faces", "seconds": "seconds", "frames/s": "frames_per_second",
    "x released": "speedup", "peak MB": "peak_mb",
}  # fmt: skip
# Runs the program where its detector's weights are absent. Random ones take as long, once no anchor
# scores as a face (a real picture has few that do); then the box is said to have been found.
WITHOUT_WEIGHTS = """
import os, runpy, sys
box, sys.argv = tuple(map(int, sys.argv[1].split(","))), sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import face_detection
from face_detection.detection.sfd import net_s3fd, sfd_detector

def drawn(*args, **kwargs):
    state = net_s3fd.s3fd().state_dict()
    for name, value in state.items():
        if "mbox_conf" in name:
            value *= 0
            if name.endswith("bias"):
                value[:-1] = 10
    return state

def found(self, images):
    search(self, images)
    return [box] * len(images)

sfd_detector.load_url = drawn
search = face_detection.FaceAlignment.get_detections_for_batch
face_detection.FaceAlignment.get_detections_for_batch = found
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add_shared(parser, "face", "audio", "checkpoint_path", "repeats", "json", span=5.0,
        of="of speech, at most")
    add = parser.add_argument
    add("--repo", required=True, help="a checkout of the released code")
    add("--python", default=sys.executable, metavar="FILE",
        help="the interpreter that has what it needs (librosa below 0.10); default: this one")
    add("--int8", action="store_true", help="measure ours in int8, too")
    # fmt: on


def measure(args: argparse.Namespace) -> None:
    """Print seconds and memory of both programs' whole processes, the face's box given and not."""
    if lacks := [part for part in PARTS if not os.path.isfile(os.path.join(args.repo, part))]:
        raise InputError(
            f"--repo {args.repo} is no checkout of the released code: it has no {lacks[0]} "
            "(git clone https://github.com/Rudrabha/Wav2Lip)"
        )
    if not (python := shutil.which(args.python)):
        raise InputError(f"--python is not found: {args.python}")
    args.python = os.path.abspath(python)
    for what in ("face", "audio", "checkpoint_path"):
        if path := getattr(args, what):
            setattr(args, what, os.path.abspath(path))
    with tempfile.TemporaryDirectory() as folder:
        drawn = functools.partial(random_checkpoint, os.path.join(folder, "w.pth"))
        args.checkpoint_path = args.checkpoint_path or drawn("Wav2Lip")
        job, facts, peaks = make_job(args, folder), circumstances(), {}
        os.mkdir(os.path.join(folder, "temp"))  # where the released program writes
        ways, notes = commands(args, job, folder)
        steps = {way: functools.partial(run, ways[way], folder, way, peaks) for way in ways}
        for way in ways:
            if way[0] != RELEASED:
                steps[way]()  # its converted network is kept from now on
        took = best_times(steps, args.repeats, "runs")
    rows = [
        {"program": name, "faces": faces, "seconds": spent, "peak_mb": peaks[name, faces],
         "frames_per_second": job.frames / spent, "speedup": took[RELEASED, faces] / spent}
        for (name, faces), spent in took.items()
    ]  # fmt: skip
    notes.insert(0, "faces: searched for, or their box given. Peak: of the process alone.")
    title, tables = f"whole processes, {job.frames} frames", [(rows, COLUMNS)]
    report(args, title, facts, tables, *notes, runs=rows, frames=job.frames, notes=notes[1:])


def commands(args: argparse.Namespace, job: Job, folder: str) -> tuple[dict, list[str]]:
    """(program, faces) -> its command, and what is to be said of them."""
    from face_detection import create_detector
    from media.read import iter_frames

    script, notes = os.path.abspath(os.path.join(args.repo, PARTS[0])), []
    with contextlib.closing(iter_frames(job.face)) as frames:
        found = create_detector("centerface").detect(next(frames)[1][None])[0]
    if not found:
        raise InputError(f"no face in the first frame of {job.face}")
    x1, y1, x2, y2 = map(str, map(int, found[0][:4]))
    rest = ["--checkpoint_path", args.checkpoint_path, "--face", job.face, "--audio", job.audio]
    rest += ["--outfile", "out.mp4"]
    starts = {RELEASED: [args.python, "-B", script]}  # writes nothing into the checkout
    for precision in ("float32", "int8")[: 1 + args.int8]:
        kept = [sys.executable, str(OURS), "--cache_dir", os.path.join(folder, "kept")]
        starts[f"ours, {precision}"] = kept + ["--int8"] * (precision == "int8")
    box = ["--box", y1, y2, x1, x2]
    ways = {
        (name, faces): start + rest + box * (faces == "given")
        for name, start in starts.items() for faces in ("found", "given")
    }  # fmt: skip
    if not os.path.isfile(os.path.join(args.repo, WEIGHTS)):
        start = [args.python, "-B", "-c", WITHOUT_WEIGHTS, ",".join((x1, y1, x2, y2)), script]
        ways[RELEASED, "found"] = start + rest
        notes.append(f"Random weights in its detector (no {WEIGHTS}): it is told the box.")
    if not shutil.which("ffmpeg"):
        notes.append("No ffmpeg: the released program's last step, sound, is left out.")
    return ways, notes


def run(command: list[str], folder: str, way: tuple[str, str], peaks: dict) -> None:
    """One run in `folder`; peaks[way]: the MB that any of its runs held at most."""
    made = Path(folder, "temp/result.avi" if way[0] == RELEASED else "out.mp4")
    made.unlink(missing_ok=True)
    peak, code, said = command_peak(command, folder)
    if code or not made.is_file():
        raise InputError(f"{way[0]}, face {way[1]}, ended with {code}: {said}")
    peaks[way] = max(peaks.get(way, 0), peak)


def command_peak(command: list[str], folder: str) -> tuple[float, int, str]:
    """A program run in `folder`: the MB (2**20 bytes) it held at most, as seen every 20 ms, without
    its children; its exit code; the last line that it wrote.
    """
    import psutil

    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
            held, peak = psutil.Process(process.pid), 0
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):  # it ends meanwhile
                    peak = max(peak, held.memory_info().rss)
                time.sleep(0.02)
        log.seek(0)
        lines = log.read().strip().splitlines()
    return peak / 2**20, process.returncode, lines[-1] if lines else "nothing was said"
