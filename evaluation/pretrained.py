"""Weights of the networks that judge pictures: where they lie, and how they are fetched."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from errors import InputError, require_file

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Weights:
    """A published file of weights. url: where it is; flag: the option that names a local copy;
    what: of which network it is; fetched: whether it is downloaded where no copy is found.
    """

    what: str
    url: str
    flag: str
    fetched: bool = True

    @property
    def name(self) -> str:
        """The file's name; of a downloaded one it ends in the beginning of its SHA-256."""
        return self.url.rsplit("/", 1)[-1]

    def find(self, path: str | os.PathLike | None = None) -> str:
        """`path` if it is given, else checkpoints/<name>, else torch hub's cache, else a download
        into that cache. InputError, naming file and source, where it cannot be had.
        """
        if path is not None:
            return require_file(path, f"{self.what} weights")
        if (CHECKPOINTS / self.name).exists():
            return require_file(CHECKPOINTS / self.name, f"{self.what} weights")
        if not self.fetched:
            raise InputError(self._remedy())
        return str(self._cached())

    def _cached(self) -> Path:
        import torch

        cached = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        if cached.is_file():
            return cached
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
        return cached

    def _remedy(self) -> str:
        return (
            f"no {self.what} weights: put {self.name} into {CHECKPOINTS}, or name it with "
            f"{self.flag}; it is at {self.url}"
        )
