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

PATIENCE = 5  # seconds for a command that has closed its output to end
HOLD = 64  # faces that a command may take before its first answer


def enhanced(items: Iterable[tuple], command: str, size: int) -> Iterator[tuple]:
    """(what, face) items, each face uint8 (S, S, 3) replaced by the command's answer
    (size, size, 3); a face that is None stays None, and a mask, the fourth channel of some models'
    faces, is only scaled. InputError where the command fails.
    """
    with tempfile.TemporaryFile() as complaints:
        try:
            argv = [part.replace("{size}", str(size)) for part in shlex.split(command)]
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except (OSError, IndexError, ValueError) as error:
            raise InputError(f"--enhance cannot be started: {command!r} ({error})") from error
        sent: queue.Queue = queue.Queue(2 * HOLD)  # (what, has a face, mask), a fault, or None
        feeder = threading.Thread(
            target=_feed, args=(items, process, size, sent), name="enhance", daemon=True
        )
        feeder.start()
        try:
            while (item := sent.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                what, has_face, mask = item
                data = process.stdout.read(size * size * 3)
                if len(data) < size * size * 3:
                    raise _died(process, complaints, command)
                answer = np.frombuffer(data, np.uint8).reshape(size, size, 3)
                if mask is not None:
                    answer = np.dstack([answer, mask])
                yield what, answer if has_face else None
        finally:
            process.kill()  # a feeder that writes to it is freed by this
            process.wait()
            while feeder.is_alive():  # and one that waits for room, by this
                with contextlib.suppress(queue.Empty):
                    sent.get(timeout=0.05)
            process.stdout.close()


def _feed(items: Iterable[tuple], process: subprocess.Popen, size: int, sent: queue.Queue) -> None:
    import cv2

    pipe, shown = process.stdin, np.zeros((size, size, 3), np.uint8)
    try:
        for what, face in items:
            if process.returncode is not None:  # nobody waits for more
                break
            scaled = None if face is None else cv2.resize(face, (size, size))
            mask = scaled[..., 3] if scaled is not None and scaled.shape[2] == 4 else None
            sent.put((what, face is not None, mask))
            if scaled is not None:
                shown = np.ascontiguousarray(scaled[..., :3])
            # where there is none the last one goes again: else a command that holds faces back
            # would wait for more of them, and the frames behind for it
            pipe.write(shown.tobytes())
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
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:  # it closed its output and lives on
        code = None
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    how = "closed its output" if code is None else f"ended early (exit code {code})"
    return InputError(f"--enhance {how}: {said[-1] if said else command}")
