"""Both generation protocols: which frames, which pairs are skipped, resuming, bad input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY, assert_refused, pixels, run_script, write_video
from scipy.io import wavfile

from audio import MEL_STEPS, save_wav, speech_chunks
from errors import InputError
from evaluation import gen_videos_from_filelist, real_videos_inference
from evaluation.gen_videos_from_filelist import generate_pairs
from evaluation.pairs import Pair, read_pairs
from face_detection.track import face_frames
from lipsync.engine import LipSync
from media.files import file_label
from media.read import iter_frames, load_audio, probe

BOX = (30, 130, 30, 130)  # top, bottom, left, right
PROTOCOL = {"faithful": True, "drop_last": True, "video_fps": 25.0, "pads": (0, 0, 0, 0)}


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu")


@pytest.fixture(scope="module")
def clips(synthetic_root):
    return synthetic_root / "mvlrs_v1" / "main"


def shades(count):
    """`count` grey frames that can be told apart."""
    return [np.full((160, 160, 3), 5 * i + 5, np.uint8) for i in range(count)]


def test_only_whole_mel_windows_give_frames():
    for samples in (3000, 16000, 16200, 31999):
        rows = samples // 200 + 1
        whole = sum(int(i * 3.2) + MEL_STEPS <= rows for i in range(rows))
        wav = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
        assert len(speech_chunks(wav, 25, True, drop_last=True)) == whole
        assert len(speech_chunks(wav, 25, True)) == whole + 1


def test_protocol_frames_are_those_of_the_released_program(lipsync, clips, tmp_path):
    audio, video = "s0000/00001", "s0001/00001"
    pairs = [Pair(3, audio, video)]
    summary = generate_pairs(lipsync, pairs, clips, tmp_path, {}, suffix=".mkv", **PROTOCOL)
    rows = len(load_audio(clips / f"{audio}.mp4")) // 200 + 1
    whole = sum(int(i * 3.2) + MEL_STEPS <= rows for i in range(rows))
    made = pixels(tmp_path / "3.mkv")
    assert len(made) == whole == 46 and probe(tmp_path / "3.mkv").fps == 25
    assert summary["videos"] == 1 and summary["scores"]["frames"]["mean"] == whole
    lipsync.run(
        str(clips / f"{video}.mp4"), str(clips / f"{audio}.mp4"), str(tmp_path / "whole.mkv"),
        faithful=True, pads=(0, 0, 0, 0),
    )  # fmt: skip
    released = pixels(tmp_path / "whole.mkv")
    assert len(released) == whole + 1
    assert np.abs(made[: whole - 5] - released[: whole - 5]).max() <= 1  # then smoothing differs
    with open(tmp_path / "pairs.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"video": f"3 {audio} {video}", "file": "3.mkv", "frames": "46"}


def test_other_rates_are_brought_to_25_by_timestamp(lipsync, tmp_path):
    write_video(tmp_path / "v.mkv", shades(50), seconds=1.0, fps=50)
    generate_pairs(lipsync, [Pair(0, "v", "v")], tmp_path, tmp_path / "o", {}, suffix=".mkv",
                   box=BOX, **PROTOCOL)  # fmt: skip
    made = pixels(tmp_path / "o" / "0.mkv")
    assert len(made) == 21  # int(3.2 i) + 16 <= 81
    expected = [frame[0, 0, 0] for _, frame in iter_frames(tmp_path / "v.mkv", 25)]
    assert made[:, 0, 0, 0].tolist() == expected[:21]


def hard_cases(clips, root):
    """One usable pair and each reason to skip one, as lines of a list."""
    good = "s0001/00001"
    (root / "s0001").mkdir(parents=True)
    shutil.copy(clips / f"{good}.mp4", root / f"{good}.mp4")
    faces = [frame for _, frame in iter_frames(clips / f"{good}.mp4")]
    write_video(root / "short.mkv", faces[:45], seconds=2.0)
    blank = [np.full_like(face, 90) if i == 7 else face for i, face in enumerate(faces)]
    write_video(root / "blank.mkv", blank, seconds=2.0)
    write_video(root / "mute.mkv", faces)
    (root / "broken.mp4").write_bytes(b"no video\n" * 99)
    save_wav(np.zeros(1600), root / "brief.wav")
    save_wav(np.zeros(16000), root / "silence.wav")
    wavfile.write(root / "nan.wav", 16000, np.full(16000, np.nan, np.float32))
    lines = [f"{good} {good}", f"{good} short", f"{good} blank", f"mute {good}"]
    lines += [f"{good} broken", f"brief.wav {good}", f"nan.wav {good}", f"none {good}"]
    return [*lines, "silence.wav short"]


def test_skipped_pairs_are_counted_by_reason(lipsync, clips, tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    lines = hard_cases(clips, root)
    (tmp_path / "list.txt").write_text("\n".join(lines))
    pairs = read_pairs(tmp_path / "list.txt")
    summary = generate_pairs(lipsync, pairs, root, out, {}, **PROTOCOL)
    assert summary["reasons"] == {
        "audio unusable": 3, "fewer frames than mel windows": 1, "no face": 1,
        "video unusable": 1, "file missing": 1,
    }  # fmt: skip
    reasons = {int(s["video"].split()[0]): s["reason"] for s in summary["skipped"]}
    assert reasons[1] == "fewer frames than mel windows: 45 for 46"
    assert "frame 7" in reasons[2] and "no audio track" in reasons[3]
    assert "cannot be decoded" in reasons[4] and "shorter than one mel" in reasons[5]
    assert "not finite" in reasons[6] and reasons[7] == "file missing: none"
    assert summary["videos"] == 2  # silence is speech like any other
    names = {"0.mp4", "8.mp4", "pairs.csv", "pairs.json", "pairs.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "pairs.json").read_text())["skipped"] == summary["skipped"]


def test_done_pairs_are_not_made_again(lipsync, clips, tmp_path):
    pairs = [Pair(0, "s0000/00001", "s0001/00001"), Pair(1, "s0001/00001", "s0000/00001"),
             Pair(2, "none", "s0000/00001")]  # fmt: skip

    def stamps(pairs=pairs, settings=None, **options):
        generate_pairs(lipsync, pairs, clips, tmp_path, settings or {"generator": "w 1"}, box=BOX,
                       **PROTOCOL | options)  # fmt: skip
        return [(tmp_path / f"{i}.mp4").stat().st_mtime_ns for i in (0, 1)]

    first = stamps()
    (tmp_path / ".1.mp4.4194305.part").touch()
    assert stamps() == stamps(wav2lip_batch_size=3) == first
    os.remove(tmp_path / "1.mp4")
    second = stamps()
    assert second[0] == first[0] and second[1] > first[1]
    assert not (tmp_path / ".1.mp4.4194305.part").exists()
    swapped = [Pair(0, "s0001/00001", "s0001/00001"), *pairs[1:]]  # another pair on that line
    third = stamps(swapped)
    assert third[0] > second[0] and third[1] == second[1]
    fourth = stamps(settings={"generator": "w 2"})
    assert fourth[0] > third[0] and fourth[1] > third[1]
    fifth = stamps(settings={"generator": "w 2"}, faithful=False)
    assert fifth[0] > fourth[0] and fifth[1] > fourth[1]


def test_a_video_of_other_settings_does_not_stay_where_the_pair_is_skipped(lipsync, tmp_path):
    write_video(tmp_path / "v.mkv", shades(30), seconds=1.0)
    out = tmp_path / "o"
    pairs = [Pair(0, "v", "v"), Pair(1, "v", "v")]
    generate_pairs(lipsync, pairs, tmp_path, out, {}, box=BOX, **PROTOCOL)
    assert (out / "1.mp4").exists()
    summary = generate_pairs(lipsync, pairs, tmp_path, out, {}, **PROTOCOL)
    assert summary["reasons"] == {"no face": 2} and not list(out.glob("*.mp4"))


def test_shards_share_the_list(lipsync, tmp_path):
    write_video(tmp_path / "v.mkv", shades(10), seconds=0.4)
    pairs = [Pair(i, "v", "v") for i in range(6)]
    made = [
        generate_pairs(lipsync, pairs, tmp_path, tmp_path / "o", {}, shard=shard, box=BOX,
                       **PROTOCOL)["videos"]
        for shard in ((1, 2), (2, 2))
    ]  # fmt: skip
    assert sum(made) == len(list((tmp_path / "o").glob("*.mp4"))) == 6 and 0 < made[0] < 6


def test_default_mode_skips_the_same_pairs_and_ends_with_the_video(lipsync, tmp_path):
    # 46 whole mel windows, 50 frames of speech
    write_video(tmp_path / "v.mkv", shades(46), seconds=2.0)
    options = PROTOCOL | {"faithful": False, "pad": "trim", "box": BOX}
    generate_pairs(lipsync, [Pair(0, "v", "v")], tmp_path, tmp_path / "o", {}, suffix=".mkv",
                   **options)  # fmt: skip
    made = pixels(tmp_path / "o" / "0.mkv")
    assert made[:, 0, 0, 0].tolist() == [frame[0, 0, 0] for frame in shades(46)]


def command(weights, filelist, root, out, *flags):
    return ("-m", "evaluation.gen_videos_from_filelist", "--checkpoint_path", weights,
            "--filelist", filelist, "--data_root", root, "--out", out, "--device", "cpu",
            "--detector", "centerface", *flags)  # fmt: skip


def test_a_kill_in_the_middle_leaves_nothing_partial(weights, clips, tmp_path):
    names = [f"s000{speaker}/00001" for speaker in range(4)] + ["s0000/00002"]
    lines = [f"{audio} {video}" for audio, video in zip(names, names[1:], strict=False)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    out = tmp_path / "out"
    argv = command(weights, tmp_path / "list.txt", clips, out)
    running = subprocess.Popen([sys.executable, *map(str, argv)], cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while not (out / "1.mp4").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    made = {path.name for path in out.glob("*.mp4")}
    assert {"0.mp4", "1.mp4"} <= made
    first = (out / "0.mp4").stat().st_mtime_ns
    result = run_script(*argv)
    assert result.returncode == 0, result.stderr
    assert f"{len(lines)} of {len(lines)} pairs made; skipped: none" in result.stdout
    left = {path.name for path in out.iterdir()}
    assert left == {f"{i}.mp4" for i in range(4)} | {"pairs.csv", "pairs.json", "pairs.jsonl"}
    assert all(probe(out / f"{i}.mp4").has_audio for i in range(4))
    assert (out / "0.mp4").stat().st_mtime_ns == first


def test_bad_input_ends_in_one_line(weights, clips, tmp_path):
    def refused(*words, line="s0000/00001 s0001/00001", root=clips, weights=weights, flags=()):
        (tmp_path / "list.txt").write_bytes(line if isinstance(line, bytes) else line.encode())
        argv = command(weights, tmp_path / "list.txt", root, tmp_path / "out", *flags)
        assert_refused(run_script(*argv), *words)
        assert not (tmp_path / "out").is_dir()

    refused("none of the 1 pairs", "--data_root", root=tmp_path)
    refused("--data_root is not a folder", root=tmp_path / "none")
    refused("not a text file", line=b"\x89PNG\0\xff")
    refused("filelist is empty", line="")
    refused("line 1: 1 names", line="s0000/00001")
    refused("checkpoint not found", weights=tmp_path / "none.pth")
    refused("--shard must be", flags=("--shard", "3/2"))
    (tmp_path / "out").touch()
    refused("cannot write to")


def test_the_detector_s_weights_are_among_the_settings(weights, clips, tmp_path, monkeypatch):
    def settings(*flags):
        seen, summary = [], {"videos": 1, "skipped": [], "reasons": {}}
        monkeypatch.setattr(script, "generate_pairs", lambda *a, **_: seen.append(a[4]) or summary)
        argv = command(weights, tmp_path / "list.txt", clips, tmp_path, *flags)[2:]
        script.main(script.get_args_parser().parse_args(list(map(str, argv))))
        return seen[0]["detector"], seen[0].get("s3fd_weights")

    script, own = gen_videos_from_filelist, tmp_path / "list.txt"  # any file is good enough
    own.write_text("s0000/00001 s0001/00001")
    assert settings("--detector", "sfd") == ("sfd", None)
    assert settings("--detector", "sfd", "--s3fd_weights", own) == ("sfd", file_label(own))
    assert settings("--s3fd_weights", own) == ("centerface", None)


def test_no_video_at_all_is_an_error(weights, tmp_path):
    write_video(tmp_path / "v.mkv", shades(30), seconds=1.0)
    (tmp_path / "list.txt").write_text("v v\nnone v\n")
    args = gen_videos_from_filelist.get_args_parser().parse_args(
        list(map(str, command(weights, tmp_path / "list.txt", tmp_path, tmp_path / "o")[2:]))
    )
    with pytest.raises(InputError, match="none of the 2 pairs .*1 no face, 1 file missing"):
        gen_videos_from_filelist.main(args)


def real(weights, root, mode, line, out, *flags):
    (root / f"{mode}.list").write_text(line)
    args = real_videos_inference.get_args_parser().parse_args(
        ["--mode", mode, "--filelist", str(root / f"{mode}.list"), "--data_root", str(root),
         "--out", str(out), "--checkpoint_path", str(weights), "--detector", "centerface",
         "--device", "cpu", "--lossless", *flags]
    )  # fmt: skip
    assert args.pads == [0, 10, 0, 0]
    real_videos_inference.main(args)
    return out / "0.mkv"


def test_real_videos_in_their_three_modes(weights, clips, tmp_path):
    """A video of 20 frames with 0.8 s of its own sound, and a speech of 2 s: 47 frames."""
    faces = [frame for _, frame in iter_frames(clips / "s0001/00001.mp4")][:20]
    for i, face in enumerate(faces):
        face[:4] = 12 * i  # a strip that no face box reaches
    write_video(tmp_path / "v.mkv", faces, seconds=0.8)
    (tmp_path / "voices").mkdir()
    save_wav(0.1 * np.sin(np.arange(32000)), tmp_path / "voices" / "to say.wav")

    def order(path):
        return (pixels(path)[:, 0, 0, 0] // 12).tolist()

    dubbed = real(weights, tmp_path, "dubbed", "v.mkv", tmp_path / "dubbed")
    assert order(dubbed) == list(range(17))  # 65 rows: int(3.2 i) + 16 <= 65 for 16, and the last
    voices = ("--audio_root", str(tmp_path / "voices"))
    line = "v.mkv\tto say.wav"
    random = real(weights, tmp_path, "random", line, tmp_path / "random", *voices)
    assert order(random) == [i % 20 for i in range(47)]
    tts = real(weights, tmp_path, "tts", line, tmp_path / "tts", *voices)
    assert order(tts) == [i * 20 // 47 for i in range(47)]


@pytest.mark.parametrize(
    ("shape", "scaled"),
    [((800, 1000), (720, 900)), ((1922, 1082), (1278, 720)), ((721, 905), (720, 904)),
     ((720, 1281), (720, 1281)), ((96, 64), (96, 64))],
)  # fmt: skip
def test_large_frames_get_a_shorter_side_of_720(tmp_path, shape, scaled):
    path = write_video(tmp_path / "v.mkv", [np.zeros((*shape, 3), np.uint8)])
    (frame,) = face_frames(str(path), max_short_side=720)
    assert frame.shape[:2] == scaled
