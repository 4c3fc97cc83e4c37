"""evaluation/fid.py: golden distances, closed forms, pytorch-fid's features, resuming, refusals."""

from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN, Poison, assert_refused, run_script, write_video
from input_cases import video

from errors import InputError
from evaluation import fid as module
from evaluation.fid import (
    InceptionFeatures,
    added,
    fid,
    frechet_distance,
    list_videos,
    load_inception,
    sums_of,
)
from models.pretrained import Weights


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of feature rows (N, D), in batches."""
    sides = []
    for rows in (a.astype(np.float64), b.astype(np.float64)):
        parts = [sums_of(rows[first : first + 17]) for first in range(0, len(rows), 17)]
        sides.append(functools.reduce(added, parts))
    return frechet_distance(*sides)


def noise(seed: int, count: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def random_inception(path: str) -> None:
    """pytorch-fid's network as a file, with random weights: its own constructor downloads them."""
    from pytorch_fid import inception as package
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        network.Mixed_5b = package.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = package.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = package.FIDInceptionA(288, pool_features=64)
        for place, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{place}", package.FIDInceptionC(768, channels_7x7=channels))
        network.Mixed_7b = package.FIDInceptionE_1(1280)
        network.Mixed_7c = package.FIDInceptionE_2(2048)
    torch.save(network.state_dict(), path)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights that are no one's, in the released file's format. The golden rule's, since with
    torch's own start the signal fades on the way.
    """
    from fill import filled

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    random_inception(str(path))
    state = torch.load(path, weights_only=True)
    torch.save({name: filled(name, tuple(x.shape), x.dtype) for name, x in state.items()}, path)
    return path


def timeless(result: dict) -> dict:
    """fid's answer without the seconds that it took."""
    sides = ("real", "generated")
    return result | {
        side: {k: v for k, v in result[side].items() if k != "seconds"} for side in sides
    }


SIZE = 40  # of the stub's features: a distance in 2048 dimensions takes seconds


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "FEATURES", SIZE)


class Stub:
    """Stands in for Inception: random projections of frames scaled to 8 x 8."""

    label = "stub"

    def __init__(self) -> None:
        self.frames = 0
        self.map = np.random.default_rng(0).standard_normal((8 * 8 * 3, SIZE))

    def __call__(self, frames) -> np.ndarray:
        self.frames += len(frames)
        small = np.stack([cv2.resize(frame, (8, 8)) for frame in frames])
        return small.reshape(len(frames), -1) / 255 @ self.map


def test_golden_distances():
    golden = np.load(GOLDEN / "fid.npz")
    for pair in ("ab", "cb"):  # c has fewer rows than columns: a singular covariance
        found = distance(*(golden[name] for name in pair))
        assert found == pytest.approx(float(golden[pair]), rel=1e-7)


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    rows = np.random.default_rng(1).standard_normal((50, 30)) * np.arange(1, 31)
    shift = np.linspace(-2, 3, 30)
    assert distance(rows, rows + shift) == pytest.approx(shift @ shift)
    assert distance(rows, rows) == pytest.approx(0, abs=1e-6)


def test_features_equal_pytorch_fid_on_png(tmp_path, inception_file):
    from pytorch_fid.fid_score import get_activations

    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, (height, 56, 3), np.uint8) for height in (48, 400, 48)]
    paths = []
    for number, frame in enumerate(frames):
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], frame)
    inception = InceptionFeatures(inception_file, "cpu")
    features = inception(frames)
    expected = get_activations(paths, inception.network, batch_size=1)  # sizes differ
    assert expected.std() > 1e-3  # the filled network does not answer the same to everything
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_counts_protocol_and_distance(tmp_path, small):
    a = [write_video(tmp_path / f"a{i}.mkv", noise(i, 5)) for i in range(3)]
    b = [write_video(tmp_path / "b.mkv", noise(9, 7))]
    stub = Stub()
    result = fid(a, b, tmp_path / "out", stub, batch_size=4)
    rows = [stub(np.concatenate([noise(i, 5) for i in range(3)])), stub(noise(9, 7))]
    assert result["fid"] == pytest.approx(distance(*rows), rel=1e-6)
    assert result["real"]["seconds"] > 0
    assert timeless(result)["real"] == {"videos": 3, "frames": 15, "faceless": 0, "skipped": []}
    assert result["generated"]["frames"] == 7
    assert "fewer than 40 frames" in result["warning"]
    assert result["protocol"]["region"] == "frame" and result["protocol"]["weights"] == "stub"
    assert json.loads((tmp_path / "out" / "fid.json").read_text()) == result
    assert fid(a, a, tmp_path / "same", stub)["fid"] == pytest.approx(0, abs=1e-3)
    thinned = fid(a, b, tmp_path / "out", stub, every=3)
    assert thinned["real"]["frames"] == 6 and thinned["generated"]["frames"] == 3


