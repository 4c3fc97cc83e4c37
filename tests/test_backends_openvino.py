import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from test_backends import assert_close, eager, generator, samples

from backends import openvino as backends_openvino
from backends.api import create_backend
from errors import InputError

for package in ("openvino", "nncf"):
    pytest.importorskip(package)


def batches(faces, mels, size=12):
    return ((faces[i : i + size], mels[i : i + size]) for i in range(0, len(faces), size))


def test_int8_that_stays_close():
    model, (faces, mels) = generator(), samples(backends_openvino.MIN_CALIBRATION)
    backend = create_backend(model, "cpu", calibration=batches(faces, mels))
    assert ", int8, " in backend.describe()
    faces, mels = samples(9, seed=5)
    expected = eager(model, faces, mels)
    frames = backend.generate(faces, mels)
    assert (frames != expected).any()  # it is int8
    assert backends_openvino.mean_ssim(expected, frames) > backends_openvino.MIN_SSIM
    still = backend.generate_still(backend.prepare(faces[0]), mels[:1])
    assert_close(still, frames[:1])


def test_int8_that_strays_is_refused(monkeypatch):
    faces, mels = samples(backends_openvino.MIN_CALIBRATION)
    held_out = np.arange(len(faces)) % backends_openvino.HELD_OUT == backends_openvino.HELD_OUT - 1
    faces[~held_out], mels[~held_out] = 0, 0  # ranges that the held-out frames leave far behind
    with pytest.raises(InputError, match=r"SSIM 0\.\d+ .* on 8 of your frames, below 0.98"):
        create_backend(generator(), "cpu", "openvino", batches(faces, mels))
    with pytest.raises(InputError, match="needs 32 frames to calibrate on, got 31"):
        create_backend(generator(), "cpu", "openvino", batches(faces[1:], mels[1:]))
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match="int8 needs nncf.*pip install nncf"):
        create_backend(generator(), "cpu", "openvino", batches(faces, mels))


SIGNALLED = """
import os, signal
import numpy as np
from backends.api import create_backend
from models import create_model

def engine():
    made = create_backend(create_model("Wav2Lip", 0.125).eval(), "cpu", "openvino")
    made.generate(np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 80, 16), np.float32))
    return made

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first, second = engine(), engine()
del first
del second
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_when_engines_are_gone():
    """Plugins that went in the order they came took the signal stack along."""
    command = [sys.executable, "-c", SIGNALLED]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr
