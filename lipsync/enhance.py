"""An external face restorer as a stage of inference: one process, raw pictures through its pipes.

    --enhance "python my_restorer.py --size {size}" --enhance_size 512

The command is started once, without a shell. It reads faces of size x size pixels, 3 bytes each
(BGR), one after the other from its standard input, and writes as many, in order, to its standard
output. It may hold back at most HOLD of them, and it ends when its input does. One that answers
nothing for SILENCE seconds, with faces before it, is ended: a model must be loaded within them.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from errors import InputError
from media.streams import ahead

PATIENCE = 5  # seconds for a command that has closed its output to end
HOLD = 64  # faces that a command may take before its first answer
SILENCE = 300  # seconds, the first answer's wait for the model included


def enhanced(items: Iterable[tuple], command: str, size: int) -> Iterator[tuple]:
    """(what, face) items, each face uint8 (S, S, 3) replaced by the command's answer
    (size, size, 3); a face that is None stays None, and a mask, the fourth channel of some models'
    faces, is only scaled. InputError where the command fails.
    """
    if not hasattr(os, "killpg"):  # nor can pipes be waited for there
        raise InputError("--enhance works on Linux and macOS, not on this system")
    with tempfile.TemporaryFile() as complaints:
        try:
            argv = [part.replace("{size}", str(size)) for part in shlex.split(command)]
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                start_new_session=True,  # what a script has started is to end with it
            )  # fmt: skip
        except (OSError, IndexError, ValueError) as error:
            raise InputError(f"--enhance cannot be started: {command!r} ({error})") from error
        starved = threading.Event()  # it has taken all faces that there are so far
        fed = _fed(items, process, size, starved)
        with ahead(fed, 2 * HOLD) as sent:
            try:
                for what, has_face, mask in sent:
                    data = _read(process.stdout, size * size * 3, starved)
                    if data is None:
                        how = f"gave no face for {SILENCE} s (it may hold back {HOLD} at most)"
                        raise _fault(how, complaints, command)
                    if len(data) < size * size * 3:
                        raise _fault(_end(process), complaints, command)
                    answer = np.frombuffer(data, np.uint8).reshape(size, size, 3)
                    if mask is not None:
                        answer = np.dstack([answer, mask])
                    yield what, answer if has_face else None
            finally:
                with contextlib.suppress(ProcessLookupError):  # frees what feeds it
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process.stdout.close()


def _fed(
    items: Iterable[tuple], process: subprocess.Popen, size: int, starved: threading.Event
) -> Iterator[tuple]:
    """(what, has a face, mask) of each item, whose face then goes into the command."""
    import cv2

    pipe, shown = process.stdin, np.zeros((size, size, 3), np.uint8)
    try:
        starved.set()
        for what, face in items:
            starved.clear()
            scaled = None if face is None else cv2.resize(face, (size, size))
            mask = scaled[..., 3] if scaled is not None and scaled.shape[2] == 4 else None
            yield what, face is not None, mask
            if scaled is not None:
                shown = np.ascontiguousarray(scaled[..., :3])
            # where there is none the last one goes again: else a command that holds faces back
            # would wait for more of them, and the frames behind for it
            pipe.write(shown.tobytes())
            starved.set()
        starved.clear()
    except BrokenPipeError:  # the command has ended: its reader finds out, or is the cause
        pass
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _read(pipe: IO[bytes], count: int, starved: threading.Event) -> bytes | None:
    """`count` bytes, or fewer where the pipe ends; None where nothing comes for SILENCE seconds,
    those left out in which the command had no faces to work on.
    """
    data, silent, poll = bytearray(), 0.0, select.poll()
    poll.register(pipe, select.POLLIN)
    while len(data) < count:
        if poll.poll(100):  # milliseconds
            part = os.read(pipe.fileno(), count - len(data))
            if not part:
                break
            data += part
            silent = 0.0
        elif not starved.is_set():
            silent += 0.1
            if silent > SILENCE:
                return None
    return bytes(data)


def _end(process: subprocess.Popen) -> str:
    try:
        return f"ended early (exit code {process.wait(PATIENCE)})"
    except subprocess.TimeoutExpired:  # it lives on
        return "closed its output"


def _fault(how: str, complaints: IO[bytes], command: str) -> InputError:
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    return InputError(f"--enhance {how}: {said[-1] if said else command}")