def test_a_killed_run_continues(tmp_path, monkeypatch, small):
    monkeypatch.setattr(module, "SAVE_SECONDS", -1)  # after every video
    a = [write_video(tmp_path / f"a{i}.mkv", noise(i, 5)) for i in range(4)]
    b = [write_video(tmp_path / "b.mkv", noise(9, 6))]
    whole = fid(a, b, tmp_path / "whole", Stub(), batch_size=2)
    real_frames = module._pictures

    def killed(path, *rest):
        for number, frame in enumerate(real_frames(path, *rest)):
            if path == a[2] and number == 3:  # in the middle of the third
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(module, "_pictures", killed)
    stub = Stub()
    with pytest.raises(KeyboardInterrupt):
        fid(a, b, tmp_path / "out", stub, batch_size=2)
    assert not (tmp_path / "out" / "fid.json").exists()
    monkeypatch.setattr(module, "_pictures", real_frames)
    stub.frames = 0
    assert timeless(fid(a, b, tmp_path / "out", stub, batch_size=2)) == timeless(whole)
    assert stub.frames == 10 + 6  # the first two were kept
    stub.frames = 0
    assert timeless(fid(a, b, tmp_path / "out", stub, batch_size=2)) == timeless(whole)
    assert stub.frames == 0
    fid(a, b, tmp_path / "other", stub, batch_size=2, real_out=tmp_path / "out")
    assert stub.frames == 6  # another generated side, the same real one
    stub.frames = 0
    write_video(a[1], noise(30, 8))
    assert fid(a, b, tmp_path / "out", stub)["real"]["frames"] == 23
    assert stub.frames == 23  # the other side has not changed


def test_damaged_statistics_are_made_again(tmp_path, small):
    videos = [write_video(tmp_path / "a.mkv", noise(1, 4))]
    first = fid(videos, videos, tmp_path, Stub())
    cache = tmp_path / "fid_real.npz"
    cache.write_bytes(cache.read_bytes()[:1000])
    assert timeless(fid(videos, videos, tmp_path, Stub())) == timeless(first)


def test_face_region_and_unreadable_videos(tmp_path, small):
    from face_detection.boxes import KnownBoxes

    frames = noise(4, 5)
    shown = write_video(tmp_path / "a.mkv", frames)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(
        json.dumps(
            [[4, 6, 24, 30], None, [0, 0, 30, 40], [5, 5, 25, 25], None] + [[2, 2, 30, 30]] * 6
        )
    )
    seen = []

    class Watching(Stub):
        def __call__(self, faces):
            seen.extend(faces)
            return super().__call__(faces)

    whole = write_video(tmp_path / "b.mkv", noise(5, 3))
    result = fid([bad, shown], [whole, whole], tmp_path, Watching(), detector=KnownBoxes(boxes))
    assert result["real"]["frames"] == 3 and result["real"]["faceless"] == 2
    assert result["real"]["videos"] == 1
    assert [skipped["video"] for skipped in result["real"]["skipped"]] == [str(bad)]
    assert result["protocol"]["region"] == "face" and result["protocol"]["detector"] == "boxes"
    np.testing.assert_array_equal(seen[0], frames[0, 6:30, 4:24])
    with pytest.raises(InputError, match="fewer than two frames"):
        fid([bad], [shown], tmp_path / "none", Stub())


