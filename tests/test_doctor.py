"""preparation/doctor.py: what a clip measures, what a corpus is told, damage, the page."""

import json
import shutil
import zlib
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from conftest import run_script

from audio import melspectrogram, save_wav
from corpus.listing import clip_groups, find_clips, split_groups, write_filelists
from errors import InputError
from hparams import HParams
from preparation.doctor import LEVELS, TESTS, examine, find, measure_clip, summarise, verdict

SECONDS = 1.2
SIDE = 96  # of the crops, so that nothing is resized


def sine(amplitude=0.5, seconds=SECONDS, hertz=440):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)


def voice(seed, seconds=SECONDS):
    """Another tone, as loud as it will, every 50 ms: as much in motion as speech is."""
    rng = np.random.default_rng(seed)
    time, steps = np.arange(800) / 16000, round(seconds / 0.05)
    tones = rng.uniform(0.05, 0.5, (steps, 1)) * np.sin(
        2 * np.pi * rng.uniform(100, 6000, (steps, 1)) * time
    )
    return tones.ravel() + rng.normal(0, 0.002, steps * 800)


def picture(seed=0, frame=0):
    """A smooth random picture that differs from frame to frame."""
    rng = np.random.default_rng([seed, frame])
    return cv2.resize(rng.integers(40, 216, (24, 24, 3), np.uint8), (SIDE, SIDE))


