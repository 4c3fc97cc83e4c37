import cv2
import pytest
from conftest import assert_refused, run_script

from errors import InputError
from training.curves import plot_curves, read_metrics, worked_hours

LINES = """{"step": 1, "split": "train", "loss": 0.7}
{"step": 2, "split": "train", "loss": 0.6}
{"step": 2, "split": "val", "loss": 0.65, "auc": 0.5}
[1, 2]
{"step": 3, "split": "tra"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "expert").mkdir()
    (tmp_path / "expert/metrics.jsonl").write_text(LINES)
    return tmp_path / "expert"


def test_what_a_killed_run_left_is_read(run):
    assert [line["loss"] for line in read_metrics(str(run))] == [0.7, 0.6, 0.65]
    assert [line["loss"] for line in read_metrics(str(run), "val")] == [0.65]


def test_two_runs_in_one_picture(run, tmp_path):
    plot_curves({"a": str(run), "b": str(run)}, str(tmp_path / "two.png"))
    picture = cv2.imread(str(tmp_path / "two.png"))
    assert picture.shape[1] > 800 and picture.std() > 10  # two panels, and something in them
    result = run_script("-m", "evaluation.curves", run, "--hours", "--out", tmp_path / "one.png")
    assert result.returncode == 0 and (tmp_path / "one.png").exists(), result.stderr


def test_hours_are_those_of_work():
    seconds = [0, 36, 72, 108, 1e6, 1e6 + 36, 1e6 + 30]  # stopped for days, then a clock put back
    hours = worked_hours([{"time": 1e9 + x} for x in seconds])
    assert hours == pytest.approx([0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.05])
    assert worked_hours([{"time": 5.0}]) == [0]
    slow = [{"time": hour * 3600} for hour in range(4)]
    assert worked_hours(slow) == [0, 1, 2, 3]


def test_no_log(tmp_path, run):
    (run / "metrics.jsonl").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="no line of numbers"):
        read_metrics(str(run))
    result = run_script(
        "-m", "evaluation.curves", tmp_path / "nothing", "--out", tmp_path / "x.png"
    )
    assert_refused(result, "log", "metrics.jsonl")
    assert not (tmp_path / "x.png").exists()
