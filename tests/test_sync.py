import json
import os
import shutil

import cv2
import numpy as np
import pytest
import torch

import preprocess
from audio import load_wav, melspectrogram, save_wav
from datasets import SyncNetDataset, Wav2LipDataset
from errors import InputError
from experts.offset import ColorExpert, clip_offset
from hparams import HParams
from preparation import sync
from preparation.sync import correct_root, known_sync
from training.expert_validation import SHIFTS, ExpertValidationDataset

HP = HParams()
FRAME = 640  # samples


class BrightnessExpert(torch.nn.Module):
    """Reads off the brightness of five frames and the loudness of five fortieths of a second: the
    same number where picture and sound were made from one code.
    """

    def __init__(self):
        super().__init__()
        self.place, self.img_size = torch.nn.Parameter(torch.zeros(1)), 96

    def embed_face(self, x):  # (B, 15, 48, 96)
        assert x.shape[1:] == (15, 48, 96)
        return self._centred(x.unflatten(1, (5, 3)).mean((2, 3, 4)))

    def embed_audio(self, mel):  # (B, 1, 80, 16)
        assert mel.shape[1:] == (1, 80, 16)
        return self._centred(torch.nn.functional.adaptive_avg_pool1d(mel.mean(2), 5)[:, 0])

    @staticmethod
    def _centred(x):
        return torch.nn.functional.normalize(x - x.mean(1, keepdim=True))  # (B, 5)


EXPERT = ColorExpert(BrightnessExpert(), "brightness.pth 0123")


def write_clip(folder, frames=60, shift=0, seed=0, wrong_sound=False, missing=()):
    """A clip whose brightness and loudness follow one random code, the sound `shift` frames late;
    folder as preprocess leaves it.
    """
    rng = np.random.default_rng(seed)
    codes = rng.uniform(0, 1, frames)
    os.makedirs(folder)
    for frame, code in enumerate(codes):
        image = rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)  # only the lower half tells
        image[25:] = 30 + 200 * code
        if frame not in missing:
            cv2.imwrite(f"{folder}/{frame}.jpg", image)
    heard = rng.uniform(0, 1, frames) if wrong_sound else codes
    loudness = np.repeat(0.2 * 10 ** (-2 * (1 - heard)), FRAME)  # over 40 dB
    wav = (loudness * rng.standard_normal(len(loudness))).clip(-1, 1).astype(np.float32)
    late = np.zeros_like(wav)
    count = len(wav) - abs(shift) * FRAME
    late[max(0, shift) * FRAME :][:count] = wav[max(0, -shift) * FRAME :][:count]
    save_wav(late, f"{folder}/audio.wav")
    mel = melspectrogram(load_wav(f"{folder}/audio.wav"))
    np.save(f"{folder}/mel.npy", np.ascontiguousarray(mel.T))
    with open(f"{folder}/clip.json", "w") as file:
        json.dump({"source": "x.mp4", "frames": frames}, file)


@pytest.fixture
def expert(monkeypatch):
    """correct_root's expert is the hand-made one, whatever the path."""
    monkeypatch.setattr(sync, "load_expert", lambda path, device: EXPERT)


def correct(root, lists=None, max_offset=15, min_confidence=0.3):
    out = f"{root}_lists"
    found = correct_root(str(root), "x.pth", lists, out, max_offset, min_confidence, "cpu", HP)
    return {verdict.name: verdict for verdict in found}


