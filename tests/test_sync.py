import json
import os
import shutil

import cv2
import numpy as np
import pytest
import torch

from audio import load_wav, melspectrogram, save_wav
from errors import InputError
from experts.offset import ColorExpert, clip_offset
from hparams import HParams
from preparation import sync
from preparation.sync import correct_root, delayed, undo_root, write_mel

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
    folder as preprocess leaves it. Returns the mel of the sound in sync.
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
    save_wav(delayed(wav, shift * FRAME), f"{folder}/audio.wav")
    mel = melspectrogram(load_wav(f"{folder}/audio.wav"))
    np.save(f"{folder}/mel.npy", np.ascontiguousarray(mel.T))
    with open(f"{folder}/clip.json", "w") as file:
        json.dump({"source": "x.mp4", "frames": frames}, file)
    return melspectrogram(np.round(wav * 32768) / 32768).T


def read_sync(folder):
    with open(f"{folder}/clip.json") as file:
        return json.load(file).get("sync")


@pytest.fixture
def expert(monkeypatch):
    """correct_root's expert is the hand-made one, whatever the path."""
    monkeypatch.setattr(sync, "load_expert", lambda path, device: EXPERT)


def correct(root, lists=None, max_offset=15, min_confidence=0.3):
    out = f"{root}_lists"
    found = correct_root(str(root), "x.pth", lists, out, max_offset, min_confidence, "cpu", HP)
    return {verdict.name: verdict for verdict in found}


@pytest.mark.parametrize("late", [7, -5])
def test_the_corrected_mel_is_the_unshifted_one(tmp_path, expert, late):
    mel = write_clip(tmp_path / "root/a/1", shift=late)
    verdict = correct(tmp_path / "root")["a/1"]
    assert (verdict.offset, verdict.shift, verdict.reason) == (-late, -late, None)
    corrected = np.load(tmp_path / "root/a/1/mel.npy")
    assert corrected.shape == mel.shape and corrected.dtype == np.float32
    edge = int(np.ceil(abs(late) * 3.2)) + 3  # rows of the lost frames, and half a spectrum window
    inside = slice(0, -edge) if late > 0 else slice(edge, None)  # what was cut off stays lost
    np.testing.assert_allclose(corrected[inside], mel[inside], atol=0.02)
    assert (corrected[-3:] == -4).all() if late > 0 else (corrected[:3] == -4).all()  # silence
    again = clip_offset(EXPERT, tmp_path / "root/a/1", HP)  # hears audio.wav, as it always was
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
    (lists / "train.txt").write_text("a/in_sync 12\na/late\nb/stranger\nc/gone\nb/short\n")
    (lists / "val.txt").write_text("a/far\nb/edge\nb/damaged\n")
    return root


def test_verdicts_records_and_lists(root, expert, capsys):
    mels = {path: path.read_bytes() for path in root.rglob("mel.npy")}
    verdicts = correct(root, lists=str(root.parent / "lists"), max_offset=10)
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    assert reasons["a/in_sync"] is reasons["a/late"] is None
    assert reasons["a/far"] == "offset beyond 10"
    assert reasons["b/stranger"] == "confidence below 0.3"
    assert reasons["b/short"] == "15 face crops or fewer"
    assert reasons["b/edge"] == "offset at the end of a short clip's search"
    assert reasons["b/damaged"].startswith("unreadable: cannot read")
    out = root.parent / "root_lists"
    assert sorted(os.listdir(out)) == ["dropped.tsv", "train.txt", "val.txt"]
    assert (out / "train.txt").read_text() == "a/in_sync\na/late\n"
    assert (out / "val.txt").read_text() == ""
    rows = [line.split("\t") for line in (out / "dropped.tsv").read_text().splitlines()]
    assert rows[0] == ["name", "reason", "offset", "confidence"]
    dropped = {row[0]: row[1:] for row in rows[1:]}
    assert dropped["a/far"] == [reasons["a/far"], "12", str(verdicts["a/far"].confidence)]
    assert dropped["c/gone"] == ["not in the root", "", ""] and len(dropped) == 6
    record = read_sync(root / "a/late")
    assert record == {
        "offset": -7, "confidence": verdicts["a/late"].confidence, "searched": 15, "shift": -7,
        "kept": True, "expert": EXPERT.label,
    }  # fmt: skip
    assert read_sync(root / "a/far")["kept"] is read_sync(root / "b/short")["kept"] is False
    assert read_sync(root / "a/far")["shift"] == 0
    changed = [path for path, content in mels.items() if path.read_bytes() != content]
    assert changed == [root / "a/late/mel.npy"]
    report = capsys.readouterr().out
    for words in ("7 clips, 5 judged", "  -7 ###", " +12 ###", "median confidence", "1 shifted",
                  "5 dropped", "1 unreadable", "train: 2 of 5 clips kept"):  # fmt: skip
        assert words in report, words
    assert not list(root.rglob("*.tmp"))


