"""Published weights of other projects' networks: where they lie, and how they are fetched."""

from __future__ import annotations

import http.client
import os
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from errors import InputError, require_file

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
CONNECT_SECONDS = 10
_download_lock = threading.Lock()


@dataclass(frozen=True)
class Weights:
    """A published file of weights. url: where it is; flag: the option that names a local copy;
    what: of which network it is; fetched: whether it is downloaded where no copy is found; local:
    its name in checkpoints/, where that is another; instead: what does without it.
    """

    what: str
    url: str
    flag: str
    fetched: bool = True
    local: str = ""
    instead: str = ""

    @property
    def name(self) -> str:
        """The file's name; of a downloaded one it ends in the beginning of its SHA-256."""
        return self.url.rsplit("/", 1)[-1]

    def find(self, path: str | os.PathLike | None = None) -> str:
        """`path` if it is given, else its place in checkpoints/, else torch hub's cache, else a
        download into that. InputError, naming file and source, where it cannot be had.
        """
        if path is not None:
            return require_file(path, f"{self.what} weights")
        if self._place.exists():
            return require_file(self._place, f"{self.what} weights")
        if not self.fetched:
            raise InputError(self._remedy())
        return str(self._cached())

    @property
    def _place(self) -> Path:
        return CHECKPOINTS / (self.local or self.name)

    def _cached(self) -> Path:
        import torch

        cached = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        with _download_lock:  # several workers start at once, and one download is enough
            if not cached.is_file():
                self._download(cached)
        return cached

    def _download(self, cached: Path) -> None:
        import torch

        digest = Path(self.name).stem.rsplit("-", 1)[-1]
        try:
            # torch hub waits without a time limit and prints first, so ask whether it can be had
            urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS).close()
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                self.url, str(cached), hash_prefix=digest, progress=sys.stderr.isatty()
            )
        except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: hash
            reason = getattr(error, "reason", None) or error
            raise InputError(f"{self._remedy()} (downloading it failed: {reason})") from error

    def _remedy(self) -> str:
        return (
            f"no {self.what} weights: put {self.name} at {self._place}, or name it with {self.flag}"
            f"{self.instead and f', or {self.instead}'}; it is at {self.url}"
        )