@pytest.mark.parametrize("late", [7, -5])
def test_windows_that_are_read_by_the_kept_list_are_in_sync(tmp_path, expert, late):
    root, lists = tmp_path / "root", tmp_path / "root_lists"
    write_clip(root / "a/1", shift=late)
    verdict = correct(root)["a/1"]
    assert (verdict.offset, verdict.shift, verdict.reason) == (-late, -late, None)
    assert (lists / "kept.txt").read_text() == f"a/1 {-late:+d}\n"
    mel = np.load(root / "a/1/mel.npy")

    def sound(frame):  # what belongs to this frame
        return mel[int(3.2 * (frame + late)) :][:16].T

    for kind in (SyncNetDataset, Wav2LipDataset, ExpertValidationDataset):
        data = kind(str(root), "kept", HP, str(lists))
        (clip,) = data.clips
        np.testing.assert_array_equal(clip.starts, range(56))
        ahead, behind = (1, 3) if kind is Wav2LipDataset else (0, 0)  # frames that it hears
        whole = [f for f in range(56) if f + late >= ahead and sound(f + behind).shape[1] == 16]
        assert clip.usable.tolist() == whole and len(whole) > 40
        for epoch in range(6):
            sample = data[epoch, 0]
            picture = sample.get("window", sample.get("target"))
            rows = picture.shape[1]
            at = next(f for f in clip.starts if np.array_equal(clip.read(f, 5)[:, -rows:], picture))
            if kind is ExpertValidationDataset:
                for place in np.flatnonzero(sample["exists"][:-1]):
                    expected = sound(at + SHIFTS[place])
                    np.testing.assert_array_equal(sample["mels"][place][0], expected)
            elif kind is Wav2LipDataset or sample["y"]:
                np.testing.assert_array_equal(sample["mel"][0], sound(at))
            for i, heard in enumerate(sample.get("indiv_mels", ())):
                np.testing.assert_array_equal(heard[0], sound(at - 1 + i))
    again = clip_offset(EXPERT, root / "a/1", HP)  # hears audio.wav, as it always was
    assert again.offset == -late


@pytest.fixture
def root(tmp_path):
    """Clips in sync, late, far out, with a stranger's sound, too short, with a damaged crop."""
    root = tmp_path / "root"
    write_clip(root / "a/in_sync", seed=1)
    write_clip(root / "a/late", seed=2, shift=7)
    write_clip(root / "a/far", seed=3, shift=-12)
    write_clip(root / "b/stranger", seed=4, wrong_sound=True)
    write_clip(root / "b/short", frames=12, seed=5)
    write_clip(root / "b/edge", frames=20, seed=6, shift=8)  # searched +-8
    write_clip(root / "b/damaged", seed=7)
    (root / "b/damaged/31.jpg").write_bytes(b"no picture")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a/in_sync 12\n./a/late +2\nb/stranger\nc/gone\nb/short\n")
    (lists / "val.txt").write_text(f"{root}/a/far\nb/edge\nb/damaged\n")
    return root


def test_verdicts_and_lists(root, expert, capsys):
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    verdicts = correct(root, lists=str(root.parent / "lists"), max_offset=10)
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    assert reasons["a/in_sync"] is reasons["a/late"] is None
    assert reasons["a/far"] == "offset beyond 10"
    assert reasons["b/stranger"] == "confidence below 0.3"
    assert reasons["b/short"] == "15 face crops or fewer"
    assert reasons["b/edge"] == "offset at the end of a short clip's search"
    assert reasons["b/damaged"].startswith("unreadable: cannot read")
    out = root.parent / "root_lists"
    assert sorted(os.listdir(out)) == ["dropped.tsv", "offsets.jsonl", "train.txt", "val.txt"]
    assert (out / "train.txt").read_text() == "a/in_sync\na/late -7\n"
    assert (out / "val.txt").read_text() == ""
    rows = [line.split("\t") for line in (out / "dropped.tsv").read_text().splitlines()]
    assert rows[0] == ["name", "reason", "offset", "confidence"]
    dropped = {row[0]: row[1:] for row in rows[1:]}
    assert dropped["a/far"] == [reasons["a/far"], "12", str(verdicts["a/far"].confidence)]
    assert dropped["c/gone"] == ["not in the root", "", ""] and len(dropped) == 6
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before  # as it was
    shutil.copytree(out, root.parent / "lists_synced")
    known = known_sync(str(root.parent / "lists"), str(root))
    assert known["a/late"].items() >= {"offset": -7, "shift": 2, "kept": True}.items()
    assert known_sync(str(out), str(root))["a/late"].items() >= {"offset": -7, "shift": -7}.items()
    assert known["a/far"]["kept"] is False and known["a/far"]["expert"] == EXPERT.label
    assert known["b/short"] == {"shift": 0}
    report = capsys.readouterr().out
    for words in ("7 clips, 5 judged", "  -7 ###", " +12 ###", "median confidence", "1 shifted",
                  "5 dropped", "1 unreadable", "train: 2 of 5 clips kept"):  # fmt: skip
        assert words in report, words
    assert not list(root.rglob("*.tmp"))


