"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import IO


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
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | os.PathLike, content: object, indent: int | None = None) -> None:
    """A JSON file that appears only when complete."""
    with replacing(path) as file:
        json.dump(content, file, indent=indent)
