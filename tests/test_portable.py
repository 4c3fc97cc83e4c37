"""What Windows and macOS lack is not imported by anything but preparation."""

import subprocess
import sys

from conftest import REPOSITORY

CODE = """
import builtins, importlib, os, sys

LACKING = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}
ours, plain = os.getcwd() + os.sep, builtins.__import__

def importing(name, globals=None, *rest, **named):
    # packages have their own guards; only our files are held to it
    file = (globals or {}).get("__file__") or ""
    if name in LACKING and file.startswith(ours) and ".venv" not in file:
        raise ImportError(f"{name} in {file}")
    return plain(name, globals, *rest, **named)

builtins.__import__ = importing
for path in sorted(sys.argv[1:]):
    importlib.import_module(path)
from media.workers import _deaf_to_interrupts as deaf_to_interrupts
from models.device import core_count, memory_bytes
import signal
del signal.pthread_sigmask, os.sched_getaffinity
with deaf_to_interrupts():
    print(core_count(), memory_bytes()[0])
"""
ROOMS = ("face_detection", "lipsync", "live", "page", "training", "media", "models", "backends",
         "corpus", "benchmarks", "synthetic", "evaluation", "experts")  # fmt: skip


def test_no_linux_only_module_is_imported():
    files = [path for room in (".", *ROOMS) for path in (REPOSITORY / room).glob("*.py")]
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files}
    names -= {"preprocess", "backends.__main__", "synthetic.__main__"}
    command = [sys.executable, "-c", CODE, *names]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    cores, held = map(int, result.stdout.split())
    assert cores >= 1 and held > 2**20
