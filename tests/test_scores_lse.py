"""evaluation/scores_LSE.py: published sums, offsets, tracks with their sound, what is skipped."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, assert_refused, run_script
from fill import fill
from test_face_tracks import MovingSquare
from test_sync import EXPERT as BRIGHTNESS

from audio import save_wav
from errors import InputError
from evaluation import face_tracks
from evaluation.scores_LSE import SyncScorer, get_args_parser, main
from experts import offset
from experts.offset import SyncNetV2, load_expert
from face_detection.base import Detector
from media.read import iter_frames
from media.write import VideoWriter
from models import create_model

golden = np.load(GOLDEN / "lse_public.npz")
FRAME = 640  # samples


class BrightnessV2(torch.nn.Module):
    """As SyncNet v2 is called: reads off how bright five frames and how loud five fortieths of a
    second are, the same where picture and sound were made from one code.
    """

    def __init__(self):
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))

    def forward_lip(self, frames):  # (1, 3, T, 224, 224)
        assert frames.shape[:2] == (1, 3) and frames.shape[3:] == (224, 224)
        return self._centred(frames.mean((1, 3, 4))[0].unfold(0, 5, 1))

    def forward_aud(self, mfcc):  # (B, 1, 13, 20); the first coefficient is the log energy
        assert mfcc.shape[1:] == (1, 13, 20)
        return self._centred(mfcc[:, 0, 0].unflatten(1, (5, 4)).mean(2))

    @staticmethod
    def _centred(x):
        return torch.nn.functional.normalize(x - x.mean(1, keepdim=True))


V2 = SyncNetV2(BrightnessV2(), "brightness.model 0123")


def write_talk(path, frames=70, shift=0, before=0, seed=0, sound=True, no_face=()):
    """A square of 112 px whose brightness follows a random code, from frame `before` on; the sound
    follows it too, `shift` frames late.
    """
    rng = np.random.default_rng(seed)
    codes = rng.uniform(0, 1, before + frames)
    loudness = np.repeat(0.2 * 10 ** (-2 * (1 - codes)), FRAME)  # over 40 dB
    wav = (loudness * rng.standard_normal(len(loudness))).clip(-1, 1)
    wav = np.roll(wav, shift * FRAME).astype(np.float32)
    with VideoWriter(path, 25, wav if sound else None, 16000 if sound else None) as writer:
        for number, code in enumerate(codes):
            frame = np.zeros((240, 320, 3), np.uint8)
            if number >= before and number not in no_face:
                frame[80:192, 100:212] = 135 + round(120 * code)
            writer.write(frame)
    return str(path)


@pytest.fixture(scope="module")
def golden_video(tmp_path_factory):
    """The golden frames and sound as a lossless video."""
    path = tmp_path_factory.mktemp("golden") / "golden.mkv"
    rng = np.random.default_rng(int(golden["seed"]))
    frames = rng.integers(0, 256, (int(golden["T"]), 224, 224, 3), dtype=np.uint8)
    wav = golden["wav"].astype(np.float32) / 32768
    with VideoWriter(path, 25, wav, 16000, audio_tail="keep") as writer:
        for frame in frames:
            writer.write(frame)
    return str(path)


@pytest.fixture(scope="module")
def filled():
    return SyncNetV2(fill(create_model("SyncNet_v2")).eval(), "filled 0")


def test_a_video_scores_as_published_whatever_the_batch(golden_video, filled):
    (first,) = SyncScorer(filled, "lrs", vshift=15, batch_size=32).score_video(golden_video)
    (second,) = SyncScorer(filled, "lrs", vshift=15, batch_size=7).score_video(golden_video)
    (short,) = SyncScorer(filled, "lrs", vshift=10).score_video(golden_video)
    for row, vshift in ((first, 15), (second, 15), (short, 10)):
        offset, confidence, distance = golden[f"vshift{vshift}"]
        assert list(row) == ["lse_d", "lse_c", "offset"] and row["offset"] == offset
        assert row["lse_d"] == pytest.approx(distance, rel=1e-5)
        assert row["lse_c"] == pytest.approx(confidence, abs=2e-3)  # of two numbers ~1000
    assert first["lse_d"] == pytest.approx(second["lse_d"], rel=1e-6)


def test_embeddings_do_not_depend_on_the_batch(monkeypatch):
    expert = SyncNetV2(fill(create_model("SyncNet_v2", width=0.125)).eval(), "")
    frames = np.random.default_rng(0).integers(0, 256, (23, 224, 224, 3), dtype=np.uint8)
    found = []
    for batch_size in (1, 4, 19, 64):
        found.append(expert.embed_lips(iter(frames), batch_size))  # an iterator of frames will do
        assert found[-1].shape[0] == 19
        np.testing.assert_allclose(found[-1], found[0], rtol=1e-5, atol=1e-4)  # values reach 100
    sound = []
    for batch_size in (64, 1, 7):
        monkeypatch.setattr(offset, "BATCH", batch_size)
        sound.append(expert.embed_sound(golden["wav"], 25))
    np.testing.assert_allclose(sound[1], sound[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sound[2], sound[0], rtol=1e-5, atol=1e-4)


def test_windows_of_every_batch_size_are_each_embedded_once():
    class Numbers(SyncNetV2):
        def embed_frames(self, frames):
            assert 5 <= len(frames) <= batch_size + 4
            return torch.from_numpy(frames[: len(frames) - 4, 0, 0].astype(float))

    numbers = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)
    for batch_size in (1, 2, 3, 26, 40):
        for count in (0, 4, 5, 6, 30):
            found = Numbers(BrightnessV2(), "").embed_lips(numbers[:count], batch_size)
            assert found.ravel().tolist() == list(range(max(0, count - 4)))


@pytest.mark.parametrize("shift", [0, 6, -9, 15])
def test_sound_late_by_k_frames_moves_the_offset_by_k(tmp_path, shift):
    video = write_talk(tmp_path / "v.mkv", shift=shift)
    (row,) = SyncScorer(V2).score_video(video)
    assert row["offset"] == -shift and row["lse_c"] > 0.5
    (row,) = SyncScorer(BRIGHTNESS, detector=MovingSquare()).score_video(video)
    assert row["offset"] == -shift and row["sync_confidence"] > 0.5
    assert list(row) == ["sync_distance", "sync_confidence", "offset"]


@pytest.fixture
def unscaled(monkeypatch):
    monkeypatch.setattr(Detector, "tracks", (1.0, 0.9))


@pytest.mark.parametrize("expert", [V2, BRIGHTNESS])
def test_a_track_is_judged_with_its_own_sound(tmp_path, expert, unscaled, monkeypatch):
    video = write_talk(tmp_path / "v.mkv", frames=105, before=20, shift=4)
    scorer = SyncScorer(expert, "real", MovingSquare())
    (row,) = scorer.score_video(video)
    assert (row["track"], row["first_frame"], row["frames"], row["offset"]) == (0, 20, 105, -4)
    assert tuple(row) == scorer.columns
    monkeypatch.setattr(face_tracks, "MIN_TRACK", 110)
    with pytest.raises(InputError, match="no face track: none with more than 110 frames"):
        scorer.score_video(video)


def test_a_track_beyond_the_sound_has_a_row_without_scores(tmp_path, unscaled, monkeypatch):
    video = write_talk(tmp_path / "v.mkv", frames=130, no_face=range(60, 70))
    monkeypatch.setattr(face_tracks, "MIN_TRACK", 40)
    monkeypatch.setattr(face_tracks, "MAX_MISSED", 3)
    scorer = SyncScorer(V2, "real", MovingSquare())
    sound = tmp_path / "short.wav"
    save_wav(np.random.default_rng(0).standard_normal(60 * FRAME) / 10, sound)
    first, second = scorer.score_video(video, sound)
    assert (first["first_frame"], first["frames"]) == (0, 60) and "lse_d" in first
    assert second == {"track": 1, "first_frame": 70, "frames": 60}
    table = scorer.table(tmp_path / "out", audio="short")
    summary = table.run([("a", [video, sound])], scorer.score_video)
    assert summary["rows"] == 2 and summary["scores"]["lse_d"]["n"] == 1
    assert summary["settings"]["audio"] == "short"


def test_other_sound_is_cut_to_the_shorter(tmp_path):
    video, other = write_talk(tmp_path / "v.mkv"), write_talk(tmp_path / "o.mkv", 50, seed=1)
    scorer = SyncScorer(V2)
    own = scorer.score_video(video)[0]
    crossed = scorer.score_video(video, other)[0]
    assert own["lse_c"] > 2 * crossed["lse_c"] and own["lse_d"] < crossed["lse_d"]
    with VideoWriter(tmp_path / "part.mkv", 25) as writer:  # what the shorter sound leaves of it
        for _, frame in itertools.islice(iter_frames(video), 50):
            writer.write(frame)
    assert scorer.score_video(tmp_path / "part.mkv", other)[0] == crossed


def test_what_cannot_be_scored_is_kept_with_the_reason(tmp_path):
    good = write_talk(tmp_path / "good.mkv")
    silent = write_talk(tmp_path / "silent.mkv", sound=False)
    faceless = write_talk(tmp_path / "faceless.mkv", no_face=[33])
    short = write_talk(tmp_path / "short.mkv", 30)
    corrupt = tmp_path / "corrupt.mkv"
    corrupt.write_bytes(b"\x1a\x45\xdf\xa3 nothing")
    paths = [good, silent, faceless, short, corrupt, tmp_path / "missing.mkv"]
    videos = [(f"{number}", [path]) for number, path in enumerate(paths)]
    scorer = SyncScorer(BRIGHTNESS, detector=MovingSquare())
    summary = scorer.table(tmp_path / "out").run(videos, scorer.score_video)
    assert summary["videos"] == 1 and set(summary["scores"]) == set(scorer.columns)
    reasons = {entry["video"]: entry["reason"] for entry in summary["skipped"]}
    for key, words in {"1": "no audio track", "2": "no face in frame 33", "3": "too short",
                       "4": "cannot be decoded", "5": "not found"}.items():  # fmt: skip
        assert words in reasons[key]
    with pytest.raises(InputError, match="too short for an offset: 1 windows"):
        SyncScorer(V2).score_video(write_talk(tmp_path / "tiny.mkv", 5))
    assert not any("lse" in path.read_text() for path in (tmp_path / "out").iterdir())


def test_a_rerun_scores_only_what_is_new(tmp_path, monkeypatch):
    videos = [(name, [write_talk(tmp_path / f"{name}.mkv", 30)]) for name in ("a", "b")]
    scorer, scored = SyncScorer(V2), []
    judge = scorer.score_video
    monkeypatch.setattr(scorer, "score_video", lambda path: scored.append(path) or judge(path))
    first = scorer.table(tmp_path).run(videos[:1], scorer.score_video)
    both = scorer.table(tmp_path).run(videos, scorer.score_video)
    assert scored == [path for _, [path] in videos]
    assert (first["videos"], both["videos"]) == (1, 2)
    scorer.vshift = 10  # other settings: nothing of before counts
    scorer.table(tmp_path).run(videos, scorer.score_video)
    assert len(scored) == 4


def test_settings_name_the_protocol_and_all_of_its_numbers():
    scorer = SyncScorer(V2, "real", MovingSquare())
    assert scorer.settings["protocol"] == "real" and scorer.settings["vshift"] == 15
    assert scorer.settings["expert"] == "SyncNet_v2: brightness.model 0123"
    assert scorer.settings["detector"] == "square"
    assert scorer.settings["track_rules"]["crop_scale"] == 0.4
    assert SyncScorer(V2).settings["track_rules"] is None
    for wrong in (("real", V2), ("lrs", BRIGHTNESS)):
        with pytest.raises(InputError, match="needs a face detector"):
            SyncScorer(wrong[1], wrong[0])
    with pytest.raises(InputError, match="unknown protocol"):
        SyncScorer(V2, "lrw")


def save_model(path, name):
    state = fill(create_model(name, width=0.125)).state_dict()
    torch.save({"state_dict": state, "model": {"name": name, "width": 0.125}}, path)
    return path


def test_command_line(tmp_path, golden_video, capsys):
    weights = save_model(tmp_path / "v2.model", "SyncNet_v2")
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    result = run_script("-m", "evaluation.scores_LSE", "--videos", golden_video,
                        tmp_path / "bad.mp4", "--protocol", "lrs", "--out", tmp_path / "out",
                        "--syncnet_weights", weights, "--device", "cpu")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "lse_d" in result.stdout and "1 skipped" in result.stdout and "bad.mp4" in result.stdout
    (expected,) = SyncScorer(load_expert(weights, "cpu")).score_video(golden_video)
    with open(tmp_path / "out" / "lse_lrs.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["lse_d"]) == pytest.approx(expected["lse_d"], rel=1e-5)
    summary = json.loads((tmp_path / "out" / "lse_lrs.json").read_text())
    assert summary["settings"]["expert"].startswith("SyncNet_v2: v2.model ")


def test_wrong_weights_are_refused(tmp_path, golden_video):
    color = save_model(tmp_path / "color.pth", "SyncNet_color")
    script = ("-m", "evaluation.scores_LSE", "--videos", golden_video, "--protocol", "lrs",
              "--out", tmp_path / "out", "--device", "cpu", "--syncnet_weights")  # fmt: skip
    assert_refused(run_script(*script, color), "color.pth is a SyncNet_color", "--expert")
    parse = get_args_parser().parse_args
    arguments = [*map(str, script[2:-1])]
    with pytest.raises(InputError, match="not found"):
        main(parse([*arguments, "--syncnet_weights", str(tmp_path / "none.model")]))
    v2 = save_model(tmp_path / "v2.model", "SyncNet_v2")
    with pytest.raises(InputError, match="v2.model is a SyncNet_v2: give it as --syncnet_weights"):
        main(parse([*arguments, "--expert", str(v2)]))
    assert not (tmp_path / "out").exists()


def test_our_own_expert_scores_synthetic_talk_in_both_protocols(
    tmp_path, synthetic_root, capsys, monkeypatch
):
    monkeypatch.setattr(face_tracks, "MIN_TRACK", 40)
    monkeypatch.setattr(face_tracks, "MIN_FACE", 50)
    expert = save_model(tmp_path / "expert.pth", "SyncNet_color")
    video = synthetic_root / "mvlrs_v1/main/s0000/00001.mp4"
    for protocol in ("lrs", "real"):
        code = main(get_args_parser().parse_args([
            "--videos", str(video), "--protocol", protocol, "--out", str(tmp_path / "out"),
            "--expert", str(expert), "--device", "cpu", "--detector", "centerface",
        ]))  # fmt: skip
        assert code == 0
        with open(tmp_path / "out" / f"sync_{protocol}.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert 0 < float(row["sync_distance"]) < 2 and -15 <= int(row["offset"]) <= 15
    assert "lse_d" not in capsys.readouterr().out
