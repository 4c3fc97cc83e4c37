"""evaluation/pairs.py and make_filelist.py: the lists' formats, where files lie, seeded draws."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from conftest import assert_refused, run_script

from errors import InputError
from evaluation import make_filelist
from evaluation.pairs import Pair, read_pairs, require_some, resolve
from media.files import file_label
from media.write import VideoWriter


def listed(tmp_path, text, kind="unpaired"):
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pairs(path, kind)


@pytest.mark.parametrize(
    ("kind", "line", "audio", "video"),
    [
        ("unpaired", "5535/00001 6330/00007", "5535/00001", "6330/00007"),  # LRS2, LRS3
        ("unpaired", "ABOUT_00001 YOUNG_00050\r", "ABOUT_00001", "YOUNG_00050"),  # LRW
        ("unpaired", "my clips/a b\tc/d e", "my clips/a b", "c/d e"),
        ("random", "face.mp4 speech.wav", "speech.wav", "face.mp4"),
        ("tts", "face.mp4\tto say.wav", "to say.wav", "face.mp4"),
        ("dubbed", "face.mp4", "face.mp4", "face.mp4"),
        ("dubbed", "my face.mp4\t", "my face.mp4", "my face.mp4"),
    ],
)
def test_every_format_has_its_columns(tmp_path, kind, line, audio, video):
    assert listed(tmp_path, f"{line}\n", kind) == [Pair(0, audio, video)]


def test_index_is_the_line_and_comments_are_skipped(tmp_path):
    pairs = listed(tmp_path, "\ufeffa b\n\n# audio video\n  \nc d")
    assert pairs == [Pair(0, "a", "b"), Pair(4, "c", "d")]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("a b\nc\n", "unpaired", "line 2: 1 names where `audio video`"),
        ("a b c\n", "random", "line 1: 3 names where `video audio`"),
        ("a\n\na b\n", "dubbed", "line 3: 2 names where `video`"),
        ("# nothing\n\n", "unpaired", "names nothing"),
        ("", "unpaired", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\xff\xfe", "unpaired", "not a text file"),
        (b"ab\0 cd\n", "unpaired", "not a text file"),
        (b"x" * 10000, "dubbed", "not a text file"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, kind, words):
    with pytest.raises(InputError, match=words) as caught:
        listed(tmp_path, text, kind)
    assert "list.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_list_is_refused(tmp_path):
    with pytest.raises(InputError, match="filelist not found"):
        read_pairs(tmp_path / "none.txt")


def test_files_are_found_with_and_without_endings_and_in_lrw_folders(tmp_path):
    for name in ("1/00001.mp4", "1/00001.txt", "a.wav", "b.mpg", "ABOUT/test/ABOUT_00001.mp4",
                 "YOUNG_00050.mp4"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def found(name):
        path = resolve(str(tmp_path), name)
        return path and path.removeprefix(f"{tmp_path}/")

    assert found("1/00001") == found("1/00001.mp4") == "1/00001.mp4"
    assert found("a.wav") == "a.wav" and found("b") == "b.mpg"
    assert found("ABOUT_00001") == "ABOUT/test/ABOUT_00001.mp4"
    assert found("YOUNG_00050") == "YOUNG_00050.mp4"
    assert found("a") is found("1") is found("ABOUT_00002") is None
    root, pairs = str(tmp_path), [Pair(0, "none", "b"), Pair(1, "a.wav", "b")]
    require_some(pairs, root, root)
    with pytest.raises(InputError, match="none of the 1 pairs"):
        require_some(pairs[:1], root, root)
    with pytest.raises(InputError, match="--audio_root is not a folder"):
        require_some(pairs, root, f"{root}/none")


def test_file_label_tells_contents_apart(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x" * (2**20 + 1))
    assert file_label(path) == f"w.pth {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Speakers a, b and c with two clips each, of which b/1 is silent and c/1 no video."""
    root = tmp_path_factory.mktemp("my videos")
    for name in ("a/0.mp4", "a/1.mkv", "b/0.MP4", "b/1.mp4", "c/0.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        sound = None if name == "b/1.mp4" else np.zeros(3200, np.float32)
        with VideoWriter(root / name, 25, sound, 16000) as writer:
            for _ in range(5):
                writer.write(np.zeros((32, 32, 3), np.uint8))
    (root / "c/1.mp4").write_bytes(b"not a video")
    return root


def draw(videos, tmp_path, *flags):
    """The pairs of a made list, by the clips' names without endings."""
    out = tmp_path / "new" / "pairs.txt"
    argv = ["--data_root", str(videos), "--out", str(out), *map(str, flags)]
    make_filelist.main(make_filelist.get_args_parser().parse_args(argv))
    pairs = read_pairs(out)
    assert [pair.index for pair in pairs] == list(range(len(pairs)))
    for pair in pairs:
        assert resolve(videos, pair.audio) and resolve(videos, pair.video)
    return [(pair.audio.split(".")[0], pair.video.split(".")[0]) for pair in pairs]


def test_draws_are_seeded_and_no_clip_meets_itself(videos, tmp_path):
    pairs = draw(videos, tmp_path, "--pairs", 12)
    assert pairs == draw(videos, tmp_path, "--pairs", 12)
    assert pairs != draw(videos, tmp_path, "--pairs", 12, "--seed", 1)
    assert all(audio != video for audio, video in pairs) and len(set(pairs)) == 12
    good = {"a/0", "a/1", "b/0", "c/0"}
    assert {video for _, video in pairs[:5]} == good | {"b/1"}  # each once before one comes twice
    assert {audio for audio, _ in pairs} <= good  # not the silent one, nor what is no video
    everything = draw(videos, tmp_path, "--pairs", 16)  # 4 sounds, of which 4 videos lose their own
    assert len(set(everything)) == 16
    with pytest.raises(InputError, match="only 16 of 17 pairs"):
        draw(videos, tmp_path, "--pairs", 17)


def test_speakers_can_be_kept_apart(videos, tmp_path):
    pairs = draw(videos, tmp_path, "--pairs", 13, "--different_speakers")
    assert (
        len(set(pairs)) == 13
    )  # all there are: 2 videos of a with 2 sounds, 2 of b and 1 of c with 3
    assert all(audio[0] != video[0] for audio, video in pairs)


def test_same_pairs_each_clip_with_itself_once(videos, tmp_path):
    pairs = draw(videos, tmp_path, "--pairs", 4, "--same")
    assert sorted(pairs) == [(n, n) for n in ("a/0", "a/1", "b/0", "c/0")]
    with pytest.raises(InputError, match="only 4 of 5 pairs.*its own sound"):
        draw(videos, tmp_path, "--pairs", 5, "--same")


def test_a_split_limits_the_draw(videos, tmp_path):
    split = tmp_path / "test.txt"
    split.write_text("a/0 NF\nc/0\nz/9\n")
    pairs = draw(videos, tmp_path, "--pairs", 2, "--split_list", split)
    assert sorted(pairs) == [("a/0", "c/0"), ("c/0", "a/0")]
    split.write_text("z/9\n")
    with pytest.raises(InputError, match=r"no clip of .*test.txt"):
        draw(videos, tmp_path, "--split_list", split)


def test_names_with_blanks_are_separated_by_tabs(tmp_path):
    for name in ("my clip 1.mp4", "other.mp4"):
        (tmp_path / "in" / "s").mkdir(parents=True, exist_ok=True)
        with VideoWriter(tmp_path / "in/s" / name, 25, np.zeros(640, np.float32), 16000) as writer:
            writer.write(np.zeros((32, 32, 3), np.uint8))
    pairs = draw(tmp_path / "in", tmp_path, "--pairs", 2)
    assert sorted(pairs) == [("s/my clip 1", "s/other"), ("s/other", "s/my clip 1")]


def test_command_line_refuses_a_wrong_root_in_one_line(tmp_path):
    result = run_script("-m", "evaluation.make_filelist", "--data_root", tmp_path / "none",
                        "--out", tmp_path / "l.txt")  # fmt: skip
    assert_refused(result, "--data_root is not a folder")
    assert not list(tmp_path.iterdir())
