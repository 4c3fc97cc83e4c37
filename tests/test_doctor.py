import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import run_script
from test_doctor_measure import examined, make_clip, picture, voice

from audio import melspectrogram
from corpus.listing import find_clips
from errors import InputError
from hparams import HParams
from preparation import doctor, doctor_corpus
from preparation.doctor import examine
from preparation.doctor_advice import advise, verdict
from preparation.doctor_measure import sound_vector
from preparation.sync import write_mel


def codes(report, *levels):
    return [f["code"] for f in report["findings"] if not levels or f["level"] in levels]


def set_sync(monkeypatch, offset, confidence=0.5):
    """An expert that finds offset(folder) in every clip."""
    import torch

    from experts import offset as sync_offset

    expert = sync_offset.Expert(torch.nn.Linear(1, 1), "SyncNet_color", "hand.pth 0123")
    monkeypatch.setattr(sync_offset, "load_expert", lambda path, device: expert)

    def clip_offset(expert, folder, hp, max_shift=15):
        return sync_offset.Offset(offset(folder), confidence, 0.7, np.zeros(31))

    monkeypatch.setattr(sync_offset, "clip_offset", clip_offset)


@pytest.fixture
def root(preprocessed_root, tmp_path):
    shutil.copytree(preprocessed_root, tmp_path / "root")
    return tmp_path / "root"


# --- the verdicts


def test_good_corpus_is_fit_for_a_trial(root, synthetic_root, tmp_path, capsys):
    report = examine(str(root), str(tmp_path / "out"), str(synthetic_root / "filelists"))
    assert report["verdict"] == ("verdict: ready for a trial: 0.3 minutes train small models only")
    assert not codes(report, "stop") and set(codes(report, "warn")) == {"trial", "few_speakers"}
    summary = report["summary"]
    assert (summary["clips"], summary["usable"], summary["speakers"]["count"]) == (8, 8, 4)
    assert not summary["problems"] and not any(summary["copied_clips"].values())
    assert summary["filelists"]["speakers_in_two"] == [] and summary["filelists"]["unlisted"] == 0
    text = (tmp_path / "out/doctor.txt").read_text()
    assert text in capsys.readouterr().out and text.splitlines()[-1] == report["verdict"]
    assert json.loads((tmp_path / "out/doctor.json").read_text()) == report
    assert len(report["clips"]) == sum(report["histograms"]["seconds"]["counts"]) == 8
    assert cv2.imread(str(tmp_path / "out/doctor.png")).shape == (1200, 1600, 3)


def test_corpus_that_is_off_by_five_frames(root, tmp_path, monkeypatch):
    set_sync(monkeypatch, lambda folder: 5)
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert report["verdict"].startswith("verdict: out of sync: the sound is early by 5 frames")
    assert codes(report, "stop") == ["out_of_sync"]
    assert "--correct_sync --expert x.pth" in report["findings"][0]["do"]
    assert report["histograms"]["offset"]["counts"][20] == 8  # -15, ..., +5
    # and corrected: what training hears now is in sync
    for path in root.rglob("clip.json"):
        record = json.loads(path.read_text())
        record["sync"] = {"offset": 5, "confidence": 0.5, "shift": 5, "kept": True, "expert": "e"}
        path.write_text(json.dumps(record))
        write_mel(str(path.parent), 5, HParams())
    for expert in (None, "x.pth"):
        report = examined(root, tmp_path / "out", expert=expert)
        assert "in_sync" in codes(report) and report["verdict"].startswith("verdict: ready")
        assert report["summary"]["sync"]["shifted"] == 8


def test_offsets_that_differ_and_an_unsure_expert(root, tmp_path, monkeypatch):
    names = {name: i for i, name in enumerate(find_clips(str(root)))}
    set_sync(monkeypatch, lambda folder: 12 - 3 * names["/".join(folder.split("/")[-2:])])
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert report["verdict"].startswith("verdict: out of sync: by different amounts")
    set_sync(monkeypatch, lambda folder: 0, confidence=0.1)
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert codes(report, "stop") == ["unsure"] and "voice" in report["verdict"]


def test_one_speaker_is_told_to_fine_tune(root, tmp_path):
    for other in ("s0001", "s0002", "s0003"):
        shutil.rmtree(root / other)
    report = examined(root, tmp_path / "out")
    assert codes(report, "stop") == ["one_speaker"]
    assert "one speaker" in report["verdict"] and "fine-tune" in report["verdict"]
    assert "--config configs/finetune.yaml" in json.dumps(report)
    (root / "day2").mkdir()  # a folder for each day does not make two people of one
    shutil.move(root / "s0000/00002", root / "day2/00002")
    assert codes(examined(root, tmp_path / "out"), "stop") == ["one_speaker"]


