"""corpus.listing: names of clips, list files, groups and splits."""

import os

import pytest

from corpus.listing import (
    clip_groups,
    find_clips,
    find_videos,
    is_lrs2,
    parse_shares,
    speakers_of,
    split_groups,
    write_filelists,
)
from errors import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(root):
    return [name for name, _ in find_videos(str(root))]


def test_lrs2_uses_main_only_and_names_are_dir_video(tmp_path):
    touch(tmp_path, "mvlrs_v1/main/a/00001.mp4", "mvlrs_v1/pretrain/b/00001.mp4",
          "mvlrs_v1/main/a/notes.txt")  # fmt: skip
    for root in ("mvlrs_v1", "mvlrs_v1/main"):
        assert names_of(tmp_path / root) == ["a/00001"]
    assert is_lrs2(["a/00001", "b/00050"]) and not is_lrs2(["a/00001", "a/talk"])


def test_any_tree(tmp_path):
    touch(tmp_path, "x.MPG", "deep/er/y z.webm", "deep/.hidden.mp4", "deep/w.part.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)  # followed once, not for ever
    assert names_of(tmp_path) == [
        "deep/er/y_z",
        "deep/w_part",
        f"{tmp_path.name}/x",
    ]  # fmt: skip  (a filelist ends a name at a blank; *.part is a clip in the making)


def test_two_videos_that_would_become_one_clip(tmp_path):
    touch(tmp_path, "a/x.mp4", "a/x.mpg")
    with pytest.raises(InputError, match="one clip"):
        find_videos(str(tmp_path))
    (tmp_path / "a/x.mpg").unlink()
    touch(tmp_path, "a/x/y.mp4")
    with pytest.raises(InputError, match="would lie inside"):
        find_videos(str(tmp_path))


def test_list_file_and_single_video(tmp_path):
    touch(tmp_path, "videos/a/1.mp4", "videos/b/2.mp4")
    lines = f"videos/a/1.mp4\n\n{tmp_path}/videos/b/2.mp4\nvideos/a/1.mp4\nvideos/b/gone.mp4\n"
    (tmp_path / "list.txt").write_text(lines)
    # one that is not there is a failure of its own, told when its turn comes
    assert names_of(tmp_path / "list.txt") == ["a/1", "b/2", "b/gone"]
    assert names_of(tmp_path / "videos/a/1.mp4") == ["a/1"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"", b"\n\n"])
def test_lists_that_are_none(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match="list.txt"):
        find_videos(str(tmp_path / "list.txt"))


def test_finished_clips_are_found(tmp_path):
    touch(tmp_path, "a/1/clip.json", "a/2/000050/clip.json", "a/2/pieces.json", "a/3.part/.lock",
          "a/3.part/clips/000000/clip.json", "a/4/0.jpg", "x.part/v/clip.json")  # fmt: skip
    # a folder may be called like a clip in the making, and links may lead anywhere
    (tmp_path / "a/4/loop").symlink_to(tmp_path)
    (tmp_path / "0").symlink_to(tmp_path / "a")
    assert find_clips(str(tmp_path)) == ["a/1", "a/2/000050", "x.part/v"]
    os.makedirs(tmp_path / "empty")
    with pytest.raises(InputError, match="no clip below"):
        find_clips(str(tmp_path / "empty"))


def test_no_clip_gets_the_name_of_one_in_the_making(tmp_path):
    touch(tmp_path, "a/x.part/1.mp4", "a/x.mp4", os.fsdecode(b"b\xfc/1.mp4"))
    assert names_of(tmp_path) == ["a/x", "a/x_part/1", "bxfc/1"]


def test_groups_are_speakers_or_their_videos():
    assert clip_groups(["a/1", "a/2", "b/1", "c/1"]) == {
        "a/1": "a", "a/2": "a", "b/1": "b", "c/1": "c"
    }  # fmt: skip
    assert clip_groups(["a/1", "a/2", "b/1"]) == {"a/1": "a", "a/2": "a", "b/1": "b"}
    assert clip_groups(["a/1/000000", "a/1/000250", "a/2"]) == {
        "a/1/000000": "a/1", "a/1/000250": "a/1", "a/2": "a/2"
    }  # fmt: skip
    assert speakers_of(["a/1", "a/2"]) == {"a/1": "a", "a/2": "a"}
    assert clip_groups(["x/tom_1", "x/ann_2"], r"/([a-z]+)_") == {
        "x/tom_1": "tom",
        "x/ann_2": "ann",
    }
    with pytest.raises(InputError, match="does not match"):
        clip_groups(["x/1"], "[a-w]")
    with pytest.raises(InputError, match="regular expression"):
        clip_groups(["x/1"], "(")


def test_splits_keep_speakers_together_and_meet_the_shares():
    groups = {f"s{i % 50}/{i:05d}": f"s{i % 50}" for i in range(1000)}
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    splits = split_groups(groups, shares, seed=1)
    assert sorted(sum(splits.values(), [])) == sorted(groups)
    speakers = {split: {groups[name] for name in names} for split, names in splits.items()}
    assert not speakers["train"] & speakers["val"] and not speakers["train"] & speakers["test"]
    assert {split: len(names) for split, names in splits.items()} == {
        "train": 800, "val": 100, "test": 100
    }  # fmt: skip
    assert splits == split_groups(dict(reversed(groups.items())), shares, seed=1)
    assert splits != split_groups(groups, shares, seed=2)


def test_no_split_is_empty_however_uneven_the_groups():
    groups = {f"big/{i}": "big" for i in range(98)} | {"b/0": "b", "c/0": "c"}
    splits = split_groups(groups, {"train": 0.9, "val": 0.05, "test": 0.05})
    assert len(splits["train"]) == 98 and len(splits["val"]) == len(splits["test"]) == 1
    with pytest.raises(InputError, match="2 speakers or sources cannot fill 3 splits"):
        split_groups({"a/0": "a", "b/0": "b"}, {"train": 0.9, "val": 0.05, "test": 0.05})


@pytest.mark.parametrize("text", ["train=0.9", "train=1.2,val=-0.2", "train", "x=1", "", "val=nan"])
def test_shares_that_make_no_sense(text):
    with pytest.raises(InputError, match="add up to 1"):
        parse_shares(text)


def test_filelists_are_what_training_reads(tmp_path):
    from hparams import get_image_list

    shares = parse_shares("train=0.9, val=0.1")
    assert shares == {"train": 0.9, "val": 0.1}
    write_filelists({"train": ["a/1", "b/1/000050"], "val": ["c/1"]}, str(tmp_path / "lists"))
    assert get_image_list("root", "train", str(tmp_path / "lists")) == [
        "root/a/1",
        "root/b/1/000050",
    ]
