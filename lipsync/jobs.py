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
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator

from errors import InputError
from lipsync.manifest import Job, read_manifest
from media.files import add_record, log_job, read_records
from media.workers import Process, share_out, stop_all
from models.device import core_count


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
    todo = [job for job in jobs if not _is_done(job, entries.get(job.name))]
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


def _is_done(job: Job, entry: dict | None) -> bool:
    return (
        entry is not None
        and entry.get("status") == "done"
        and entry.get("key") == job.key
        and os.path.isfile(job.outfile)
    )


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
