"""Lists in text files: filelists, lists of videos, pairs, manifests."""

from __future__ import annotations

import os

from errors import InputError, require_file

LIST_LINE = 4096  # characters; no path is longer, and a list of paths is not some other big file


def read_lines(path: str | os.PathLike, what: str = "list", blanks: str | None = None) -> list[str]:
    """Every line of a text file, without the `blanks` (None: all white space) around it; blank
    lines are kept, as "".

    As Notepad saves them too: UTF-8 with or without a mark at its beginning, lines that end with
    CR LF. Bytes that are not UTF-8 come back as os.fsdecode gives them in file names. InputError
    where it is no text file of names.
    """
    lines = []
    with open(require_file(path, what), encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if len(line) > LIST_LINE or "\0" in line:
                raise InputError(f"{what} is not a text file of names: {path}")
            lines.append(line.strip(blanks))
    return lines


def join_listed(folder: str | os.PathLike, name: str) -> str:
    """The path `<folder>/<name>`. Where nothing has this name, quotes around it are left out and
    Windows' separators understood, if what that names is there.
    """
    path = os.path.join(folder, name)
    if ("\\" in name or name[:1] in "\"'") and not os.path.exists(path):
        bare = name[1:-1] if name[:1] in "\"'" and name[-1] == name[0] else name
        for other in (bare, bare.replace("\\", "/")):
            if os.path.exists(os.path.join(folder, other)):
                return os.path.join(folder, other)
    return path
