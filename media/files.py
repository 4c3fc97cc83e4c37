"""Files that appear under their name only when they are whole, and what tells files apart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import IO

from errors import InputError, require_file


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """A file open for writing that takes the place of `path` when the block ends without a fault.

    mode: "w" (UTF-8 text) or "wb". After a fault what was written is removed.
    """
    temporary = f"{os.fspath(path)}.tmp"  # one name: a killed run's leftover is overwritten
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # there is none, or it could not be made
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = os.fspath(path)  # what the user asked for
        raise


def write_json(path: str | os.PathLike, content: object, indent: int | None = None) -> None:
    """A JSON file that appears only when complete."""
    with replacing(path) as file:
        json.dump(content, file, indent=indent)


def read_object(path: str | os.PathLike, what: str) -> dict:
    """A JSON file's object; ValueError, in `what` words it is, where the file holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:  # the latter: nested too deep
        raise ValueError(f"{what} is not JSON: {path}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what} is something else: {path}")
    return content


def add_record(path: str | os.PathLike, record: dict) -> None:
    """One more line of a log of JSON objects; a line that a kill cut short is ended first."""
    with open(path, "ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((json.dumps(record) + "\n").encode())


def read_records(path: str | os.PathLike) -> list[dict]:
    """The lines of such a log, without those that a kill cut short; [] where there is none."""
    records = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def stamp(path: str | os.PathLike) -> list[int] | None:
    """Size and time of change (ns) of a file, None where it is missing."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return [found.st_size, found.st_mtime_ns]
    return None


def keep_inputs(outfile: str | os.PathLike, *inputs: str | os.PathLike | None) -> None:
    """InputError where writing `outfile` would replace one of the files that are read."""
    for path in inputs:
        with contextlib.suppress(OSError):  # one of them is not there
            if path and os.path.samefile(path, outfile):
                raise InputError(f"{outfile} would replace {path}: choose another name for it")


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content."""
    found = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def file_label(path: str | os.PathLike) -> str:
    """A file's name and the beginning of its SHA-256, to tell it in a record."""
    return f"{os.path.basename(path)} {digest(require_file(path, 'file'))[:12]}"


def log_job(log_dir: str, name: str, **values: object) -> None:
    """One line at the end of `log_dir`/`name`: the time and what a job was and took."""
    path = os.path.join(log_dir, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    said = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