def good_summary(**changes):
    """What doctor_corpus.summarise says of a large corpus in order."""
    tests = dict.fromkeys([*doctor_corpus.TESTS, "sound_short"], 0.0)
    return {
        "found": 40000, "clips": 40000, "usable": 40000, "unusable": {}, "hours": 28.0,
        "problems": {}, "shares": tests, "medians": {"silence_share": 0.1, "seconds": 2.3},
        "speakers": {"one": False, "count": 900, "by": "folders", "largest_share": 0.01,
                     "largest": "a", "likeness": None},
        "near_negatives": 0.07, "copies": {}, "copied_clips": {}, "hint": None, "sync": None,
        "filelists": {"lists": {"train": {"lines": 9, "missing": [], "dropped": 0}},
                      "clips_in_two": [], "speakers_in_two": [], "copies_in_two": []},
    } | changes  # fmt: skip


def test_verdicts_of_corpora_too_large_for_a_test():
    sound = advise(good_summary(), "R")
    assert verdict(sound).startswith("verdict: ready to train; first ask an expert")
    assert [f.code for f in sound] == ["sync_unknown"] and "--expert E" in sound[0].do
    assert verdict(advise(good_summary(hours=1.5), "R")).startswith("verdict: small: 90.0 minutes")
    silent = good_summary()["shares"] | {"silent": 0.6, "blurred": 0.2}
    found = advise(good_summary(shares=silent, hours=1.5), "R")
    assert [f.level for f in found] == ["stop", "warn", "warn", "note"]
    assert verdict(found) == "verdict: silent: most clips hold no speech"
    blurred = good_summary()["shares"] | {"blurred": 0.2}
    hint = {"reliable": True, "offset": 1, "clips": 200, "agreement": 1.0}
    assert verdict(advise(good_summary(hint=hint), "R")) == "verdict: ready to train"
    blurred = advise(good_summary(shares=blurred, hint=hint), "R")
    assert verdict(blurred) == "verdict: ready to train, better so after the warnings"
    late = advise(good_summary(hint=hint | {"offset": -6}), "R")
    assert "late by about 6" in verdict(late)
    unknown = advise(good_summary(hint=hint | {"reliable": False}), "R")
    assert verdict(unknown).startswith("verdict: ready to train; first ask")
    wrong = good_summary()["shares"] | {"wrong_fps": 0.3}
    assert "wrong frame rate" in verdict(advise(good_summary(shares=wrong), "R"))
    assert "'a b'" in advise(good_summary(), "a b")[0].do  # commands can be pasted


# --- copies, splits


def test_copies_are_found(tmp_path):
    quiet = 0.3 * voice(1) + np.random.default_rng(0).normal(0, 2e-4, len(voice(1)))
    make_clip(tmp_path, "a/1", voice(1))
    make_clip(tmp_path, "b/1", quiet)
    make_clip(tmp_path, "b/2", voice(2), draw=lambda frame: picture(5, frame))
    make_clip(tmp_path, "c/1", voice(3), draw=lambda frame: picture(5, frame))
    make_clip(tmp_path, "c/2", voice(4), source="/v.mp4", first_frame=10)
    make_clip(tmp_path, "c/3", voice(5), source="/v.mp4", first_frame=20)
    make_clip(tmp_path, "c/4", voice(6), source="/v.mp4", first_frame=50)
    (tmp_path / "train.txt").write_text("a/1\nb/2\n")
    (tmp_path / "val.txt").write_text("b/1\nc/2\nc/3\ngone/1\n")
    report = examined(tmp_path, tmp_path / "out", str(tmp_path))
    assert report["summary"]["copies"] == {
        "sound": [["a/1", "b/1"]], "picture": [["b/2", "c/1"]], "source": [["c/2", "c/3"]],
    }  # fmt: skip
    lists = report["summary"]["filelists"]
    assert lists["copies_in_two"] == [["a/1", "b/1"]] and lists["speakers_in_two"] == ["b"]
    assert lists["lists"]["val"]["missing"] == ["gone/1"] and lists["unlisted"] == 2
    assert {"same_sound", "same_picture", "same_source", "leak", "copies_leak", "missing"} <= set(
        codes(report, "warn")
    )


