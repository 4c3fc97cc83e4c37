"""Converted networks, kept from one run to the next in the user's cache folder.

A folder each, `<key>-<name>`: OpenVINO's two files and their checksums; it appears only when it
is complete. The key is of the weights, the code that makes networks and the engine's version.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from media.files import digest, write_json
from models.openvino_core import openvino_core, require_openvino

if TYPE_CHECKING:
    import openvino

USERS = "user"  # stands for the folder that `user_folder` names
FILES, SUMS = ("network.xml", "network.bin"), "sums.json"
MAX_BYTES = 2**31  # of all networks; those longest unused go first
HOUSE = Path(__file__).resolve().parent.parent

logger = logging.getLogger(__name__)


def user_folder() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "wav2lip")


class NetworkCache:
    """The converted networks of one weights file, and notes on them.

    folder: "user" or a path. A file that is damaged or of another key is as good as none, and a
    folder that cannot be written to costs a line in the log.
    """

    def __init__(self, folder: str | os.PathLike, weights: str | os.PathLike) -> None:
        self._openvino = require_openvino("the cache of networks")
        self._folder = user_folder() if folder == USERS else os.fspath(folder)
        code = hashlib.sha256()
        for path in [*sorted((HOUSE / "models").glob("*.py")), HOUSE / "backends" / "torch.py"]:
            code.update(path.read_bytes())
        parts = (digest(weights), code.hexdigest(), self._openvino.__version__)
        self.key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{self.key}-{name}")

    def has(self, name: str) -> bool:
        return os.path.isdir(self._path(name))

    def read(self, name: str) -> openvino.Model | None:
        folder = self._path(name)
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            with open(os.path.join(folder, SUMS), encoding="utf-8") as file:
                if json.load(file) != self._sums(folder, name):
                    return None
            os.utime(folder)  # it is in use
            return openvino_core().read_model(os.path.join(folder, FILES[0]))
        return None

    def _sums(self, folder: str, name: str) -> list[str]:
        """`name` and the files' checksums: a folder under another's name is found out."""
        return [self.key, name, *(digest(os.path.join(folder, file)) for file in FILES)]

    def write(self, name: str, model: openvino.Model) -> openvino.Model:
        """`model` as it reads from now on, so that the first run's frames are the next ones'."""

        def work() -> None:
            self._make_room()
            with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as made:
                path = os.path.join(made, FILES[0])
                self._openvino.save_model(model, path, compress_to_fp16=False)
                write_json(os.path.join(made, SUMS), self._sums(made, name))
                shutil.rmtree(self._path(name), ignore_errors=True)
                os.rename(made, self._path(name))

        self._written(work)
        return self.read(name) or model

    def notes(self) -> dict:
        """What `note` wrote; {} where that is nothing, or cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            with open(self._path("notes.json"), encoding="utf-8") as file:
                notes = json.load(file)
            return notes if isinstance(notes, dict) else {}
        return {}

    def note(self, **facts: object) -> None:
        self._written(lambda: write_json(self._path("notes.json"), self.notes() | facts))

    def _written(self, work: Callable[[], None]) -> None:
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            work()
        except (OSError, RuntimeError) as error:  # OpenVINO's own is a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            logger.warning("networks are not kept: %s (%s)", self._folder, reason)

    def _make_room(self) -> None:
        found = [path for path in Path(self._folder).iterdir() if path.is_dir()]
        total = 0
        for path in sorted(found, key=lambda path: -path.stat().st_mtime):
            total += sum(file.stat().st_size for file in path.iterdir())
            if total > MAX_BYTES:
                shutil.rmtree(path, ignore_errors=True)
