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
import collections
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

from errors import InputError, deaf_to_interrupts
from lipsync.manifest import Job, read_manifest

PATIENCE = 20  # seconds a worker gets to clean up before it is killed


def run_manifest(args: argparse.Namespace, options: dict) -> int:
    """Do the jobs of `args.manifest`, `args.workers` at a time; 1 if any failed, else 0.

    args: of inference.py. options: of Options, for all jobs. Raises InputError where the manifest,
    the network or the detector cannot be used: then nothing is done.
    """
    if args.face or args.audio or args.preview:
        raise InputError("--manifest names faces and audios: leave out --face, --audio, --preview")
    jobs = read_manifest(args, options | {"progress": False})
    log = args.manifest + ".status.jsonl"
    entries = _read_log(log)
    todo = [job for job in jobs if not _is_done(job, entries.get(job.name))]
    done, failed = 0, []
    results = _in_processes(args, todo) if args.workers > 1 else _in_turn(args, todo)
    with contextlib.closing(results):
        for job, result in results:
            _write_log(log, {"outfile": job.name, "key": job.key, **result})
            if result["status"] == "failed":
                failed.append(f"line {job.line}: {job.name}: {result['reason']}")
            else:
                done += 1
            told = result.get("reason") or f"{result['frames']} frames, {result['seconds']} s"
            print(f"[{done + len(failed)}/{len(todo)}] {job.name}: {told}", flush=True)
    print(f"done       {done}\nfailed     {len(failed)}\nunchanged  {len(jobs) - len(todo)}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _read_log(path: str) -> dict[str, dict]:
    """The last entry of each outfile; a line that a kill cut short is passed over."""
    entries = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    entries[entry["outfile"]] = entry
    return entries


def _write_log(path: str, entry: dict) -> None:
    try:
        with open(path, "ab+") as file:
            cut = (
                file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n"
            )
            line = json.dumps(entry, ensure_ascii=False) + "\n"
            file.write(("\n" + line if cut else line).encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


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
    """Each job with its result, as they end. A worker that dies costs its job; another follows."""
    waiting = collections.deque(jobs)
    count = min(args.workers, len(jobs))
    share = max(1, len(os.sched_getaffinity(0)) // max(1, count))  # cores
    working: dict[Connection, tuple] = {}  # the process and its job
    try:
        while waiting or working:
            while waiting and len(working) < count:
                process, pipe = _start_worker(args, share)
                working[pipe] = process, waiting.popleft()
                with contextlib.suppress(OSError):  # died at once: found out below
                    pipe.send(working[pipe][1])
            for pipe in wait(list(working)):
                process, job = working.pop(pipe)
                try:
                    result = pipe.recv()
                except (EOFError, OSError):
                    result = {"status": "failed", "reason": _end(process, job), "seconds": None}
                if isinstance(result, InputError):
                    raise result
                yield job, result
                if process.is_alive() and waiting:
                    working[pipe] = process, waiting.popleft()
                    with contextlib.suppress(OSError):
                        pipe.send(working[pipe][1])
                else:
                    pipe.close()  # its worker ends
                    process.join(PATIENCE)
    finally:
        for process, _ in working.values():
            process.terminate()
        for process, job in working.values():
            _end(process, job)


def _start_worker(args: argparse.Namespace, cores: int) -> tuple:
    context = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(args, theirs, cores), daemon=True)
    with deaf_to_interrupts():
        process.start()
    theirs.close()
    return process, ours


def _work(args: argparse.Namespace, pipe: Connection, cores: int) -> None:
    """A worker: one network, one job after the other until the pipe is closed."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: cleaning up is not interrupted
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    os.environ["OMP_NUM_THREADS"] = str(cores)  # of torch, which is not loaded yet, and OpenVINO
    import cv2

    from lipsync.engine import create_lipsync

    cv2.setNumThreads(cores)
    lipsync = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pipe.recv()
            try:
                lipsync = lipsync or create_lipsync(args)
            except InputError as error:  # of no job: all would meet it
                pipe.send(error)
                break
            pipe.send(_do(lipsync, job))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending


def _end(process: multiprocessing.Process, job: Job) -> str:
    """Wait for a worker that is ending, remove what it could not, and say how it ended."""
    from media.write import partial_path

    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    with contextlib.suppress(OSError):
        os.remove(partial_path(job.outfile, process.pid))
    code = process.exitcode
    if code is not None and code < 0:
        return f"its worker was killed (signal {-code})"
    return f"its worker ended (exit code {code})"
