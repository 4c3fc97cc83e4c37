"""The sandbox of test_readme.py: the paths that the README names, small and synthetic."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import GOLDEN, REPOSITORY, run_script


def write_speech(path: Path) -> None:
    """The golden speech, as a WAV or an MP3."""
    import av

    source = str(GOLDEN / "inference" / "speech.wav")
    with av.open(source) as wav, av.open(str(path), "w") as out:
        rate = wav.streams.audio[0].rate
        stream = out.add_stream("mp3" if path.suffix == ".mp3" else "pcm_s16le", rate=rate)
        for frame in wav.decode(audio=0):
            for piece in av.AudioResampler(stream.format, stream.layout, rate).resample(frame):
                out.mux(stream.encode(piece))
        out.mux(stream.encode(None))


def link_repository(root: Path) -> None:
    for path in REPOSITORY.iterdir():
        package = path.is_dir() and any(path.glob("__init__.py"))
        if path.suffix == ".py" or package or path.name in ("configs", "Makefile"):
            (root / path.name).symlink_to(path)


def write_inputs(root: Path, clips: Path) -> None:
    """Faces, voices and lists by the names that the pages use."""
    shutil.copy(clips / "s0000/00001.mp4", root / "me.mp4")
    shutil.copy(GOLDEN / "inference" / "face.png", root / "me.jpg")  # told by its content
    for name in ("speech.wav", "speech.mp3"):
        write_speech(root / name)
    (root / "jobs.csv").write_text(
        "face,audio,outfile,pads\nme.mp4,speech.mp3,out/one.mp4,\nme.jpg,speech.wav,out/two.mp4,"
        "0 20 0 0\n"
    )
    (root / "my_videos").mkdir()
    for number in (1, 2):
        shutil.copy(clips / f"s0000/0000{number}.mp4", root / f"my_videos/talk{number}.mp4")
    for name in ("videos", "CLIPS"):
        (root / name).symlink_to(clips)
    (root / "LIST").write_text("s0001/00001 s0000/00001\ns0000/00001 s0001/00001\n")
    (root / "dubbed.txt").write_text("s0000/00001.mp4\n")
    (root / "results").mkdir()


def write_weights(root: Path, generator: Path) -> None:
    """Under every name that the pages use: a generator, and an expert by the same golden rule."""
    import torch
    from fill import fill

    from models import create_model
    from models.checkpoint import describe_model, save_checkpoint

    model = fill(create_model("SyncNet_color", 0.125))
    for name in ("checkpoints/lipsync_expert", "checkpoints/expert/best",
                 "data/demo/checkpoints/expert/checkpoint_step000000700"):  # fmt: skip
        content = {"state_dict": model.state_dict(), "model": describe_model(model)}
        save_checkpoint(root / f"{name}.pth", content)
    made = torch.load(generator, weights_only=True)
    for name in ("checkpoints/wav2lip", "checkpoints/wav2lip_gan",
                 "data/demo/checkpoints/wav2lip/checkpoint_step000000850"):  # fmt: skip
        save_checkpoint(root / f"{name}.pth", made)


def build(root: Path, generator: Path) -> None:
    """Fill a folder, so that the paths of the pages exist there."""
    from synthetic.corpus import write_corpus

    write_corpus(root, speakers=3, clips_per_speaker=2, seconds=1.6, size=160, workers=1)
    clips, demo = root / "mvlrs_v1" / "main", root / "data" / "demo"
    link_repository(root)
    write_inputs(root, clips)
    write_weights(root, generator)
    result = run_script(
        "preprocess.py", "--data_root", "mvlrs_v1", "--preprocessed_root", "prepared",
        "--ngpu", 0, "--workers", 1, "--detector", "boxes", cwd=root,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    shutil.copytree(root / "prepared", root / "lrs2_preprocessed")
    (demo / "corpus/filelists").mkdir(parents=True)
    for split, speaker, alias in (
        ("train", "s0000", "s0017"), ("val", "s0001", "s0018"), ("test", "s0002", "s0019")
    ):  # fmt: skip
        shutil.copytree(clips / speaker, demo / "corpus/mvlrs_v1/main" / alias)
        shutil.copytree(root / "prepared" / speaker, demo / "preprocessed" / alias)
        lines = f"{alias}/00001\n{alias}/00002\n"
        (demo / f"corpus/filelists/{split}.txt").write_text(lines)
