"""The weights that the repository carries, used where a command names none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
GENERATOR = REPOSITORY / "checkpoints" / "open.pth"  # for any face
EXPERT = REPOSITORY / "checkpoints" / "open_expert.pth"
SAMPLE_FACE, SAMPLE_VOICE = (REPOSITORY / "samples" / name for name in ("face.mp4", "voice.mp4"))
SPEAKER = REPOSITORY / "checkpoints" / "grid_s1.pth"  # a generator of one speaker


def generator_path(given: str | os.PathLike | None, flag: str = "--checkpoint_path") -> str:
    """`given`, or where it is None the shipped generator, of which a line on standard error tells.
    InputError where that is not there.
    """
    if given is not None:
        return os.fspath(given)
    if not GENERATOR.is_file():
        raise InputError(f"no generator: {_label(GENERATOR)} is not there; give {flag}")
    return _told(GENERATOR, flag)


def expert_path(given: str | os.PathLike | None, flag: str = "--expert") -> str | None:
    """The same for the expert, for what can do without: None where it is not there."""
    if given is not None:
        return os.fspath(given)
    return _told(EXPERT, flag) if EXPERT.is_file() else None


def _told(path: Path, flag: str) -> str:
    print(f"no {flag}: {_label(path)}, which ships with the code, is used", file=sys.stderr)
    return str(path)


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
