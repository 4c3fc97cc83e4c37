"""Many videos in one go: `inference.py --manifest jobs.csv --workers 2`.

    face,audio,outfile,pads,paste
    me.mp4,speech.wav,out/one.mp4,,
    me.jpg,speech.wav,out/two.mp4,0 20 0 0,poisson

Columns beside face, audio and outfile are flags of inference.py; where a cell is empty, what the
command line says holds. Paths are relative to the manifest's folder. How each job ended is added
to `<manifest>.status.jsonl`: the same command again does what has failed, changed or is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from errors import InputError
from face_detection.arguments import weights_files
from lipsync.options import REFERENCES, FlagParser
from media.files import add_record, log_job, read_records, stamp
from media.lists import join_listed, read_lines
from media.workers import Process, share_out, stop_all
from models.device import core_count

PATHS = ("face", "audio", "outfile")


@dataclass
class Job:
    """A row: its line in the manifest, the three paths, and the Options of `run`."""

    line: int
    name: str  # the outfile as the row has it
    face: str
    audio: str
    outfile: str
    options: dict
    key: dict  # what the result depends on


def read_manifest(args: argparse.Namespace, options: dict) -> list[Job]:
    """Its rows; InputError naming line and column of what cannot be used."""
    path = args.manifest
    flags, jobs = FlagParser(), []
    reader = csv.DictReader(read_lines(path, "manifest"), strict=True)
    try:
        _check_header(path, reader.fieldnames or [], flags)
        for row in reader:
            jobs.append(_job(args, options, flags, row, reader.line_num))
    except csv.Error as error:
        raise InputError(f"manifest is no CSV: {path}, line {reader.line_num}: {error}") from error
    if not jobs:
        raise InputError(f"manifest has no job: {path}")
    _check_paths(path, jobs)
    return jobs


def _check_header(path: str, names: list[str], flags: FlagParser) -> None:
    known = [*PATHS, *vars(flags.parse_args([]))]
    for number, name in enumerate(names):
        if name not in known:
            raise InputError(f"{path}, line 1: unknown column {name!r}; known: {', '.join(known)}")
        if name in names[:number]:
            raise InputError(f"{path}, line 1: column {name!r} is there twice")
    for name in PATHS:
        if name not in names:
            raise InputError(f"{path}, line 1: no column {name!r}")


def _job(args: argparse.Namespace, options: dict, flags: FlagParser, row: dict, line: int) -> Job:
    where = f"{args.manifest}, line {line}"
    if None in row:
        raise InputError(f"{where}: more cells than columns")
    cells = {name: (text or "").strip() for name, text in row.items()}
    for name in PATHS:
        if not cells[name]:
            raise InputError(f"{where}: column {name!r} is empty")
    own = {}
    for name, text in cells.items():
        if text and name not in PATHS:
            try:
                own[name] = flags.value(name, text)
            except InputError as error:
                raise InputError(f"{where}, column {name!r}: {text!r}: {error}") from error
    options = options | own
    folder = os.path.dirname(os.path.abspath(args.manifest))
    reference = options["reference"]
    if "reference" in own and reference not in REFERENCES:
        options["reference"] = reference = os.path.join(folder, reference)
    face, audio, outfile = (join_listed(folder, cells[name]) for name in PATHS)
    names = ("backend", "int8", "detector", "det_size")
    model = {name: str(getattr(args, name)) for name in names}
    files = (face, audio, args.checkpoint_path, *weights_files(args).values(), args.boxes)
    if reference not in REFERENCES:
        files += (reference,)
    key = {"options": options, "model": model, "files": [stamp(path or "") for path in files]}
    key |= {name: cells[name] for name in ("face", "audio")}
    return Job(line, cells["outfile"], face, audio, outfile, options, json.loads(json.dumps(key)))


def _check_paths(path: str, jobs: list[Job]) -> None:
    """No job may write what another writes or reads."""
    writers: dict[str, Job] = {}
    for job in jobs:
        first = writers.setdefault(os.path.realpath(job.outfile), job)
        if first is not job:
            raise InputError(f"{path}: lines {first.line} and {job.line} both make {job.name}")
    for job in jobs:
        for source in (job.face, job.audio):
            writer = writers.get(os.path.realpath(source))
            if writer is not None:
                raise InputError(
                    f"{path}: line {writer.line} would replace {writer.name}, which line "
                    f"{job.line} reads"
                )


def run_manifest(args: argparse.Namespace, options: dict) -> int:
    """Do the jobs of `args.manifest`, `args.workers` at a time; 1 if any failed, else 0.

    args: of inference.py. options: of Options, for all jobs. Raises InputError where the manifest,
    the network or the detector cannot be used: then nothing is done.
    """
    if args.face or args.audio or args.preview:
        raise InputError("--manifest names faces and audios: leave out --face, --audio, --preview")
    jobs = read_manifest(args, options | {"progress": False})
    log = args.manifest + ".status.jsonl"
    entries = {entry.get("outfile"): entry for entry in read_records(log)}  # the last one counts

    def is_done(job: Job) -> bool:
        entry = entries.get(job.name, {})
        same = entry.get("status") == "done" and entry.get("key") == job.key
        return same and os.path.isfile(job.outfile)

    todo = [job for job in jobs if not is_done(job)]
    done, failed = 0, []
    results = _in_processes(args, todo) if args.workers > 1 else _in_turn(args, todo)
    with contextlib.closing(results):
        for job, result in results:
            try:
                add_record(log, {"outfile": job.name, "key": job.key, **result})
            except OSError as error:
                raise InputError(f"cannot write {log}: {error.strerror}") from error
            if result["status"] == "failed":
                failed.append(f"line {job.line}: {job.name}: {result['reason']}")
            else:
                done += 1
            if args.log_dir:
                named = {"face": job.face, "audio": job.audio, "outfile": job.outfile}
                log_job(args.log_dir, "inference/processing.log", **named, **result)
            told = result.get("reason") or f"{result['frames']} frames, {result['seconds']} s"
            print(f"[{done + len(failed)}/{len(todo)}] {job.name}: {told}", flush=True)
    print(f"done       {done}\nfailed     {len(failed)}\nunchanged  {len(jobs) - len(todo)}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _do(lipsync, job: Job) -> dict:
    """How a job ended: its entry in the log, less what names it."""
    began = time.monotonic()
    try:
        summary = lipsync.run(job.face, job.audio, job.outfile, **job.options)
        result = {"status": "done", "frames": summary.frames, "faceless": summary.faceless}
    except InputError as error:
        result = {"status": "failed", "reason": " ".join(str(error).split())}
    except Exception as error:  # a fault of the program or the machine costs its job only
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        result = {"status": "failed", "reason": reason}
    return result | {"seconds": round(time.monotonic() - began, 2)}


def _in_turn(args: argparse.Namespace, jobs: list[Job]) -> Iterator[tuple[Job, dict]]:
    from lipsync.engine import create_lipsync

    lipsync = create_lipsync(args) if jobs else None
    for job in jobs:
        yield job, _do(lipsync, job)


def _in_processes(args: argparse.Namespace, jobs: list[Job]) -> Iterator[tuple[Job, dict]]:
    """Each job with its result, as they end. A process that dies costs its job; another follows."""
    count = min(args.workers, len(jobs))
    share = max(1, core_count() // max(1, count))
    processes = [Process(_start, (args, share), _failed) for _ in range(count)]
    workers = [worker for process in processes for worker in process.workers]
    return share_out(jobs, workers, lambda: stop_all(processes))


def _start(args: argparse.Namespace, cores: int) -> Callable[[Job], dict]:
    """In a process: its network, and what does a job with it."""
    os.environ["OMP_NUM_THREADS"] = str(cores)  # of torch, which is not loaded yet, and OpenVINO
    import cv2

    from lipsync.engine import create_lipsync

    cv2.setNumThreads(cores)
    return functools.partial(_do, create_lipsync(args))


def _failed(job: Job, how: str) -> dict:
    """The result of a job whose process ended; what that could not remove is removed."""
    from media.write import remove_leftovers

    remove_leftovers(job.outfile)
    return {"status": "failed", "reason": f"its worker {how}", "seconds": None}
