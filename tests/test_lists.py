"""media/lists.py and its callers: what other programs and people write into lists."""

import os

import pytest

from corpus.listing import find_videos
from errors import InputError
from evaluation.pairs import read_pairs, resolve
from hparams import get_image_list
from media.lists import read_lines

NAMES = ["a/1", "b/2"]
ROWS = {
    "plain": b"{0}\n{1}\n",
    "no line end": b"{0}\n{1}",
    "CR LF": b"{0}\r\n{1}\r\n",
    "Notepad's mark": b"\xef\xbb\xbf{0}\n{1}\n",
    "mark and CR LF": b"\xef\xbb\xbf{0}\r\n{1}\r\n",
    "blank lines": b"\n{0}\n  \n\t\n{1}\n\n",
    "blanks at the ends": b" {0} \n{1}\t\n",
    "duplicates": b"{0}\n{1}\n{0}\n",
    "Windows' separators": b"{0}\n{1}\n".replace(b"/", b"\\"),
    "quotes": b"\"{0}\"\n'{1}'\n",
    "another spelling": b"./{0}\n{1}\n",
}


def write(path, row, names, windows):
    for number, name in enumerate(names):
        name = name.replace("/", "\\") if windows else name
        row = row.replace(b"{%d}" % number, os.fsencode(name))
    path.write_bytes(row)


@pytest.mark.parametrize("row", ROWS)
def test_lists_as_others_write_them(tmp_path, row, record_property):
    """A filelist, a list of videos and a list of pairs."""
    windows = row.startswith("Windows")
    (tmp_path / "x").mkdir()
    write(tmp_path / "x/train.txt", ROWS[row], NAMES, windows)
    assert get_image_list("root", "train", tmp_path / "x") == [
        "root/a/1", "root/b/2", *(["root/a/1"] if row == "duplicates" else [])]  # fmt: skip
    videos = ["x/a/1.mp4", "x/b/2 ü.mp4", os.fsdecode(b"x/c/3\xfc.mp4")]
    for video in videos:
        path = tmp_path / video
        path.parent.mkdir(exist_ok=True)
        path.touch()  # one that holds nothing is a failure of its own, when its turn comes
    for pair in (videos[:2], videos[1:]):
        write(tmp_path / "videos.txt", ROWS[row], pair, windows)
        found = find_videos(str(tmp_path / "videos.txt"))
        assert [os.path.realpath(path) for _, path in found] == [str(tmp_path / v) for v in pair]
    if row != "quotes":
        write(tmp_path / "pairs.txt", ROWS[row], NAMES, windows)
        (tmp_path / "x/a/1.mp4").touch(), (tmp_path / "x/b/2.mp4").touch()
        for pair in read_pairs(tmp_path / "pairs.txt", "dubbed"):
            assert os.path.samefile(resolve(tmp_path / "x", pair.video), tmp_path / {
                "1": "x/a/1.mp4", "2": "x/b/2.mp4"}[pair.video[-1]])  # fmt: skip
    record_property("input", ("list", row, "read"))


def test_lines_keep_their_numbers_and_what_follows_a_name_is_ignored(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf\n a/1 5 x\r\n")
    assert read_lines(tmp_path / "train.txt") == ["", "a/1 5 x"]
    assert get_image_list("", "train", tmp_path) == ["a/1"]


@pytest.mark.parametrize("content", [b"a\0b", b"x" * 5000, b""])
def test_what_is_no_list(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"filelist.*list\.txt"):
        read_lines(tmp_path / "list.txt", "filelist")
    with pytest.raises(InputError, match="not found"):
        read_lines(tmp_path / "none.txt")
