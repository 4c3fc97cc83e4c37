"""The networks of evaluation/quality.py: LPIPS, identity, the expert; absent and wrong weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import assert_refused, run_script, smooth_frames, write_video

from errors import InputError
from evaluation import quality_networks
from evaluation.identity import FaceRecognizer, square_face
from evaluation.quality import QualityMeter, available_metrics
from evaluation.quality_metrics import Batch, SyncDistance
from evaluation.quality_networks import load_lpips

# An ONNX network in SFace's place: the means of 4 x 4 squares of each channel, (1, 3, 112, 112) to
# (1, 48): AveragePool(28, 28) and Flatten
POOL_ONNX = bytes.fromhex(
    "08083a9b010a3f0a0464617461120170220b41766572616765506f6f6c2a150a0c6b65726e656c5f"
    "7368617065401c401ca001072a100a0773747269646573401c401ca001070a1e0a01701203666331"
    "2207466c617474656e2a0b0a04617869731801a001021201675a1e0a046461746112160a14080112"
    "100a0208010a0208030a0208700a02087062150a03666331120e0a0c080112080a0208010a020830"
    "42040a00100d"
)


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    from fill import filled
    from torchvision.models import alexnet

    with torch.device("meta"):
        state = alexnet().state_dict()
    state = {n: filled(n, tuple(v.shape), v.dtype) for n, v in state.items() if "features" in n}
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def sface_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sface") / "sface.onnx"
    path.write_bytes(POOL_ONNX)
    return path


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """No weights anywhere, and no network."""
    from dataclasses import replace

    nowhere = replace(quality_networks.ALEXNET, url="file:///nowhere/alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(quality_networks, "ALEXNET", nowhere)
    monkeypatch.setattr("models.pretrained.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_a_video_against_itself_is_perfect(tmp_path, boxes, alexnet_file, sface_file):
    video = write_video(tmp_path / "a.mkv", smooth_frames(), seconds=0.3)
    networks, missing = available_metrics(alexnet_file, sface_file, device="cpu")
    assert [entry["metric"] for entry in missing] == ["lsd"]
    meter = QualityMeter(boxes, networks, identity_every=2, device="cpu")
    row = meter.score(video, video)
    assert set(row) == set(meter.columns)
    assert row["psnr"] == row["psnr_mouth"] == 100
    for name in ("ssim", "ssim_mouth", "identity"):
        assert row[name] == pytest.approx(1, abs=1e-6)
    for name in ("lpips", "temporal", "l1_mouth"):
        assert row[name] == pytest.approx(0, abs=1e-7)
    assert row["av_length_difference"] == pytest.approx(0.3 - 6 / 25, abs=1e-3)


def test_lpips_is_the_package_s(tmp_path, boxes, alexnet_file):
    """Against the package's own network with all of AlexNet's tensors copied by hand."""
    import lpips

    frames, made = smooth_frames(seed=1), smooth_frames(seed=2)
    model = load_lpips(alexnet_file, "cpu")
    row = QualityMeter(boxes, {"lpips": model}, device="cpu").score(
        write_video(tmp_path / "t.mkv", frames), write_video(tmp_path / "g.mkv", made)
    )
    state = torch.load(alexnet_file, weights_only=True)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = reference.state_dict()
    for name in own:
        if name.startswith("net."):
            number, kind = name.split(".")[-2:]
            own[name].copy_(state[f"features.{number}.{kind}"])
    a, b = (lpips.im2tensor(x[..., ::-1]) for x in (frames[0], made[0]))
    assert model(a, b).item() == pytest.approx(reference(a, b).item(), rel=1e-6)
    pairs = [(lpips.im2tensor(x[..., ::-1]), lpips.im2tensor(y[..., ::-1]))
             for x, y in zip(frames, made, strict=True)]  # fmt: skip
    expected = np.mean([reference(x, y).item() for x, y in pairs])
    assert row["lpips"] == pytest.approx(expected, rel=1e-5) and expected > 1e-3


def test_identity_is_a_cosine_of_embeddings(sface_file):
    recognizer = FaceRecognizer(sface_file)
    one, other = smooth_frames(2, 112, seed=3)

    def embedding(face):  # the network in the file, on RGB
        return face[..., ::-1].reshape(4, 28, 4, 28, 3).mean((1, 3)).transpose(2, 0, 1).ravel()

    a, b = embedding(one), embedding(other)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    whole = (0, 0, 112, 112)
    assert recognizer.similarity(one, other, whole) == pytest.approx(expected, abs=1e-5)
    assert recognizer.similarity(one, one, whole) == pytest.approx(1)


def test_square_face_takes_the_box_s_height():
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[..., 0] = np.arange(300)[:, None] // 2
    frame[..., 1] = np.arange(300)[None] // 2
    face = square_face(frame, (50, 20, 130, 132))  # 80 x 112: columns 34..146
    np.testing.assert_array_equal(face, frame[20:132, 34:146])


def test_lsd_is_one_minus_the_cosine_of_every_window():
    from models import create_model

    torch.manual_seed(0)
    expert = create_model("SyncNet_color", width=0.125).eval()
    frames = smooth_frames(12, 96, seed=4)
    mel = np.random.default_rng(5).uniform(-4, 4, (40, 80)).astype(np.float32)
    whole = (0, 0, 96, 96)
    metric, values = SyncDistance(expert, mel), []
    places = [whole] * 12
    for first in (0, 5, 10):
        part = slice(first, first + 5)
        batch = Batch(frames[part], frames[part], places[part], first)
        values += metric(batch)["lsd"]
    expected = []
    for start in range(8):
        face = torch.cat([torch.from_numpy(f[48:].transpose(2, 0, 1).copy())
                          for f in frames[start : start + 5]])[None].float() / 255  # fmt: skip
        row = int(80 * start / 25)
        sound = torch.from_numpy(mel[row : row + 16].T.copy())[None, None]
        with torch.no_grad():
            audio, lips = expert(sound, face)
        expected.append(1 - float((audio * lips).sum()))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert min(values) >= 0 and max(values) <= 1
    gap = Batch(frames, frames, [whole] * 4 + [None] + [whole] * 7, 0)
    np.testing.assert_allclose(SyncDistance(expert, mel)(gap)["lsd"], expected[5:], atol=1e-5)
    short = Batch(frames, frames, places, 0)  # 20 rows of sound: windows 0 and 1
    np.testing.assert_allclose(
        SyncDistance(expert, mel[:20])(short)["lsd"], expected[:2], atol=1e-5
    )


def test_lsd_of_a_video(tmp_path, boxes, trained_expert):
    video = write_video(tmp_path / "a.mkv", smooth_frames(10), seconds=0.5)
    other_rate = write_video(tmp_path / "b.mkv", smooth_frames(10), fps=30, seconds=0.5)
    networks, _ = available_metrics(expert=trained_expert, device="cpu")
    meter = QualityMeter(boxes, {"lsd": networks["lsd"]}, device="cpu")
    assert 0 <= meter.score(video, video)["lsd"] <= 1
    assert meter.score(other_rate, other_rate)["lsd"] is None  # the expert knows 25 fps only


def test_absent_weights_are_named(no_weights, alexnet_file):
    networks, missing = available_metrics(device="cpu")
    assert networks == {} and [entry["metric"] for entry in missing] == ["lpips", "identity", "lsd"]
    assert (
        missing[0]["file"] == "alexnet-owt-7be5be79.pth"
        and "--lpips_weights" in missing[0]["where"]
    )
    assert missing[1]["file"] == "face_recognition_sface_2021dec.onnx"
    assert "opencv_zoo" in missing[1]["where"]
    assert set(available_metrics(alexnet_file, device="cpu")[0]) == {"lpips"}


def test_wrong_weights_are_refused(tmp_path, alexnet_file, capfd):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not torchvision's AlexNet"):
        load_lpips(tmp_path / "other.pth", "cpu")
    with pytest.raises(InputError, match="SFace weights .* cannot be used"):
        FaceRecognizer(alexnet_file)
    with pytest.raises(InputError, match="not found"):
        available_metrics(sface_weights=tmp_path / "none.onnx", lpips_weights=alexnet_file)
    assert capfd.readouterr().err == ""


def test_a_network_that_gives_no_numbers(tmp_path, boxes, alexnet_file):
    model = load_lpips(alexnet_file, "cpu")
    torch.nn.init.constant_(model.net.slice1[0].weight, float("nan"))
    video = write_video(tmp_path / "a.mkv", smooth_frames(2))
    with pytest.raises(InputError, match="lpips is not a number"):
        QualityMeter(boxes, {"lpips": model}, device="cpu").score(video, video)


def test_the_script(tmp_path, synthetic_root, alexnet_file, sface_file, trained_expert):
    video = sorted((synthetic_root / "mvlrs_v1" / "main").glob("*/*.mp4"))[0]
    arguments = [
        "-m",
        "evaluation.quality",
        "--real",
        video,
        "--generated",
        video,
        "--device",
        "cpu",
    ]
    arguments += ["--lpips_weights", alexnet_file, "--sface_weights", sface_file]
    result = run_script(*arguments, "--expert", trained_expert, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "quality.json").read_text())
    scores = {name: score["mean"] for name, score in summary["scores"].items()}
    assert scores["psnr_mouth"] == 100 and scores["faces"] == scores["frames"] == 50
    assert scores["lpips"] == pytest.approx(0, abs=1e-6) and 0 <= scores["lsd"] <= 1
    assert abs(scores["av_length_difference"]) < 0.1
    assert summary["settings"]["networks"]["lsd"].startswith(trained_expert.name)
    assert "psnr_mouth             100.0000" in result.stdout and result.stderr == ""
    wrong = run_script(*arguments, "--expert", alexnet_file, "--out", tmp_path / "other")
    assert_refused(wrong, "alexnet.pth")
    assert not (tmp_path / "other").exists()
