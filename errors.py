"""How bad input ends a program: one line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import ModuleType


class InputError(Exception):
    """Something the user gave cannot be used. The message is one line: what, where, what to do."""


def run_cli(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: list[str] | None = None,
) -> None:
    """Parse the arguments, run `main(args)`, exit with its code (None = 0), or 2 on InputError and
    where a file or folder cannot be used. Any script without commands of its own has --config.
    """
    if parser._subparsers is None and "--config" not in parser._option_string_actions:
        parser.add_argument(
            "--config", metavar="YAML", help="these options, as `name: value` lines"
        )
    # a plain kill ends like Ctrl-C does: `with` blocks and `finally` remove what is half done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = main(parser.parse_args(with_config(parser, argv))) or 0
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


def with_config(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> list[str]:
    """The command line `argv`, after the options that its --config file holds: its own ones win.

    Hyper-parameters, of which a training's file may hold some too, are left to load_hparams.
    InputError for a key that is neither, and for a value that the option cannot take.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    finder = argparse.ArgumentParser(prog=parser.prog, add_help=False)
    finder.add_argument("--config")
    path = finder.parse_known_args(argv)[0].config
    if path is None or "--config" not in parser._option_string_actions:
        return argv
    flags = {name.lstrip("-"): flag for name, flag in parser._option_string_actions.items()}
    others, written = getattr(parser, "hyper_parameters", ()), []
    for key, value in read_yaml(path).items():
        if key in others or (key in flags and value is None):  # null: its default
            continue
        if key not in flags or key in ("config", "help"):
            near = nearest(key, (*flags, *others))
            raise InputError(f"config {path}: unknown option {key!r}; the nearest is {near!r}")
        is_list, nargs = isinstance(value, list), flags[key].nargs
        if nargs == 0 and isinstance(value, bool):
            written += [f"--{key}"] * value
        elif nargs == 0 or (is_list and nargs in (None, "?")):
            wanted = "true or false" if nargs == 0 else "one value"
            raise InputError(f"config {path}: {key} takes {wanted}, not {value!r}")
        else:
            written += [f"--{key}", *map(str, value)] if is_list else [f"--{key}={value}"]
    return [*written, "--config", path, *argv]  # a list must not take in what follows it


def read_yaml(path: str | os.PathLike) -> dict[str, object]:
    """A file of `key: value` lines; InputError where it is none."""
    import yaml

    path = require_file(path, "config")
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not YAML: {error}") from error
    if not isinstance(values or {}, dict):
        kind = type(values).__name__
        raise InputError(f"config {path} must hold `key: value` lines, not a {kind}")
    return values or {}


def nearest(name: object, names: Iterable[str]) -> str:
    """The one of `names` that `name` was perhaps meant to be."""
    within = [known for known in names if str(name) in known]
    return difflib.get_close_matches(str(name), within or list(names), n=1, cutoff=0.0)[0]


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
