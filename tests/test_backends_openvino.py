import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from test_backends import assert_close, eager, generator, samples

from backends import quantize
from backends.api import create_backend, open_backend
from backends.cache import NetworkCache
from backends.quantize import mean_ssim, quantized
from errors import InputError
from media.difference import picture_tensor, ssim

for package in ("openvino", "nncf"):
    pytest.importorskip(package)


def batches(faces, mels, size=12):
    return ((faces[i : i + size], mels[i : i + size]) for i in range(0, len(faces), size))


def test_int8_that_stays_close():
    model, (faces, mels) = generator(), samples(32)
    backend = quantized(create_backend(model, "cpu"), batches(faces, mels))
    assert ", int8, " in backend.describe()
    faces, mels = samples(9, seed=5)
    expected = eager(model, faces, mels)
    frames = backend.generate(faces, mels)
    assert (frames != expected).any()  # it is int8
    assert mean_ssim(expected, frames) > quantize.MIN_SSIM
    still = backend.generate_still(backend.prepare(faces[0]), mels[:1])
    assert_close(still, frames[:1])


def test_int8_that_strays_is_not_used(monkeypatch, caplog):
    backend, (faces, mels) = create_backend(generator(), "cpu", "openvino"), samples(32)
    faces[::2], mels[::2] = 0, 0  # ranges that the checked frames leave far behind
    assert quantized(backend, batches(faces, mels)) is backend
    (record,) = caplog.records
    assert "int8 is not used" in record.message and "on 16 of your frames" in record.message
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match="int8 needs nncf.*pip install nncf"):
        quantized(create_backend(generator(), "cpu"), batches(faces, mels))


def test_networks_are_kept(weights, tmp_path, monkeypatch):
    def opened():
        return open_backend(weights, "cpu", "auto", tmp_path / "kept")

    (faces, mels), own = samples(3), samples(8, seed=3)
    first = opened()
    expected, small = first.generate(faces, mels), quantized(first, batches(*own))
    still = first.generate_still(first.prepare(faces[0]), mels)
    assert ", int8, " in small.describe()
    eight = small.generate(faces, mels)
    kept = sorted(path.name.split("-", 1)[1] for path in (tmp_path / "kept").iterdir())
    assert kept == ["decode", "encode", "notes.json", "whole", "whole-int8"]

    with monkeypatch.context() as patch:
        patch.setattr("backends.api._load", None)  # no weights are read,
        patch.setattr("backends.quantize._calibrated", None)  # nothing is calibrated,
        again = opened()
        patch.setattr(again, "generate", None)  # and what was checked is not checked again
        assert (quantized(again, batches(*own)).generate(faces, mels) == eight).all()
        again = opened()
        assert (again.generate(faces, mels) == expected).all()
        assert (again.generate_still(again.prepare(faces[0]), mels) == still).all()

    key = NetworkCache(tmp_path / "kept", weights).key
    path = tmp_path / "kept" / f"{key}-whole" / "network.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"!")  # damaged
    (tmp_path / "kept" / f"{key}-encode" / "network.xml").unlink()
    os.rename(tmp_path / "kept" / f"{key}-decode", tmp_path / "kept" / f"{key}-whole-int8x")
    (tmp_path / "kept" / f"{key}-notes.json").write_text("{")
    again = opened()
    assert (again.generate(faces, mels) == expected).all()
    assert (again.generate_still(again.prepare(faces[0]), mels) == still).all()
    assert NetworkCache(tmp_path / "kept", weights).read("whole")  # made again
    assert not NetworkCache(tmp_path / "kept", weights).read("whole-int8x")  # another's


def test_a_cache_that_cannot_be_written_costs_a_line(weights, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    backend = open_backend(weights, "cpu", "auto", tmp_path / "file" / "kept")
    backend.generate(*samples(1))
    assert "networks are not kept" in caplog.text


def test_the_cache_does_not_grow_for_ever(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("backends.cache.MAX_BYTES", 1)
    backend = open_backend(weights, "cpu", "auto", tmp_path)
    backend.generate_still(backend.prepare(samples(1)[0][0]), samples(1)[1])
    assert [path.name[-7:] for path in tmp_path.iterdir() if path.is_dir()] == ["-decode"]


def test_ssim_is_that_of_the_metrics():
    truth, made = (samples(2, seed=seed)[0] // 2 + 60 for seed in (1, 2))
    made[1] = truth[1] // 2 + made[1] // 2
    expected = np.mean(ssim(*(picture_tensor(x, "cpu") for x in (truth, made))))
    assert abs(mean_ssim(truth, made) - expected) < 1e-3


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