def make_clip(root, name, wav=None, frames=30, draw=None, **record):
    """A preprocessed clip by hand: draw(frame) -> uint8 BGR picture."""
    folder = root / name
    folder.mkdir(parents=True)
    wav = voice(len(list(root.rglob("clip.json")))) if wav is None else wav
    for frame in range(frames):
        image = picture(zlib.crc32(name.encode()), frame) if draw is None else draw(frame)
        cv2.imwrite(str(folder / f"{frame}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    save_wav(wav, folder / "audio.wav")
    np.save(folder / "mel.npy", melspectrogram(np.asarray(wav, np.float32)).T)
    record = {
        "source": f"/videos/{name}.mp4", "fps": 25, "frames": frames, "faces": frames,
        "seconds": len(wav) / 16000, "boxes": [[10, 10, 10 + SIDE, 20 + SIDE]] * frames,
    } | record  # fmt: skip
    (folder / "clip.json").write_text(json.dumps(record))
    return folder


def examined(root, out, *args, **kwargs):
    """examine's report, without the time that its picture takes."""
    with patch("preparation.doctor.plot"):
        return examine(str(root), str(out), *args, **kwargs)


def measured(root, name):
    return measure_clip(str(root), name, HParams())


def codes(report, *levels):
    return [f["code"] for f in report["findings"] if not levels or f["level"] in levels]


def set_sync(monkeypatch, offset, confidence=0.5):
    """An expert that finds offset(folder) in every clip."""
    import torch

    from experts import offset as sync_offset
    from preparation import doctor, sync

    class EmptyExpert(torch.nn.Linear):
        img_size, embed_audio = 96, None

    expert = sync_offset.ColorExpert(EmptyExpert(1, 1), "hand.pth 0123")
    monkeypatch.setattr(doctor, "load_expert", lambda path, device: expert)

    def clip_offset(expert, folder, hp, max_shift=15):
        return sync_offset.Offset(offset(folder), confidence, 0.7, np.zeros(31))

    monkeypatch.setattr(sync, "clip_offset", clip_offset)


@pytest.fixture
def root(preprocessed_root, tmp_path):
    shutil.copytree(preprocessed_root, tmp_path / "root")
    return tmp_path / "root"


# --- one clip


def test_sound_closed_forms(tmp_path):
    make_clip(tmp_path, "a/sine", sine(0.5))
    clip = measured(tmp_path, "a/sine")
    assert clip["seconds"] == SECONDS and clip["clipped_share"] == clip["silence_share"] == 0
    assert clip["speech_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    make_clip(tmp_path, "a/clipped", np.clip(sine(2.0, hertz=37), -1, 1))
    share = 1 - 2 / np.pi * np.arcsin(0.5)
    assert measured(tmp_path, "a/clipped")["clipped_share"] == pytest.approx(share, abs=0.01)
    make_clip(tmp_path, "a/half", np.append(sine(0.5, 0.6), np.zeros(9600)))
    clip = measured(tmp_path, "a/half")
    assert clip["silence_share"] == pytest.approx(0.5)
    assert clip["speech_db"] == pytest.approx(-9.03, abs=0.01)
    make_clip(tmp_path, "a/silent", np.zeros(int(16000 * SECONDS)))
    clip = measured(tmp_path, "a/silent")
    assert clip["silence_share"] == 1 and "speech_db" not in clip
    seen = {f["code"]: f["seen"] for f in examined(tmp_path, tmp_path / "out")["findings"]}
    assert seen["clipped"].startswith("1 of 4 clips (25.0%)")
    assert seen["silence"].startswith("1 of 4 clips (25.0%)")
    assert not {"quiet", "sound_short"} & set(seen)


def test_pictures_closed_forms(tmp_path):
    make_clip(tmp_path, "a/grey", draw=lambda frame: np.full((SIDE, SIDE, 3), 80, np.uint8))
    clip = measured(tmp_path, "a/grey")
    assert clip["brightness"] == pytest.approx(80) and clip["change"] == clip["sharpness"] == 0
    halves = np.full((SIDE, SIDE, 3), 0, np.uint8)
    halves[SIDE // 2 :] = 255
    make_clip(tmp_path, "a/halves", draw=lambda frame: halves)
    # an edge of height h gives +h and -h in two of the 96 rows
    sharpness = measured(tmp_path, "a/halves")["sharpness"]
    assert sharpness == pytest.approx(2 * 255**2 / SIDE, rel=0.02)
    grain = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    make_clip(tmp_path, "a/sharp", draw=lambda frame: grain)
    make_clip(tmp_path, "a/blurred", draw=lambda frame: cv2.GaussianBlur(grain, (0, 0), 2.5))
    sharp, blurred = (measured(tmp_path, f"a/{name}")["sharpness"] for name in ("sharp", "blurred"))
    assert sharp > 50 > blurred
    seen = {f["code"]: f["seen"] for f in examined(tmp_path, tmp_path / "out")["findings"]}
    assert "(100.0%)" in seen["still"] and "(50.0%)" in seen["blurred"]


def test_faces_from_the_boxes(tmp_path):
    boxes = [[0, 0, 40, 60]] * 10 + [None] * 10 + [[100, 0, 140, 60]] * 10 + [[0, 0, 40, 60]] * 10
    folder = make_clip(tmp_path, "a/1", frames=40, boxes=boxes, other_faces=10, fps=30)
    for frame in range(10, 20):
        (folder / f"{frame}.jpg").unlink()
    clip = measured(tmp_path, "a/1")
    assert (clip["face_size"], clip["faces_share"], clip["other_faces_share"]) == (40, 0.75, 0.25)
    assert clip["jumps"] == 1  # what happens while no face is seen does not count
    assert not clip["problems"]
    # windows start at 0..5 and 20..35, as far as 1.2 s of sound go
    assert (clip["windows"], clip["windows_generator"]) == (12, 8)
    report = examined(tmp_path, tmp_path / "out")
    assert {"small_face", "jumping", "faceless", "fps"} <= {f["code"] for f in report["findings"]}


# --- the verdicts


def test_good_corpus_is_fit_for_a_trial(root, synthetic_root, tmp_path, capsys):
    report = examine(str(root), str(tmp_path / "out"), str(synthetic_root / "filelists"))
    assert report["verdict"] == (
        "verdict: ready to train, but mind: amount, speakers; "
        "first ask an expert whether lips and sound are in sync"
    )
    assert not codes(report, "stop") and "full ones" in report["findings"][0]["why"]
    summary = report["summary"]
    assert (summary["examined"], summary["usable"], summary["speakers"]) == (8, 8, 4)
    assert not summary["problems"] and not summary["copies"]
    assert summary["speakers_in_two"] == [] and summary["missing_share"] == 0
    text = (tmp_path / "out/doctor.txt").read_text()
    assert text in capsys.readouterr().out and text.splitlines()[-1] == report["verdict"]
    assert json.loads((tmp_path / "out/doctor.json").read_text()) == report
    assert len(report["clips"]) == 8
    assert cv2.imread(str(tmp_path / "out/doctor.png")).shape == (600, 1200, 3)


def test_corpus_that_is_off_by_five_frames(root, tmp_path, monkeypatch):
    set_sync(monkeypatch, lambda folder: 5)
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert "8 of 8 clips (100.0%) are more than 3 frames out of sync" in report["verdict"]
    assert "the sound is early by 5 frames" in (tmp_path / "out/doctor.txt").read_text()
    assert codes(report, "stop") == ["out_of_sync"]
    assert "--correct_sync --expert x.pth" in report["findings"][0]["do"]
    assert report["summary"]["offsets"] == {"+5": 8}
    # and corrected: what training hears by these lists is in sync
    lists, names = tmp_path / "lists", find_clips(str(root))
    lists.mkdir()
    (lists / "train.txt").write_text("".join(f"{name} +5\n" for name in names))
    known = {"offset": 5, "confidence": 0.5, "kept": True, "expert": "e"}
    rows = (json.dumps(known | {"name": name}) + "\n" for name in names)
    (lists / "offsets.jsonl").write_text("".join(rows))
    for expert in (None, "x.pth"):
        report = examined(root, tmp_path / "out", expert=expert, filelists=str(lists))
        assert not {"sync_unknown", "out_of_sync"} & set(codes(report))
        assert report["verdict"].startswith("verdict: ready")
        assert report["summary"]["offsets"] == {"+0": 8} and report["summary"]["shifted"] == 8


def test_offsets_that_differ_and_an_unsure_expert(root, tmp_path, monkeypatch):
    names = {name: i for i, name in enumerate(find_clips(str(root)))}
    set_sync(monkeypatch, lambda folder: 12 - 3 * names["/".join(folder.split("/")[-2:])])
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert codes(report, "stop") == ["out_of_sync"] and len(report["summary"]["offsets"]) == 8
    set_sync(monkeypatch, lambda folder: 0, confidence=0.1)
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert codes(report, "stop") == ["unsure"] and "voice" in report["verdict"]


def test_a_frame_or_two_is_a_warning(root, tmp_path, monkeypatch):
    set_sync(monkeypatch, lambda folder: -2)
    report = examined(root, tmp_path / "out", expert="x.pth")
    assert "out_of_sync" in codes(report, "warn") and not codes(report, "stop")


def test_one_speaker_is_told_to_fine_tune(root, tmp_path):
    for other in ("s0001", "s0002", "s0003"):
        shutil.rmtree(root / other)
    report = examined(root, tmp_path / "out")
    assert codes(report, "stop") == ["speakers"]
    assert "one speaker" in report["verdict"]
    assert "--config configs/finetune.yaml" in json.dumps(report)
    several = examined(root, tmp_path / "out", speaker_pattern=r"\d+$")
    assert several["summary"]["speakers"] == 2 and not codes(several, "stop")


def good_clips(count=100, **changes):
    """Measures of clips in order."""
    clip = {
        "windows": 50, "faults": 0, "problems": [], "fps": 25, "seconds": 60.0, "sharpness": 200,
        "silence_share": 0.1, "speech_db": -20, "clipped_share": 0, "sound_missing": 0,
        "faces_share": 1, "jumps": 0, "other_faces_share": 0, "face_size": 100, "brightness": 120,
        "change": 3, "sure": 1, "offset": 0,
        "sync": {"offset": 0, "confidence": 0.5, "shift": 0, "kept": True, "expert": "e"},
    }  # fmt: skip
    return [clip | {"name": f"s{i}/1"} | changes for i in range(count)]


def findings(tmp_path, clips):
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").touch()
    groups = {clip["name"]: clip["name"][:-2] for clip in clips}
    return find(clips, summarise(clips, groups, groups, str(tmp_path)), "a b", None)


def test_verdicts_of_corpora_too_large_for_a_test(tmp_path):
    found = findings(tmp_path, good_clips(400))
    assert verdict(found) == "verdict: ready to train" and not found
    found = findings(tmp_path, good_clips())
    assert verdict(found) == "verdict: ready to train, but mind: amount"
    assert found[0]["seen"].startswith("100 minutes")
    assert "--data_root 'a b'" in found[0]["do"]  # commands can be pasted
    silent = good_clips(240, silence_share=0.9) + good_clips(160)
    found = findings(tmp_path, silent)
    assert [f["code"] for f in found if f["level"] == "stop"] == ["silence"]
    assert verdict(found).startswith("verdict: not ready to train: 240 of 400 clips (60.0%)")


OUTSIDE = {"sure": 0, "offset": 5, "windows": 0}
OF_CLIPS = [t.measure for t in TESTS if t.measure in good_clips(1)[0]]


@pytest.mark.parametrize("measure", sorted(set(OF_CLIPS)))
def test_every_bound_of_the_table_makes_its_finding(tmp_path, measure):
    tests = [t for t in TESTS if t.measure == measure]
    bounds = [(t.low, -1) for t in tests] + [(t.high, 1) for t in tests]
    for bound, side in bounds:
        if bound is not None:
            clips = good_clips(400, **{measure: bound + side * 10})
            found = {f["code"]: f for f in findings(tmp_path, clips)}
            assert tests[0].code in found
            finding = found[tests[0].code]
            assert finding["level"] == min(tests[0].levels, key=LEVELS.index)
            assert finding["why"] and finding["do"]


# --- copies, splits


def test_copies_and_leaks_are_found(tmp_path):
    make_clip(tmp_path, "a/1", voice(1))
    make_clip(tmp_path, "b/1", voice(1))
    for number, name in enumerate(("b/2", "c/1", "c/2", "c/3")):
        make_clip(tmp_path, name, voice(number + 2))
    (tmp_path / "train.txt").write_text("a/1\nb/2\nc/1\n")
    (tmp_path / "val.txt").write_text("b/1\nc/1\ngone/1\n")
    report = examined(tmp_path, tmp_path / "out", str(tmp_path))
    summary = report["summary"]
    assert summary["copies"] == summary["copies_in_two"] == [["a/1", "b/1"]]
    assert summary["speakers_in_two"] == ["b", "c"] and summary["clips_in_two"] == ["c/1"]
    assert summary["missing"] == {"train": [], "val": ["gone/1"]}
    assert {"copies", "leak", "copies_leak", "missing"} <= set(codes(report, "warn"))


def test_who_the_speaker_is_is_one_thing_for_splitting_and_here(tmp_path):
    """Two of them: a speaker in train and val is a leak, and --make_filelists makes none."""
    for number, name in enumerate(("a/1", "a/2", "a/3", "b/1", "b/2")):
        make_clip(tmp_path, name, voice(number))
    groups = clip_groups(find_clips(str(tmp_path)))
    write_filelists({"train": ["a/1", "a/2", "b/1"], "val": ["a/3", "b/2"]}, str(tmp_path))
    report = examined(tmp_path, tmp_path / "out", str(tmp_path))
    assert report["summary"]["speakers"] == 2
    assert report["summary"]["speakers_in_two"] == ["a", "b"] and "leak" in codes(report, "warn")
    write_filelists(split_groups(groups, {"train": 0.6, "val": 0.4}), str(tmp_path))
    assert not examined(tmp_path, tmp_path / "out", str(tmp_path))["summary"]["speakers_in_two"]
    with pytest.raises(InputError, match="2 speakers or sources cannot fill 3 splits"):
        split_groups(groups, {"train": 0.8, "val": 0.1, "test": 0.1})


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
    np.save(folders[4] / "mel.npy", np.load(folders[4] / "mel.npy")[:-40])
    (folders[5] / "audio.wav").write_text("no sound")
    (folders[6] / "clip.json").write_text(
        '{"boxes": [[1, "x", {}, NaN]], "seconds": 1e999, "fps": [], "first_frame": -5,'
        ' "sync": {"offset": 1e300, "confidence": "high"}, "source": {"a": 1}}'
    )
    report = examined(root, tmp_path / "out")
    problems = list(report["summary"]["problems"].values())
    words = (
        "truncated",
        "audio.wav cannot",
        "mel.npy cannot be used",
        "clip.json cannot",
        "rows, audio.wav makes",
        "audio.wav cannot be used",
        "clip.json cannot",
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
    assert codes(report, "stop") == ["unusable", "damaged"]
    assert report["verdict"] == "verdict: not ready to train: " + "; ".join(
        f["seen"] for f in report["findings"][:2]
    )


# --- running it


def test_threads_give_the_same(root, tmp_path):
    one, two = (examined(root, tmp_path / "out", workers=workers) for workers in (1, 2))
    assert one == two


def test_a_sample_is_drawn_by_the_seed(root, tmp_path):
    report = examined(root, tmp_path / "out", max_clips=3, seed=4)
    assert len(report["clips"]) == 3 and "examined" in codes(report, "note")
    other, again = (examined(root, tmp_path / "out", max_clips=3, seed=s) for s in (5, 4))
    assert again == report and other["clips"] != report["clips"]


def test_what_cannot_be_examined(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):  # told in one line by errors.run_cli
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
    assert {*codes(report, "stop", "warn")} <= {"amount", "speakers"}
    assert not report["summary"]["problems"]
