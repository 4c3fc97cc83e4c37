"""How bad input ends a program: one line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType


class InputError(Exception):
    """Something the user gave cannot be used. The message is one line: what, where, what to do."""


def run_cli(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: list[str] | None = None,
) -> None:
    """Parse the arguments, run `main(args)`, exit with its code (None = 0), or 2 on InputError and
    where a file or folder cannot be used.
    """
    args = parser.parse_args(argv)
    # a plain kill ends like Ctrl-C does: `with` blocks and `finally` remove what is half done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = main(args) or 0
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        if error.filename is None:
            raise
        reason = " ".join(f"{error.filename}: {error.strerror or error}".split())
        print(f"error: {reason}", file=sys.stderr)
        code = 2
    sys.exit(code)


def require_file(path: str | os.PathLike, what: str) -> str:
    """`path` if it is a file with something in it, else InputError naming `what` it is for."""
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f"{what} is a folder, not a file: {path}")
    if not os.path.exists(path):
        raise InputError(f"{what} not found: {path}")
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise InputError(f"{what} is empty (0 bytes): {path}")
    except OSError as error:
        raise InputError(f"{what} cannot be read: {path} ({error.strerror})") from error
    return path


class MissingPackage(InputError):
    """An optional package is not installed, or does not import."""


def require_package(package: str, what: str, remedy: str) -> ModuleType:
    """The module, or MissingPackage: one line with what needs it and the remedy."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise MissingPackage(f"{what} needs {package} ({reason}): pip install {remedy}") from error
