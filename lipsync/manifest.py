"""The CSV of many jobs: `inference.py --manifest jobs.csv`; see lipsync/jobs.py."""

from __future__ import annotations

import argparse
import csv
import json
import os
from dataclasses import dataclass

from errors import InputError
from face_detection.arguments import weights_files
from lipsync.options import REFERENCES, add_arguments, boolean, options_from
from media.files import stamp
from media.lists import join_listed, read_lines

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
    flags = _FlagParser(add_help=False, prog="")
    add_arguments(flags)
    jobs = []
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


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise InputError(message)


def _check_header(path: str, names: list[str], flags: argparse.ArgumentParser) -> None:
    known = [*PATHS, *vars(flags.parse_args([]))]
    for number, name in enumerate(names):
        if name not in known:
            raise InputError(f"{path}, line 1: unknown column {name!r}; known: {', '.join(known)}")
        if name in names[:number]:
            raise InputError(f"{path}, line 1: column {name!r} is there twice")
    for name in PATHS:
        if name not in names:
            raise InputError(f"{path}, line 1: no column {name!r}")


def _job(
    args: argparse.Namespace, options: dict, flags: argparse.ArgumentParser, row: dict, line: int
) -> Job:
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
                own[name] = _value(flags, name, text)
            except (argparse.ArgumentTypeError, InputError) as error:
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


def _value(flags: argparse.ArgumentParser, name: str, text: str) -> object:
    """What the flag --`name` makes of a cell."""
    default = flags.get_default(name)
    if isinstance(default, bool):
        return boolean(text)
    argv = [f"--{name}", *text.split()] if isinstance(default, list) else [f"--{name}={text}"]
    return options_from(flags.parse_args(argv))[name]


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