def test_a_video_that_is_left_out_leaves_nothing_behind(tmp_path, small):
    """Its first frames were there before the fault in the middle."""

    class Faulty(Stub):
        def __call__(self, frames):
            if any(frame.max() == 7 for frame in frames):
                raise InputError("not a number")
            return super().__call__(frames)

    good = write_video(tmp_path / "good.mkv", noise(1, 6))
    broken = noise(2, 6)
    broken[4] = 7
    bad = write_video(tmp_path / "bad.mkv", broken)
    stub = Faulty()
    result = fid([bad, good], [good], tmp_path / "out", stub, batch_size=2)
    assert [skipped["video"] for skipped in result["real"]["skipped"]] == [bad]
    assert result["real"]["frames"] == 6 and result["fid"] == pytest.approx(0, abs=1e-3)
    stub.frames = 0
    assert timeless(fid([bad, good], [good], tmp_path / "out", stub)) == timeless(result)
    assert stub.frames == 0  # it is kept that way


def test_a_face_in_a_video_that_changes_its_size(tmp_path, small):
    from face_detection.boxes import KnownBoxes

    (tmp_path / "boxes.json").write_text("[[4, 6, 24, 30]]")
    parts = [noise(1, 6), noise(2, 6, 32)]
    parts = [video(tmp_path / f"{n}.ts", frames) for n, frames in enumerate(parts)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    boxes = KnownBoxes(tmp_path / "boxes.json")
    result = fid([both], [both], tmp_path / "out", Stub(), detector=boxes)
    assert result["real"]["frames"] == 12 and result["real"]["skipped"] == []


def test_two_videos_may_have_one_name(tmp_path):
    paths = [write_video(tmp_path / f"0.{ending}", noise(1, 2)) for ending in ("mkv", "mp4")]
    assert list_videos([str(tmp_path)], "--real") == paths


def test_weights_that_are_not_numbers(tmp_path, inception_file):
    state = torch.load(inception_file, weights_only=True)
    state["Mixed_7c.branch1x1.bn.bias"] += float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(InputError, match="damaged"):
        InceptionFeatures(tmp_path / "nan.pth", "cpu")(noise(0, 1))


def test_weights_are_looked_for_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("models.pretrained.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    weights = Weights("Some", "file:///nowhere/some-1234.pth", "--some_weights")
    with pytest.raises(InputError, match=r"no Some weights: put some-1234\.pth .* --some_weights"):
        weights.find()
    for folder in ("hub/checkpoints", "checkpoints"):  # the latter comes first
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "some-1234.pth").write_bytes(b"x")
        assert weights.find() == str(tmp_path / folder / "some-1234.pth")


def test_wrong_weights_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not pytorch-fid's Inception"):
        load_inception(tmp_path / "other.pth")
    torch.save({"weight": Poison(str(tmp_path / "ran"))}, tmp_path / "poison.pth")
    with pytest.raises(InputError, match="refused"):
        load_inception(tmp_path / "poison.pth")
    assert not (tmp_path / "ran").exists()


def test_the_script(tmp_path, inception_file):
    for side, seed in (("real", 1), ("generated", 2)):
        (tmp_path / side).mkdir()
        write_video(tmp_path / side / "a.mkv", noise(seed, 2))
    arguments = ["-m", "evaluation.fid", "--real", tmp_path / "real", "--generated"]
    arguments += [tmp_path / "generated", "--out", tmp_path / "out", "--device", "cpu"]
    result = run_script(*arguments, "--inception_weights", inception_file)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("FID ") and "2 real, 2 generated frames" in result.stdout
    assert result.stderr.startswith("warning: fewer than 2048 frames")
    missing = run_script(*arguments, "--inception_weights", tmp_path / "none.pth")
    assert_refused(missing, "Inception weights not found", "none.pth")
    nothing = run_script("-m", "evaluation.fid", "--real", tmp_path / "x", *arguments[4:])
    assert_refused(nothing, "--real not found")
