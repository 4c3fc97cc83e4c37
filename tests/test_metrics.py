"""evaluation/metrics.py: LPIPS, identity, the expert; absent and wrong weights; the script."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import assert_refused, run_script, smooth_frames, write_video

from errors import InputError
from evaluation.metrics import (
    METRICS,
    Batch,
    Identity,
    Outside,
    Perceptual,
    SyncDistance,
    load_metrics,
    square_face,
)
from evaluation.quality import COUNTED, QualityMeter

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

    nowhere = replace(Perceptual.weights, url="file:///nowhere/alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(Perceptual, "weights", nowhere)
    monkeypatch.setattr("models.pretrained.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def loaded(kind, path):
    metric = kind("cpu")
    metric.load(str(path))
    return metric


def values(metric, frames, boxes, size=99, sound=None):
    """The one column of a metric on frames that are both the true and the generated ones."""
    metric.start(sound, 25)
    found = []
    for first in range(0, len(frames), size):
        part = slice(first, first + size)
        batch = Batch(frames[part], frames[part], boxes[part], first)
        found += next(iter(metric(batch).values()))
    return found


def test_every_metric_says_what_it_gives(tmp_path, alexnet_file, sface_file, trained_expert):
    paths = {"lpips_weights": alexnet_file, "sface_weights": sface_file, "expert": trained_expert}
    metrics, missing = load_metrics(paths, "cpu")
    assert missing == [] and [type(metric) for metric in metrics] == list(METRICS)
    names = [name for kind in METRICS for name in kind.columns]
    assert len(set(names)) == len(names) and not set(names) & set(COUNTED)
    frames, sound = smooth_frames(6), np.zeros(8000, np.float32)
    for metric in metrics:
        metric.start(sound, 25)
        scores = metric(Batch(frames, frames, [(10, 8, 50, 56)] * 6))
        assert set(scores) == set(metric.columns) and all(scores.values())


def test_a_video_against_itself_is_perfect(tmp_path, boxes, alexnet_file, sface_file):
    video = write_video(tmp_path / "a.mkv", smooth_frames(), seconds=0.3)
    paths = {"lpips_weights": alexnet_file, "sface_weights": sface_file}
    meter = QualityMeter(boxes, load_metrics(paths, "cpu")[0])
    row = meter.score(video, video)
    assert set(row) == set(meter.columns)
    best = {1: 1.0, -1: 0.0}
    for kind in METRICS:
        for name, column in kind.columns.items():
            limit = 100 if name.startswith("psnr") else best[column.better]
            assert name == "lsd" or row[name] == pytest.approx(limit, abs=1e-6), name
    assert row["av_length_difference"] == pytest.approx(0.3 - 6 / 25, abs=1e-3)


def test_outside_the_mouth_is_all_but_the_box_s_lower_half():
    frames = np.full((2, 40, 40, 3), 100, np.uint8)
    made = frames.copy()
    made[0, 20:30, 10:30] = 0  # the mouth
    made[1, 30:] += 4  # a quarter of the frame
    box, metric = (10, 10, 30, 30), Outside("cpu")
    assert metric(Batch(frames, made, [box] * 2))["l1_outside"] == [0, pytest.approx(1600 / 1400)]
    assert metric(Batch(frames, made, [None, (0, -40, 40, 40)]))["l1_outside"] == []


def test_lpips_is_the_package_s(alexnet_file):
    """Against the package's own network with all of AlexNet's tensors copied by hand."""
    import lpips

    frames, made = smooth_frames(seed=1), smooth_frames(seed=2)
    metric = loaded(Perceptual, alexnet_file)
    state = torch.load(alexnet_file, weights_only=True)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = reference.state_dict()
    for name in own:
        if name.startswith("net."):
            number, kind = name.split(".")[-2:]
            own[name].copy_(state[f"features.{number}.{kind}"])
    pairs = [(lpips.im2tensor(x[..., ::-1]), lpips.im2tensor(y[..., ::-1]))
             for x, y in zip(frames, made, strict=True)]  # fmt: skip
    with torch.inference_mode():
        found = metric(Batch(frames, made, [None] * 6))["lpips"]
        expected = [reference(x, y).item() for x, y in pairs]
    assert found == pytest.approx(expected, rel=1e-5) and min(expected) > 1e-3


def test_identity_is_a_cosine_of_embeddings(sface_file):
    metric = loaded(Identity, sface_file)
    metric.settings = {"identity_every": 2}
    frames, others = smooth_frames(3, 112, seed=3), smooth_frames(3, 112, seed=4)

    def embedding(face):  # the network in the file, on RGB
        return face[..., ::-1].reshape(4, 28, 4, 28, 3).mean((1, 3)).transpose(2, 0, 1).ravel()

    pairs = [(embedding(a), embedding(b)) for a, b in zip(frames, others, strict=True)][::2]
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    whole = [(0, 0, 112, 112)] * 3
    assert metric(Batch(frames, others, whole))["identity"] == pytest.approx(expected, abs=1e-5)
    assert metric(Batch(frames, others, whole, 1))["identity"] != pytest.approx(expected)
    assert values(metric, frames, whole) == pytest.approx([1, 1])


def test_square_face_takes_the_box_s_height():
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[..., 0] = np.arange(300)[:, None] // 2
    frame[..., 1] = np.arange(300)[None] // 2
    face = square_face(frame, (50, 20, 130, 132))  # 80 x 112: columns 34..146
    np.testing.assert_array_equal(face, frame[20:132, 34:146])


def test_lsd_is_one_minus_the_cosine_of_every_window():
    from audio import melspectrogram
    from models import create_model

    torch.manual_seed(0)
    metric = SyncDistance("cpu")
    metric.network = expert = create_model("SyncNet_color", width=0.125).eval()
    frames = smooth_frames(12, 96, seed=4)
    sound = np.random.default_rng(5).normal(0, 0.1, 8000).astype(np.float32)
    mel, places = melspectrogram(sound).T, [(0, 0, 96, 96)] * 12
    with torch.inference_mode():
        found = values(metric, frames, places, 5, sound)
        expected = []
        for start in range(8):
            face = torch.cat([torch.from_numpy(f[48:].transpose(2, 0, 1).copy())
                              for f in frames[start : start + 5]])[None].float() / 255  # fmt: skip
            row = int(80 * start / 25)
            heard = torch.from_numpy(mel[row : row + 16].T.copy())[None, None]
            audio, lips = expert(heard, face)
            expected.append(1 - float((audio * lips).sum()))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert min(found) >= 0 and max(found) <= 1
        gap = places[:4] + [None] + places[5:]
        found = values(metric, frames, gap, 5, sound)
        np.testing.assert_allclose(found, expected[5:], atol=1e-5)
        metric.start(sound, 25)
        metric.mel = mel[:20]  # sound for windows 0 and 1
        found = metric(Batch(frames, frames, places))["lsd"]
        np.testing.assert_allclose(found, expected[:2], atol=1e-5)
        metric.start(sound, 30)  # the expert knows 25 fps only
        assert metric(Batch(frames, frames, places))["lsd"] == []


def test_absent_weights_are_named(no_weights, alexnet_file):
    metrics, missing = load_metrics({}, "cpu")
    assert [type(m) for m in metrics] == [kind for kind in METRICS if not kind.weights]
    told = {entry["metric"]: (entry["file"], entry["where"]) for entry in missing}
    assert set(told) == {"lpips", "identity", "lsd"}
    assert told["lpips"][0] == "alexnet-owt-7be5be79.pth" and "--lpips_weights" in told["lpips"][1]
    assert told["identity"][0] == "face_recognition_sface_2021dec.onnx"
    assert "opencv_zoo" in told["identity"][1] and "--expert" in told["lsd"][1]
    metrics, missing = load_metrics({"lpips_weights": alexnet_file}, "cpu")
    assert [entry["metric"] for entry in missing] == ["lsd", "identity"]
    assert any(isinstance(metric, Perceptual) for metric in metrics)


def test_wrong_weights_are_refused(tmp_path, alexnet_file, capfd):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not torchvision's AlexNet"):
        loaded(Perceptual, tmp_path / "other.pth")
    with pytest.raises(InputError, match="SFace weights .* cannot be used"):
        loaded(Identity, alexnet_file)
    with pytest.raises(InputError, match="not found"):
        load_metrics({"lpips_weights": alexnet_file, "sface_weights": tmp_path / "none"}, "cpu")
    assert capfd.readouterr().err == ""


def test_a_network_that_gives_no_numbers(tmp_path, boxes, alexnet_file):
    metric = loaded(Perceptual, alexnet_file)
    torch.nn.init.constant_(metric.network.net.slice1[0].weight, float("nan"))
    video = write_video(tmp_path / "a.mkv", smooth_frames(2))
    with pytest.raises(InputError, match="lpips is not a number"):
        QualityMeter(boxes, [metric]).score(video, video)


def test_the_script(tmp_path, synthetic_root, alexnet_file, sface_file, trained_expert):
    video = sorted((synthetic_root / "mvlrs_v1" / "main").glob("*/*.mp4"))[0]
    arguments = ["-m", "evaluation.quality", "--real", video, "--generated", video]
    arguments += ["--lpips_weights", alexnet_file, "--sface_weights", sface_file, "--device", "cpu"]
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