def test_sounds_that_are_no_copies_are_unlike():
    mels = [melspectrogram(voice(seed).astype(np.float32)).T for seed in range(20)]
    vectors = np.stack([sound_vector(mel) for mel in mels]).astype(float)
    likeness = vectors @ vectors.T
    assert np.allclose(np.diag(likeness), 1, atol=0.01)
    assert np.triu(likeness, 1).max() < doctor_corpus.SAME_SOUND - 0.1


# --- damage


def test_damaged_clips_are_listed_and_the_rest_examined(root, tmp_path):
    folders = [root / name for name in find_clips(str(root))]
    crops = sorted(folders[0].glob("*.jpg"))
    for path in crops[::2]:
        path.write_bytes(path.read_bytes()[:300])
    wav = (folders[1] / "audio.wav").read_bytes()
    (folders[1] / "audio.wav").write_bytes(wav[: len(wav) // 2])
    (folders[2] / "mel.npy").unlink()
    (folders[3] / "clip.json").write_text("{" * 100_000)
    shutil.copy(folders[7] / "mel.npy", folders[4] / "mel.npy")
    (folders[5] / "audio.wav").write_text("no sound")
    (folders[6] / "clip.json").write_text(
        '{"boxes": [[1, "x", {}, NaN]], "seconds": 1e999, "fps": [], "first_frame": -5,'
        ' "sync": {"offset": 1e300, "confidence": "high"}, "source": {"a": 1}}'
    )
    report = examined(root, tmp_path / "out")
    problems = list(report["summary"]["problems"].values())
    words = (
        "crops looked at",
        "audio.wav holds",
        "mel.npy cannot be used",
        "clip.json cannot",
        "mel.npy is not audio.wav's",
        "audio.wav cannot be used",
        "the box of frame 0",
    )
    assert len(problems) == 7
    for word, found in zip(words, problems, strict=True):
        assert word in found[0]
    assert report["summary"]["usable"] == 7 and "damaged" in codes(report, "stop")
    assert list(report["summary"]["unusable"]) == ["mel.npy missing or damaged"]


def test_nothing_can_be_used(tmp_path):
    for name in ("a/1", "a/2"):
        folder = make_clip(tmp_path, name)
        (folder / "mel.npy").write_bytes(b"")
    report = examined(tmp_path, tmp_path / "out")
    assert report["verdict"] == "verdict: unusable: 100% of the clips hold no window"


# --- running it


def test_processes_give_the_same(tmp_path, monkeypatch):
    for name in ("a/1", "a/2", "b/1"):
        make_clip(tmp_path, name)
    names = find_clips(str(tmp_path))
    monkeypatch.setattr(doctor, "CHUNK", 2)
    one, two = (
        doctor.measure(str(tmp_path), names, HParams(), {"a/2"}, workers) for workers in (1, 2)
    )
    assert [clip.row() for clip in one] == [clip.row() for clip in two]
    assert [clip.hint is None for clip in two] == [True, False, True]


def test_a_sample_is_drawn_by_the_seed(root, tmp_path):
    report = examined(root, tmp_path / "out", max_clips=3, seed=4)
    names = find_clips(str(root))
    assert [row["name"] for row in report["clips"]] == doctor._draw(names, 3, 4)
    assert len(report["clips"]) == 3 and "examined" in codes(report, "note")
    assert doctor._draw(names, 3, 5) != doctor._draw(names, 3, 4)


def test_what_cannot_be_examined(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        examine(str(root), str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no clip"):
        examine(str(tmp_path / "empty"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="not a folder"):
        examine(str(tmp_path / "nowhere"), str(tmp_path / "out"))


@pytest.mark.corpus
def test_real_clips_in_order_raise_no_alarm(corpus, tmp_path):
    for name in ("grid_bbaf2n.mpg", "grid_brbk7n.mpg", "vox2_00067.mp4"):
        folder = tmp_path / "raw" / name[:-4]
        folder.mkdir(parents=True)
        (folder / name).symlink_to(corpus / "clips" / name)
    result = run_script("preprocess.py", "--data_root", tmp_path / "raw",
                        "--preprocessed_root", tmp_path / "root", "--ngpu", 0)  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = examined(tmp_path / "root", tmp_path / "out")
    assert {*codes(report, "stop", "warn")} == {"trial", "few_speakers"}
    assert report["summary"]["speakers"]["likeness"] < doctor_corpus.ONE_FACE
    assert not report["summary"]["problems"]