def test_without_filelists_one_list(root, expert):
    correct(root)
    assert (root.parent / "root_lists/kept.txt").read_text() == "a/far\na/in_sync\na/late\n"


def test_judged_clips_are_not_judged_again_and_may_be_decided_anew(root, expert, monkeypatch):
    first = correct(root)
    judged = []

    def spy(expert, folder, *rest):
        judged.append(os.path.relpath(folder, root))
        return clip_offset(expert, folder, *rest)

    monkeypatch.setattr(sync, "clip_offset", spy)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*/*/*.[jn]*")}
    assert correct(root) == first
    assert sorted(set(judged)) == ["b/damaged", "b/short"]  # nothing is known of those
    assert stamps == {path: path.stat().st_mtime_ns for path in root.rglob("*/*/*.[jn]*")}
    stricter = correct(root, max_offset=6)
    assert stricter["a/late"].shift == 0 and stricter["a/late"].reason == "offset beyond 6"
    same_as_wav = melspectrogram(load_wav(root / "a/late/audio.wav")).T
    np.testing.assert_array_equal(np.load(root / "a/late/mel.npy"), same_as_wav)
    assert correct(root) == first
    assert "a/late" not in judged
    other = ColorExpert(EXPERT.model, "other.pth 4567")
    monkeypatch.setattr(sync, "load_expert", lambda path, device: other)
    correct(root)
    assert "a/late" in judged and read_sync(root / "a/late")["expert"] == other.label


def test_undo_gives_back_what_was_there(root, expert):
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    correct(root)
    assert undo_root(str(root)) == 7
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    assert undo_root(str(root)) == 0


def test_the_mel_of_shift_0_is_preprocess_own(preprocessed_root, tmp_path):
    for source in sorted(preprocessed_root.glob("*/*/mel.npy"))[:3]:
        folder = tmp_path / source.parent.parent.name
        folder.mkdir(exist_ok=True)
        shutil.copy(source.parent / "audio.wav", folder)
        write_mel(str(folder), 0, HP)
        assert (folder / "mel.npy").read_bytes() == source.read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("write", [0, 1])
def test_a_kill_at_any_write_is_healed_by_a_rerun(tmp_path, expert, monkeypatch, write):
    """From shift 0 (found beyond --max_offset) to 7: killed before clip.json's last word."""
    root = tmp_path / "root"
    write_clip(root / "a/1", shift=-7)
    correct(root, max_offset=3)
    source, goal = (root / "a/1/mel.npy").read_bytes(), read_sync(root / "a/1") | {"shift": 7}
    real, left = sync.write_json, [write]

    def dying(path, content):
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(path, content)

    monkeypatch.setattr(sync, "write_json", dying)
    with pytest.raises(Killed):
        correct(root)
    monkeypatch.setattr(sync, "write_json", real)
    killed = tmp_path / "killed"
    shutil.copytree(root, killed)
    correct(root)
    assert read_sync(root / "a/1")["shift"] == goal["shift"] == 7
    assert (root / "a/1/mel.npy").read_bytes() != source
    correct(killed, max_offset=3)  # or the other way: back to where it came from
    assert read_sync(killed / "a/1")["shift"] == 0
    assert (killed / "a/1/mel.npy").read_bytes() == source


def test_a_first_run_killed_after_the_mel_is_healed(tmp_path, expert, monkeypatch):
    root = tmp_path / "root"
    write_clip(root / "a/1", shift=-7)
    source = (root / "a/1/mel.npy").read_bytes()

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sync, "write_json", die)
        correct(root)
    shifted = (root / "a/1/mel.npy").read_bytes()
    assert shifted != source and read_sync(root / "a/1") is None
    undone = tmp_path / "undone"
    shutil.copytree(root, undone)
    assert undo_root(str(undone)) == 0
    assert (undone / "a/1/mel.npy").read_bytes() == source
    assert correct(root)["a/1"].shift == 7
    assert (root / "a/1/mel.npy").read_bytes() == shifted


def test_refusals(root, expert):
    with pytest.raises(InputError, match="would overwrite"):
        correct_root(str(root), "x", f"{root}_lists", f"{root}_lists/", 15, 0.0, "cpu", HP)
    with pytest.raises(InputError, match="no train.txt, val.txt, test.txt in"):
        correct(root, lists=str(root))
    for name in ("a/in_sync", "a/late", "a/far", "b/stranger", "b/edge"):
        shutil.rmtree(root / name)
    with pytest.raises(InputError, match="none of 2 clips can be judged"):
        correct(root)
