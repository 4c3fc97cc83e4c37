import json
import os
import shutil

import cv2
import numpy as np
import pytest
from conftest import assert_refused, run_script

import audio


def preprocess(data, out, *argv):
    return run_script("preprocess.py", "--data_root", data, "--preprocessed_root", out,
                      "--ngpu", 0, *argv)  # fmt: skip


def test_clip_folder_holds_what_the_design_promises(synthetic_root, preprocessed_root):
    video = synthetic_root / "mvlrs_v1/main/s0001/00002.mp4"
    truth = json.loads(video.with_suffix(".json").read_text())
    folder = preprocessed_root / "s0001/00002"
    clip = json.loads((folder / "clip.json").read_text())
    assert clip["source"] == str(video)
    assert (clip["fps"], clip["frames"], clip["detector"]) == (25, 50, "centerface")
    assert clip["faces"] == sum(box is not None for box in clip["boxes"]) >= 49
    assert clip["seconds"] == pytest.approx(2.0, abs=0.04)
    crops = sorted(int(path.stem) for path in folder.glob("*.jpg"))
    assert crops == [i for i, box in enumerate(clip["boxes"]) if box]
    x1, y1, x2, y2 = clip["boxes"][crops[7]]
    assert cv2.imread(str(folder / f"{crops[7]}.jpg")).shape == (y2 - y1, x2 - x1, 3)
    true = truth["boxes"][crops[7]]
    assert np.abs(np.subtract((x1, y1, x2, y2), true)).max() < 0.25 * (true[2] - true[0])
    mel = np.load(folder / "mel.npy")
    assert mel.dtype == np.float32 and mel.shape[1] == 80
    again = audio.melspectrogram(audio.load_wav(folder / "audio.wav")).T
    np.testing.assert_array_equal(mel, again)  # so that it can always be made again


