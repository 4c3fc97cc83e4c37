import numpy as np
import pytest
import torch
from conftest import assert_refused, run_script
from fill import fill, inputs

from backends import onnx as backends_onnx
from errors import InputError
from models import create_model

for package in backends_onnx.PACKAGES:
    pytest.importorskip(package)


def test_exported_onnx_meets_torch(tmp_path):
    import onnxruntime

    model, path = fill(create_model("Wav2Lip", 0.125, 192)).eval(), tmp_path / "model.onnx"
    assert 0 <= backends_onnx.export(model, path) < backends_onnx.TOLERANCE
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {x.name: x.shape for x in [*session.get_inputs(), *session.get_outputs()]}
    assert {name: shape[1:] for name, shape in shapes.items()} == {
        "audio_sequences": [1, 80, 16], "face_sequences": [6, 192, 192], "frames": [3, 192, 192],
    }  # fmt: skip
    for count in (1, 5):
        mel, face = inputs(1, count, 1, 80, 16, low=-4, high=4), inputs(2, count, 6, 192, 192)
        feed = {"audio_sequences": mel.numpy(), "face_sequences": face.numpy()}
        with torch.inference_mode():
            expected = model(mel, face).numpy()
        np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-4)


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    original = backends_onnx.to_onnx

    def altered(model, *args):
        with torch.no_grad():
            model.output_block[1].bias += 0.01
            content = original(model, *args)
            model.output_block[1].bias -= 0.01
        return content

    monkeypatch.setattr(backends_onnx, "to_onnx", altered)
    with pytest.raises(InputError, match="not written: ONNX frames are .* off PyTorch's"):
        backends_onnx.export(fill(create_model("Wav2Lip", 0.125)).eval(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_command_line(filled_generator, tmp_path):

    def export(weights, out):
        return run_script(
            "-m", "backends", "export", "--checkpoint_path", weights, "--out", out, cwd=tmp_path
        )

    assert_refused(export("none.pth", "m.onnx"), "checkpoint not found")
    assert_refused(export(filled_generator, "m.pt"), "does not end in .onnx")
    assert_refused(export(filled_generator, "none/m.onnx"), "no folder", "none")
    assert list(tmp_path.iterdir()) == []
    result = export(filled_generator, "m.onnx")
    assert result.returncode == 0, result.stderr
    assert "m.onnx: 14" in result.stdout  # 36.3 million parameters of 4 bytes
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
