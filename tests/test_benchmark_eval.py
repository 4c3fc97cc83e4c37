import json

import pytest
from conftest import assert_refused, run_script

import benchmark
from benchmarks import evaluation as benchmark_eval
from benchmarks.evaluation import FID, FID_DISTANCE, as_rows, find_files
from errors import InputError
from models import create_model
from models.checkpoint import describe_model, save_checkpoint


def parse(*argv):
    return benchmark.get_args_parser().parse_args(["eval", *map(str, argv)])


@pytest.fixture(autouse=True)
def no_weights_around(monkeypatch, tmp_path):
    from models import pretrained

    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path / "checkpoints")


def tiny(folder, name):
    model = create_model(name, width=0.125)
    path = folder / f"{name}.pth"
    save_checkpoint(path, {"state_dict": model.state_dict(), "model": describe_model(model)})
    return path


def test_metrics_whose_weights_are_named(tmp_path, synthetic_root, capsys):
    video, report = next(synthetic_root.glob("mvlrs_v1/main/*/*.mp4")), tmp_path / "report.json"
    expert, generator = tiny(tmp_path, "SyncNet_color"), tiny(tmp_path, "Wav2Lip")
    benchmark.main(
        parse("--videos", video, "--expert", expert, "--checkpoint_path", generator,
              "--device", "cpu", "--json", report)
    )  # fmt: skip
    found, out = json.loads(report.read_text()), capsys.readouterr().out
    rows = {row["metric"]: row for row in found["metrics"]}
    quality = "PSNR, SSIM, mouth, temporal"
    assert set(rows) == {"sync by expert, lrs", quality, f"{quality}; LSD", "generation"}
    assert rows[quality]["weights"] == "none needed"
    assert rows["generation"]["weights"] == "given"
    for row in rows.values():
        assert row["seconds_per_minute"] == pytest.approx(row["seconds"] * 60 / 2)
    assert found["settings"]["video_seconds"] == pytest.approx(2)
    assert found["fid_distance_seconds"] is None
    assert "left out: LSE, protocol lrs: no weights (--syncnet_weights)" in out
    assert "identity: no weights (--sface_weights, never random)" in out
    assert len(found["left_out"]) == 5


def test_random_weights_are_those_networks(tmp_path):
    from evaluation.inception import load_inception
    from evaluation.quality_networks import load_lpips
    from experts.offset import load_expert

    files, drawn = find_files(parse("--random_weights"), tmp_path)
    assert drawn == set(files) == {"syncnet", "expert", "inception", "lpips", "generator"}
    assert load_expert(files["syncnet"], "cpu").kind == "SyncNet_v2"
    assert load_expert(files["expert"], "cpu").kind == "SyncNet_color"
    load_inception(files["inception"])  # each refuses any other network
    load_lpips(files["lpips"], "cpu")


def test_a_named_file_is_not_replaced_by_random_weights(tmp_path, monkeypatch):
    for make in ("random_inception", "random_alexnet"):
        monkeypatch.setattr(benchmark_eval, make, lambda path: None)
    monkeypatch.setattr(benchmark_eval, "random_checkpoint", lambda path, name: None)
    expert = tiny(tmp_path, "SyncNet_color")
    files, drawn = find_files(parse("--random_weights", "--expert", expert), tmp_path)
    assert files["expert"] == str(expert) and "expert" not in drawn


def test_fid_is_of_one_side_without_the_distance():
    took = {(FID, "inception"): 13.0, (FID_DISTANCE, "inception"): 3.0, ("psnr", None): 4.0}
    fid, psnr = as_rows(took, minutes=0.5, drawn={"inception"})
    assert (fid["seconds"], fid["seconds_per_minute"], fid["weights"]) == (5.0, 10.0, "random")
    assert (psnr["seconds_per_minute"], psnr["weights"]) == (8.0, "none needed")


def test_no_weights_at_all():
    with pytest.raises(InputError, match="--random_weights"):
        benchmark.main(parse())


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["--expert", "/no.pth"], "/no.pth"), (["--json", "/no/where.json"], "/no/where")],
)  # fmt: skip
def test_bad_settings(argv, word):
    assert_refused(run_script("benchmark.py", "eval", *argv), word)
