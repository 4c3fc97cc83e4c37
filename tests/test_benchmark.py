import json
import os
import shutil

import pytest
from conftest import assert_refused, run_script

import benchmark
from benchmarks.common import OutOfMemory, apart


def table(text):
    """Row name -> its cells, of a Markdown table."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_data_on_synthetic_clips():
    result = run_script("benchmark.py", "data", "--seconds", 0.05, "--clips", 1)
    assert result.returncode == 0, result.stderr
    rows = table(result.stdout)
    assert list(rows)[2:] == [
        "generator",
        "generator, released way",
        "expert",
    ]
    for name in list(rows)[2:]:
        alone, loaded, proportional, own = map(float, rows[name])
        assert min(alone, loaded) > 0 and proportional > own > 0, name
    assert " cores" in result.stdout.splitlines()[0]


def test_data_on_own_clips_shows_what_is_there(preprocessed_root, synthetic_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(preprocessed_root, root)
    for path in root.rglob("audio.wav"):  # the released way needs it
        path.unlink()
    before = sorted(root.rglob("*"))
    result = run_script(
        "benchmark.py", "data", "--data_root", root, "--filelists", synthetic_root / "filelists",
        "--seconds", 0.05,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert list(table(result.stdout))[2:] == ["generator", "expert"]
    assert sorted(root.rglob("*")) == before


def test_train_by_way_and_batch(tmp_path, monkeypatch, capsys):
    """In this process, which has loaded torch already."""
    measured = []

    def here(work, args, hp, training, way, batch):
        measured.append((hp.width, training, way, batch))
        if way == "channels_last":
            raise OutOfMemory("too large")
        return work(args, hp, training, way, batch)

    monkeypatch.setattr("benchmarks.train.apart", here)
    benchmark.main(benchmark.get_args_parser().parse_args(
        ["train", "--clips", "1", "--hparams", "width=0.125", "--batches", "2", "--steps", "1",
         "--ways", "float32", "channels_last", "bfloat16+channels_last", "--device", "cpu",
         "--json", str(tmp_path / "report.json")]
    ))  # fmt: skip
    out, err = capsys.readouterr()
    assert "left out: expert, channels_last, batch 2: too large" in err
    rows = json.loads((tmp_path / "report.json").read_text())["train"]
    assert [(row["training"], row["way"]) for row in rows] == [
        (training, way)
        for training in ("expert", "generator")
        for way in ("float32", "bfloat16+channels_last")
    ]
    assert len(measured) == 6 and {width for width, *_ in measured} == {0.125}
    for row in rows:
        assert row["samples_per_second"] == pytest.approx(2 / row["step_seconds"])
        assert 0 <= row["wait"] < 1 and row["memory_gib"] > 0
        assert row["speedup"] == 1 or row["way"] != "float32"
    assert "| generator, bfloat16+channels_last |" in out


def test_a_process_of_its_own_that_is_killed():
    assert apart(os.path.join, "a", "b") == os.path.join("a", "b")
    with pytest.raises(OutOfMemory, match="was killed"):
        apart(os._exit, 1)


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["data", "--data_root", "x"], "--filelists"),
     (["data", "--data_root", "/nowhere", "--filelists", "/nowhere"], "filelist"),
     (["train", "--data_root", "x"], "--filelists"),
     (["train", "--hparams", "widht=1"], "width")],
)  # fmt: skip
def test_bad_settings(argv, word):
    assert_refused(run_script("benchmark.py", *argv), word)
