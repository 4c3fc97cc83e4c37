"""An external face restorer as a stage of inference: one process, raw pictures through its pipes.

    --enhance "python my_restorer.py --size {size}" --enhance_size 512

The command is started once, without a shell. It reads faces of size x size pixels, 3 bytes each
(BGR), one after the other from its standard input, and writes as many, in order, to its standard
output. It may hold back at most HOLD of them, and it ends when its input does.
"""

from __future__ import annotations

import contextlib
import queue
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from errors import InputError

HOLD = 64  # faces that a command may take before its first answer


def enhanced(items: Iterable[tuple], command: str, size: int) -> Iterator[tuple]:
    """(what, face) items, each face uint8 (S, S, 3) replaced by the command's answer
    (size, size, 3); a face that is None stays None. InputError where the command fails.
    """
    argv = [part.replace("{size}", str(size)) for part in shlex.split(command)]
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except (OSError, IndexError, ValueError) as error:
            raise InputError(f"--enhance cannot be started: {command!r} ({error})") from error
        sent: queue.Queue = queue.Queue(2 * HOLD)  # (what, whether it has a face), a fault, or None
        feeder = threading.Thread(
            target=_feed, args=(items, process.stdin, size, sent), name="enhance", daemon=True
        )
        feeder.start()
        try:
            while (item := sent.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                what, has_face = item
                face = None
                if has_face:
                    data = process.stdout.read(size * size * 3)
                    if len(data) < size * size * 3:
                        raise _died(process, complaints, command)
                    face = np.frombuffer(data, np.uint8).reshape(size, size, 3)
                yield what, face
        finally:
            process.kill()  # a feeder that writes to it is freed by this
            process.wait()
            while feeder.is_alive():  # and one that waits for room, by this
                with contextlib.suppress(queue.Empty):
                    sent.get(timeout=0.05)
            process.stdout.close()


def _feed(items: Iterable[tuple], pipe: IO[bytes], size: int, sent: queue.Queue) -> None:
    import cv2

    try:
        for what, face in items:
            sent.put((what, face is not None))
            if face is not None:
                pipe.write(cv2.resize(face, (size, size)).tobytes())
        pipe.close()
        sent.put(None)
    except BrokenPipeError:  # the command has ended: its reader finds out, or is the cause
        sent.put(None)
    except BaseException as error:  # raised again where the items are used
        sent.put(error)
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _died(process: subprocess.Popen, complaints: IO[bytes], command: str) -> InputError:
    code = process.wait()
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    return InputError(f"--enhance ended early (exit code {code}): {said[-1] if said else command}")
