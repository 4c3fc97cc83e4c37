import dataclasses

import pytest

from errors import InputError
from hparams import HParams, get_image_list, load_hparams, read_entries


def test_released_defaults():
    hp = HParams()
    released = dict(  # noqa: C408
        sample_rate=16000, n_fft=800, hop_size=200, win_size=800, num_mels=80, fmin=55, fmax=7600,
        preemphasis=0.97, min_level_db=-100, ref_level_db=20, max_abs_value=4.0, img_size=96,
        fps=25, batch_size=16, initial_learning_rate=1e-4, num_workers=16,
        checkpoint_interval=3000, eval_interval=3000, syncnet_wt=0.0, syncnet_batch_size=64,
        syncnet_lr=1e-4, syncnet_eval_interval=10000, syncnet_checkpoint_interval=10000,
        disc_wt=0.07, disc_initial_learning_rate=1e-4, nepochs=200000000000000000,
    )  # fmt: skip
    assert {name: getattr(hp, name) for name in released} == released


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HParams().batch_size = 1


def test_overrides_win_over_config_and_config_over_defaults(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("batch_size: 4\nsyncnet_lr: 1e-5\nexpert_batch_stats: true\n")
    hp = load_hparams(config, ["batch_size=8", "disc_wt=0"])
    assert (hp.batch_size, hp.syncnet_lr, hp.expert_batch_stats) == (8, 1e-5, True)
    assert (hp.disc_wt, type(hp.disc_wt)) == (0.0, float)
    assert hp.img_size == 96


def test_an_empty_value_is_an_empty_text(tmp_path):
    (tmp_path / "c.yaml").write_text("amp: bfloat16\n")
    assert load_hparams(tmp_path / "c.yaml", ["amp="]).amp == ""


def test_saved_file_gives_the_same_set(tmp_path):
    hp = load_hparams(None, ["batch_size=3", "syncnet_wt=0.03"])
    hp.save(tmp_path / "hparams.yaml")
    assert load_hparams(tmp_path / "hparams.yaml") == hp
    assert [path.name for path in tmp_path.iterdir()] == ["hparams.yaml"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("bath_size=3", "batch_size"),
        ("batch_size=many", "int"),
        ("batch_size=2.5", "int"),
        ("batch_size=true", "int"),
        ("batch_size=0", "at least 1"),
        ("batch_size=", "int"),
        ("seed=-1", "at least 0"),
        ("syncnet_lr=-1e-4", "at least 0"),
        ("ema=1", "below 1"),
        ("syncnet_lr=.nan", "float"),
        ("preemphasize=3", "bool"),
        ("batch_size", "key=value"),
        ("batch_size=[", "cannot be read"),
    ],
)
def test_bad_override_is_refused(override, words):
    with pytest.raises(InputError, match=words):
        load_hparams(None, [override])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just words"])
def test_bad_yaml_is_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="config"):
        load_hparams(tmp_path / "c.yaml")


def test_filelist_ignores_what_follows_a_space(tmp_path):
    (tmp_path / "val.txt").write_text("a/00001 MV0 x\n\nb/00002\n")
    assert get_image_list("root", "val", tmp_path) == ["root/a/00001", "root/b/00002"]


def test_filelist_shifts_and_names_with_spaces(tmp_path):
    (tmp_path / "data/my talks/the first").mkdir(parents=True)
    lines = ("a/1 +3", "a/2 -12", "a/3 12", "a/4 NF -1", "a/5+3", "a/6 +x", "my talks/the first",
             "my talks/the first +2", "my talks/second +2", "a/7\t+4 ")  # fmt: skip
    (tmp_path / "val.txt").write_text("\n".join(lines))
    entries = read_entries(tmp_path / "val.txt", tmp_path / "data")
    assert entries == [
        ("a/1", 3), ("a/2", -12), ("a/3", 0), ("a/4", -1), ("a/5+3", 0), ("a/6", 0),
        ("my talks/the first", 0), ("my talks/the first", 2), ("my", 2), ("a/7", 4),
    ]  # fmt: skip
    assert get_image_list("root", "val", tmp_path)[1] == "root/a/2"


def test_missing_and_empty_filelists_are_refused(tmp_path):
    with pytest.raises(InputError, match="'train' not found"):
        get_image_list("root", "train", tmp_path)
    (tmp_path / "val.txt").write_text("\n\n")
    with pytest.raises(InputError, match="names no clip"):
        get_image_list("root", "val", tmp_path)
