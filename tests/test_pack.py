import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY

from corpus.clips import UnreadableFrame, open_pack, read_window
from errors import InputError
from preparation.pack import pack_clip, pack_root


def make_crops(folder, frames=range(20), size=(110, 90)):
    folder.mkdir(parents=True)
    for frame in frames:
        picture = np.random.default_rng(frame).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{frame}.jpg"), cv2.blur(picture, (9, 9)))
    (folder / "clip.json").write_text("{}")
    return folder


def test_a_pack_holds_the_pixels_that_the_jpegs_give(tmp_path):
    frames = [*range(3, 9), 12, 1000]
    folder = make_crops(tmp_path / "c", frames)
    assert pack_clip(folder, 64)
    pack = np.load(folder / "frames_64.npy")  # any numpy reads it
    assert pack.dtype.names == ("frame", "image") and pack["frame"].tolist() == frames
    images = read_window([str(folder / f"{frame}.jpg") for frame in frames], 64)
    assert pack["image"].dtype == np.uint8 and np.array_equal(pack["image"], images)
    assert np.array_equal(open_pack(str(folder), 64), pack)


def test_large_crops_are_packed_as_they_are_read(tmp_path):
    folder = make_crops(tmp_path / "c", range(3), (500, 420))
    pack_clip(folder)
    paths = [str(folder / f"{frame}.jpg") for frame in range(3)]
    image = np.load(folder / "frames_96.npy")["image"]
    assert np.array_equal(image, read_window(paths, 96, 2))
    assert not np.array_equal(image, read_window(paths, 96, 1))


def test_only_what_is_missing_damaged_or_stale_is_packed(tmp_path):
    folder = make_crops(tmp_path / "c")
    path = folder / "frames_96.npy"
    assert pack_clip(folder)
    sound, time_before = path.read_bytes(), path.stat().st_mtime_ns
    assert not pack_clip(folder) and path.stat().st_mtime_ns == time_before
    path.write_bytes(sound[:-1])
    assert pack_clip(folder) and path.read_bytes() == sound
    (folder / "19.jpg").unlink()
    assert pack_clip(folder) and len(np.load(path)) == 19
    for picture in folder.glob("*.jpg"):
        picture.unlink()
    assert not pack_clip(folder)
    path.write_bytes(sound[:-1])
    with pytest.raises(InputError, match="no JPEGs"):
        pack_clip(folder)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    folder = make_crops(tmp_path / "c")

    def disk_full(file, pack):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(np, "save", disk_full)
        pack_clip(folder)
    (folder / "7.jpg").write_bytes(b"")
    with pytest.raises(UnreadableFrame, match=r"7\.jpg"):
        pack_clip(folder)
    assert {path.suffix for path in folder.iterdir()} == {".jpg", ".json"}


def test_root_is_packed_with_counts_and_reasons(tmp_path, capsys):
    for name in ("a/00001", "a/00002", "b/00001", "b/00002"):
        make_crops(tmp_path / name)
    make_crops(tmp_path / "b/00003.part")  # in the making
    (tmp_path / "b/00001/5.jpg").write_bytes(b"no picture")
    for path in (tmp_path / "b/00002").glob("*.jpg"):
        path.unlink()
    pack_clip(tmp_path / "a/00001")
    report = pack_root(tmp_path, 96, workers=2)
    assert (report.packed, report.present) == (1, 1)
    assert list(report.failed) == ["b/00001", "b/00002"]
    assert "5.jpg" in report.failed["b/00001"] and "no face crops" in report.failed["b/00002"]
    out = capsys.readouterr().out
    assert "1 clips packed at 96 x 96, 1 were packed before, 2 failed" in out
    assert "failed: b/00001: cannot read" in out
    assert not (tmp_path / "b/00003.part/frames_96.npy").exists()


def test_bad_roots_and_sizes(tmp_path):
    with pytest.raises(InputError, match="no clip below"):
        pack_root(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        pack_root(tmp_path / "nowhere")
    for wrong in ({"img_size": 8}, {"workers": 0}):
        with pytest.raises(InputError, match="cannot pack"):
            pack_root(tmp_path, **wrong)


KILLED = """
import os, signal, sys
import numpy as np
from preparation.pack import pack_root

whole, written = np.save, []

def save(file, pack):
    written.append(file)
    if len(written) == 3:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, pack)

np.save = save
pack_root(sys.argv[1], 96, 1)
"""


def test_a_killed_packing_goes_on(tmp_path):
    for number in range(5):
        make_crops(tmp_path / f"a/{number:05d}")
    argv = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(argv, cwd=REPOSITORY).returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("frames_96.npy"))) == 2
    report = pack_root(tmp_path, 96)
    assert (report.packed, report.present, report.failed) == (3, 2, {})
    for number in range(5):
        folder = tmp_path / f"a/{number:05d}"
        assert open_pack(str(folder), 96)["frame"].tolist() == list(range(20))
        assert len(list(folder.iterdir())) == 22  # nothing half written either
