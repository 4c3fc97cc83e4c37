import shutil

import pytest
from conftest import assert_refused, run_script


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


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["--data_root", "x"], "--filelists"),
     (["--data_root", "/nowhere", "--filelists", "/nowhere"], "filelist")],
)  # fmt: skip
def test_bad_settings(argv, word):
    assert_refused(run_script("benchmark.py", "data", *argv), word)