def test_finished_clips_are_skipped_and_unfinished_ones_done_again(
    synthetic_root, preprocessed_root, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(preprocessed_root, out)
    shutil.rmtree(out / "s0000/00001")
    half = out / "s0000/00001.part"  # as a killed run leaves it
    half.mkdir()
    (half / "7777.jpg").touch()
    before = (out / "s0000/00002/clip.json").stat().st_mtime_ns
    result = preprocess(synthetic_root / "mvlrs_v1", out)
    assert result.returncode == 0, result.stderr
    assert "1 videos done" in result.stdout and "7 were finished before" in result.stdout
    assert (out / "s0000/00002/clip.json").stat().st_mtime_ns == before
    assert not half.exists() and not (out / "s0000/00001/7777.jpg").exists()
    new, old = (root / "s0000/00001" for root in (out, preprocessed_root))
    assert {p.name for p in new.iterdir()} == {p.name for p in old.iterdir()}
    for path in new.iterdir():
        assert path.read_bytes() == (old / path.name).read_bytes(), path.name


def test_known_boxes_are_used(synthetic_root, tmp_path):
    raw = tmp_path / "raw/s0000"
    shutil.copytree(synthetic_root / "mvlrs_v1/main/s0000", raw)
    result = preprocess(tmp_path / "raw", tmp_path / "out", "--detector", "boxes")
    assert result.returncode == 0, result.stderr
    truth = json.loads((raw / "00001.json").read_text())["boxes"]
    clip = json.loads((tmp_path / "out/s0000/00001/clip.json").read_text())
    assert clip["boxes"] == [[int(side) for side in box] for box in truth]


def test_tracked_faces_are_where_they_are_found(synthetic_root, tmp_path):
    """--track searches around the last box: the same frames have a face, in about that place."""
    shutil.copytree(synthetic_root / "mvlrs_v1/main/s0000", tmp_path / "raw/s0000")
    clips = []
    for out, flags in (("whole", []), ("around", ["--track"])):
        result = preprocess(tmp_path / "raw", tmp_path / out, "--split", "off", *flags)
        assert result.returncode == 0, result.stderr
        clips.append(json.loads((tmp_path / out / "s0000/00001/clip.json").read_text()))
    assert [clip["detector"] for clip in clips] == ["centerface", "centerface, tracked"]
    whole, around = (np.array(clip["boxes"], float) for clip in clips)  # None would be NaN
    away = np.abs(whole - around).max(axis=1) / (whole[:, 2] - whole[:, 0])
    assert 0 < away.mean() < 0.08 and away.max() < 0.2


def test_bad_videos_are_counted_and_listed_and_the_good_ones_done(synthetic_root, tmp_path):
    from media.write import VideoWriter

    raw = tmp_path / "raw/a"
    raw.mkdir(parents=True)
    shutil.copy(synthetic_root / "mvlrs_v1/main/s0000/00001.mp4", raw / "good.mp4")
    (raw / "empty.mp4").touch()
    (raw / "text.mp4").write_text("no video\n" * 100)
    for name, sound in (("silent", None), ("faceless", np.zeros(16000, np.float32))):
        with VideoWriter(raw / f"{name}.mp4", 25, sound, 16000) as writer:
            for _ in range(25):
                writer.write(np.full((96, 96, 3), 80, np.uint8))
    result = preprocess(tmp_path / "raw", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "4 failed" in result.stdout
    table = (tmp_path / "out/failures.tsv").read_text().splitlines()
    reasons = dict(line.split("\t") for line in table)
    assert "empty" in reasons["a/empty"] and "decoded" in reasons["a/text"]
    assert "no audio track" in reasons["a/silent"] and "no face" in reasons["a/faceless"]
    assert (tmp_path / "out/a/good/clip.json").exists()
    assert [p.name for p in (tmp_path / "out").rglob("*.part")] == []
    assert [p.name for p in (tmp_path / "out/a").iterdir()] == ["good"]
    assert preprocess(tmp_path / "raw", tmp_path / "out", "--strict").returncode == 1


def test_a_long_video_without_a_face_is_a_failure_too(tmp_path):
    """Whatever --max_seconds: it is told, tried again, and no clip."""
    from conftest import smooth_frames, write_video

    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw/a.mkv", [smooth_frames(1)[0] // 8] * 60, seconds=2.4)
    write_video(tmp_path / "raw/b.mkv", [smooth_frames(1)[0]] * 50, seconds=2)
    (tmp_path / "raw/a.json").write_text("[null]")
    (tmp_path / "raw/b.json").write_text("[[1, 1, 60, 60]]")
    for _ in range(2):
        result = preprocess(tmp_path / "raw", tmp_path / "out", "--detector", "boxes",
                            "--split", "on", "--max_seconds", 1, "--strict")  # fmt: skip
        assert result.returncode == 1 and "1 failed" in result.stdout
        assert "no face in 60 frames" in (tmp_path / "out/failures.tsv").read_text()
        assert os.listdir(tmp_path / "out/raw") == ["b"]


def test_names_that_are_not_utf8(tmp_path):
    """The folder's and a good and a bad video's; a list of such names too."""
    from conftest import smooth_frames, write_video

    raw = tmp_path / os.fsdecode(b"M\xfcller")
    raw.mkdir()
    write_video(tmp_path / "a.mkv", [smooth_frames(1)[0]] * 30, seconds=1.2)
    os.rename(tmp_path / "a.mkv", raw / os.fsdecode(b"gr\xfcn.mkv"))
    (raw / os.fsdecode(b"gr\xfcn.json")).write_text("[[1, 1, 60, 60]]")
    (raw / os.fsdecode(b"leer\xe4.mp4")).touch()
    (tmp_path / "list.txt").write_bytes(b"M\xfcller/gr\xfcn.mkv\r\nM\xfcller/leer\xe4.mp4")
    for data, out in ((raw, tmp_path / "out"), (tmp_path / "list.txt", tmp_path / "out2")):
        result = preprocess(data, out, "--detector", "boxes", "--make_filelists", "train=1")
        assert result.returncode == 0, result.stderr
        assert "1 videos done" in result.stdout and "1 failed" in result.stdout
        assert (out / "filelists/train.txt").read_text() == "Mxfcller/grxfcn\n"
        crops = list((out / "Mxfcller/grxfcn").glob("*.jpg"))
        assert len(crops) == 30 and cv2.imread(str(crops[0])).shape == (59, 59, 3)


def test_bad_roots(tmp_path):
    assert_refused(preprocess(tmp_path / "nothing", tmp_path / "out"), "neither a folder nor")
    assert_refused(preprocess(tmp_path, tmp_path / "out"), "no video")
    (tmp_path / "a.mp4").touch()
    assert_refused(preprocess(tmp_path, tmp_path / "out"), "all 1 videos failed")


@pytest.mark.corpus
def test_real_clips(corpus, tmp_path):
    """One shot of one person keeps its video's name; a cut between two people makes pieces."""
    raw = tmp_path / "in"
    raw.mkdir()
    for name in (
        "clips/vox2_00086.mp4",
        "clips/grid_bbaf2n.mpg",
        "hard/naïve clip ü 測試 01 (copy).mpg",
        "hard/overlapped_two_speakers_cut.mp4",
    ):
        shutil.copy(corpus / name, raw)  # fmt: skip
    result = preprocess(raw, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    clips = {str(path.parent.relative_to(tmp_path / "out/in")): json.loads(path.read_text())
             for path in (tmp_path / "out/in").rglob("clip.json")}  # fmt: skip
    assert set(clips) == {
        "vox2_00086",
        "grid_bbaf2n",
        "naïve_clip_ü_測試_01_(copy)",
        *(f"overlapped_two_speakers_cut/{first}" for first in ("000000", "000064", "000314")),
    }  # fmt: skip  (the cut is at 64; 250 frames later the piece is full)
    for clip in clips.values():
        assert clip["faces"] >= 0.98 * clip["frames"] > 60
    assert clips["overlapped_two_speakers_cut/000064"]["other_faces"] == 250
    assert clips["grid_bbaf2n"]["other_faces"] == 0