def test_without_filelists_one_list(root, expert):
    correct(root)
    assert (root.parent / "root_lists/kept.txt").read_text() == "a/far +12\na/in_sync\na/late -7\n"


def test_judged_clips_are_not_judged_again_and_may_be_decided_anew(root, expert, monkeypatch):
    first = correct(root)
    judged = []

    def spy(expert, folder, *rest):
        judged.append(os.path.relpath(folder, root))
        return clip_offset(expert, folder, *rest)

    monkeypatch.setattr(sync, "clip_offset", spy)
    log = root.parent / "root_lists/offsets.jsonl"
    content = log.read_text()
    assert len(content.splitlines()) == 5
    log.write_text(content[:-20])  # a kill tore the last line, of b/stranger
    assert correct(root) == first and log.read_text() == content
    assert sorted(judged) == ["b/damaged", "b/short", "b/stranger"]
    stricter = correct(root, max_offset=6)
    assert stricter["a/late"].shift == 0 and stricter["a/late"].reason == "offset beyond 6"
    assert correct(root) == first
    assert "a/late" not in judged
    os.utime(root / "a/late/clip.json", (1, 1))  # preprocessed anew
    correct(root)
    assert judged.count("a/late") == 1 and "a/far" not in judged
    other = ColorExpert(EXPERT.model, "other.pth 4567")
    monkeypatch.setattr(sync, "load_expert", lambda path, device: other)
    correct(root)
    assert (
        "a/far" in judged
        and known_sync(f"{root}_lists", str(root))["a/late"]["expert"] == other.label
    )


def test_a_killed_run_is_gone_on_with(root, expert, monkeypatch):
    def dying(expert, folder, *rest):
        if folder.endswith("late"):
            raise KeyboardInterrupt
        return clip_offset(expert, folder, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sync, "clip_offset", dying)
        correct(root)
    assert sorted(os.listdir(f"{root}_lists")) == ["offsets.jsonl"]
    assert set(known_sync(f"{root}_lists", str(root))) == {"a/far", "a/in_sync"}
    assert correct(root)["a/late"].offset == -7


def test_a_mel_that_an_earlier_version_rewrote_is_not_shifted_twice(tmp_path, expert):
    write_clip(tmp_path / "root/a/1", shift=-7)
    path = tmp_path / "root/a/1/clip.json"
    path.write_text(json.dumps({"frames": 60, "sync": {"offset": 5, "shift": 5}}))
    assert correct(tmp_path / "root")["a/1"].shift == 2


@pytest.mark.parametrize("step", ["--correct_sync", "--doctor"])
def test_paths_that_are_named_and_not_there_end_it_before_the_work(root, tmp_path, step):
    parse = preprocess.get_args_parser().parse_args
    weights = tmp_path / "x.pth"
    arguments = [step, "--preprocessed_root", str(root), "--data_root", str(tmp_path)]
    arguments += ["--expert", str(weights)]
    with pytest.raises(InputError, match="--expert not found"):
        preprocess.main(parse(arguments))
    weights.write_text("x")
    with pytest.raises(InputError, match="--filelists is not a folder: /typo"):
        preprocess.main(parse([*arguments, "--filelists", "/typo"]))


def test_refusals(root, expert):
    with pytest.raises(InputError, match="would overwrite"):
        correct_root(str(root), "x", f"{root}_lists", f"{root}_lists/", 15, 0.0, "cpu", HP)
    with pytest.raises(InputError, match="no train.txt, val.txt, test.txt in"):
        correct(root, lists=str(root))
    for name in ("a/in_sync", "a/late", "a/far", "b/stranger", "b/edge"):
        shutil.rmtree(root / name)
    with pytest.raises(InputError, match="none of 2 clips can be judged"):
        correct(root)
