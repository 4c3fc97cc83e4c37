"""evaluation/quality.py: closed forms, perfect copies, pairs that do not fit, absent weights."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from conftest import assert_refused, run_script

from errors import InputError
from evaluation import quality_networks
from evaluation.identity import FaceRecognizer, square_face
from evaluation.quality import QualityMeter, available_metrics, find_pairs, score_pairs
from evaluation.quality_metrics import Batch, SyncDistance, Temporal
from evaluation.quality_networks import load_lpips
from evaluation.score_table import ScoreTable
from face_detection.boxes import KnownBoxes
from video_writer import VideoWriter

BOX = [10, 8, 50, 56]
# An ONNX network in SFace's place: the means of 4 x 4 squares of each channel, (1, 3, 112, 112) to
# (1, 48): AveragePool(28, 28) and Flatten
POOL_ONNX = bytes.fromhex(
    "08083a9b010a3f0a0464617461120170220b41766572616765506f6f6c2a150a0c6b65726e656c5f"
    "7368617065401c401ca001072a100a0773747269646573401c401ca001070a1e0a01701203666331"
    "2207466c617474656e2a0b0a04617869731801a001021201675a1e0a046461746112160a14080112"
    "100a0208010a0208030a0208700a02087062150a03666331120e0a0c080112080a0208010a020830"
    "42040a00100d"
)


def frames_of(count: int = 6, side: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth random pictures of grey levels 40..180, so that offsets do not clip."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(40, 180, (count, 8, 8, 3)).astype(np.float32)
    return np.stack([cv2.resize(picture, (side, side)) for picture in small]).astype(np.uint8)


def write_video(path, frames, fps=25, seconds=None):
    """Lossless, with `seconds` of sound where given."""
    sound = None
    if seconds is not None:
        sound = (0.3 * np.sin(np.arange(round(16000 * seconds)) * 0.2)).astype(np.float32)
    with VideoWriter(path, fps, sound, 16000 if sound is not None else None,
                     audio_tail="keep") as writer:  # fmt: skip
        for frame in frames:
            writer.write(frame)
    return str(path)


@pytest.fixture
def boxes(tmp_path) -> KnownBoxes:
    (tmp_path / "boxes.json").write_text(json.dumps([BOX]))  # one for all frames
    return KnownBoxes(tmp_path / "boxes.json")


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
    monkeypatch.setattr("pretrained.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_a_constant_offset(tmp_path, boxes):
    frames = frames_of()
    truth = write_video(tmp_path / "t.mkv", frames)
    made = write_video(tmp_path / "g.mkv", frames + 5)
    row = QualityMeter(boxes, device="cpu").score(truth, made)
    expected = 20 * np.log10(255 / 5)
    assert row["psnr"] == pytest.approx(expected, abs=1e-3)
    assert row["psnr_mouth"] == pytest.approx(expected, abs=1e-3)
    assert row["l1_mouth"] == pytest.approx(5)
    assert row["temporal"] == 0
    assert 0.9 < row["ssim"] < 1
    assert row["frames"] == row["faces"] == 6
    assert row["av_length_difference"] is None  # no sound


def test_only_the_mouth_counts_for_the_mouth(tmp_path, boxes):
    frames = frames_of()
    made = frames.copy()
    made[:, :32] += 20  # the box's lower half begins at row 32
    row = QualityMeter(boxes, device="cpu").score(
        write_video(tmp_path / "t.mkv", frames), write_video(tmp_path / "g.mkv", made)
    )
    assert row["psnr_mouth"] == 100 and row["l1_mouth"] == 0
    assert row["ssim_mouth"] == pytest.approx(1, abs=1e-6)
    assert row["psnr"] == pytest.approx(20 * np.log10(255 / 20) + 10 * np.log10(2), abs=1e-3)


def test_an_alternating_offset_is_flicker():
    frames = np.full((7, 40, 40, 3), 100, np.uint8)
    made = frames.copy()
    made[::2] += 3
    made[1::2] -= 3
    temporal = Temporal()
    values = []
    for first in range(0, 7, 2):  # across batches
        part = slice(first, first + 2)
        batch = Batch(frames[part], made[part], [(5, 5, 35, 35)] * len(frames[part]), first)
        values += temporal(batch)["temporal"]
    assert values == [6.0] * 6
    boxless = Batch(frames, made, [None] * 3 + [(0, 0, 9, 9)] + [None] * 3, 0)
    assert Temporal()(boxless)["temporal"] == [6.0]


def test_a_video_against_itself_is_perfect(tmp_path, boxes, alexnet_file, sface_file):
    video = write_video(tmp_path / "a.mkv", frames_of(), seconds=0.3)
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

    frames, made = frames_of(seed=1), frames_of(seed=2)
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
    one, other = frames_of(2, 112, seed=3)

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
    frames = frames_of(12, 96, seed=4)
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
    video = write_video(tmp_path / "a.mkv", frames_of(10), seconds=0.5)
    other_rate = write_video(tmp_path / "b.mkv", frames_of(10), fps=30, seconds=0.5)
    networks, _ = available_metrics(expert=trained_expert, device="cpu")
    meter = QualityMeter(boxes, {"lsd": networks["lsd"]}, device="cpu")
    assert 0 <= meter.score(video, video)["lsd"] <= 1
    assert meter.score(other_rate, other_rate)["lsd"] is None  # the expert knows 25 fps only


def test_pairs_that_do_not_fit_are_skipped(tmp_path, boxes):
    frames = frames_of(6)
    truth = write_video(tmp_path / "t.mkv", frames)
    made = {
        "equal": write_video(tmp_path / "equal.mkv", frames + 5),
        "shorter": write_video(tmp_path / "shorter.mkv", frames[:4] + 5),
        "longer": write_video(tmp_path / "longer.mkv", np.concatenate([frames, frames])),
        "small": write_video(tmp_path / "small.mkv", frames_of(6, 48)),
        "slow": write_video(tmp_path / "slow.mkv", frames, fps=20),
        "gone": str(tmp_path / "gone.mkv"),
    }
    pairs = [(key, truth, path) for key, path in made.items()]
    meter = QualityMeter(boxes, device="cpu")
    table = ScoreTable(tmp_path / "out", "quality", meter.columns, meter.settings)
    summary = score_pairs(pairs, meter, table)
    assert summary["videos"] == 1
    reasons = {skipped["video"]: skipped["reason"] for skipped in summary["skipped"]}
    assert "has 4 frames, the true one more" in reasons["shorter"]
    assert "goes on after the true one's 6 frames" in reasons["longer"]
    assert "64x64" in reasons["small"] and "48x48" in reasons["small"]
    assert reasons["slow"] == "the true video has 25 fps, the generated one 20"
    assert "not found" in reasons["gone"]
    lenient = QualityMeter(boxes, shorter=2, device="cpu")
    row = lenient.score(truth, made["shorter"])
    assert row["frames"] == 4 and row["l1_mouth"] == pytest.approx(5)
    assert lenient.settings != meter.settings
    with pytest.raises(InputError, match="has 4 frames"):
        QualityMeter(boxes, shorter=1, device="cpu").score(truth, made["shorter"])


def test_scored_pairs_are_not_scored_again(tmp_path, boxes, monkeypatch):
    truth = write_video(tmp_path / "t.mkv", frames_of())
    made = write_video(tmp_path / "g.mkv", frames_of() + 5)
    meter = QualityMeter(boxes, device="cpu")

    def table():
        return ScoreTable(tmp_path / "out", "quality", meter.columns, meter.settings)

    first = score_pairs([("a", truth, made)], meter, table())
    monkeypatch.setattr(meter, "score", None)
    assert score_pairs([("a", truth, made)], meter, table()) == first


def test_known_boxes_by_key(tmp_path):
    """Where the detector finds nothing, the mouth has no number; known boxes serve instead."""
    (tmp_path / "none.json").write_text("[null]")
    (tmp_path / "a.json").write_text(json.dumps({"boxes": [BOX] * 6}))
    truth = write_video(tmp_path / "t.mkv", frames_of())
    meter = QualityMeter(KnownBoxes(tmp_path / "none.json"), device="cpu")
    table = ScoreTable(tmp_path / "out", "quality", meter.columns, meter.settings)
    pairs = [("a", truth, truth), ("b", truth, truth)]
    score_pairs(pairs, meter, table, boxes={"a": str(tmp_path / "a.json")})
    (known,), (blind,) = table.rows("a"), table.rows("b")
    assert known["faces"] == 6 and known["psnr_mouth"] == 100
    assert blind["faces"] == 0 and blind["psnr_mouth"] is None and blind["psnr"] == 100


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
    video = write_video(tmp_path / "a.mkv", frames_of(2))
    with pytest.raises(InputError, match="lpips is not a number"):
        QualityMeter(boxes, {"lpips": model}, device="cpu").score(video, video)


def test_pairs_of_folders(tmp_path):
    for name in ("real/x/1.mp4", "real/x/2.mp4", "real/3.mkv", "made/x/1.mkv", "made/y/3.mkv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    real, made = str(tmp_path / "real"), str(tmp_path / "made")
    first, second = find_pairs(real, made)
    assert first == ("x/1", f"{real}/x/1.mp4", f"{made}/x/1.mkv")
    assert second == ("y/3", f"{real}/y/3", f"{made}/y/3.mkv")  # real/3.mkv is another clip
    assert find_pairs(first[1], first[2]) == [("1", first[1], first[2])]
    with pytest.raises(InputError, match="--real is not"):
        find_pairs(first[1], made)


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
