"""What a result says of itself: its container's metadata, and the mark in its frames."""

from __future__ import annotations

import io

import av
import av.logging
import numpy as np
import pytest
from conftest import GOLDEN, assert_refused, run_script

from errors import InputError
from inference import get_args_parser
from lipsync.engine import LipSync
from lipsync.jobs import read_manifest
from lipsync.mark import check_mark, draw_mark
from lipsync.options import options_from
from live.output import ContainerSink, create_sink
from live.stream import LipSyncStream
from media.read import iter_frames, load_audio
from media.write import SYNTHETIC, VideoWriter

FOLDER = GOLDEN / "inference"
FACE, VIDEO, SPEECH = (str(FOLDER / name) for name in ("face.png", "face25.mkv", "speech.wav"))
BOX, PICTURE_BOX = (30, 170, 40, 150), (40, 200, 60, 190)
TERM = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, device="cpu", backend="torch")


def tags(path) -> dict[str, str]:
    """The container's, their names in lower case: Matroska has them in capitals."""
    with av.open(str(path)) as container:
        return {name.lower(): text for name, text in container.metadata.items()}


def pixels(path) -> np.ndarray:
    return np.stack([frame for _, frame in iter_frames(str(path))])


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
def test_every_result_says_that_it_is_synthetic(lipsync, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    lipsync.run(FACE, SPEECH, str(out), box=PICTURE_BOX, faithful=suffix == ".mkv")
    assert tags(out)["comment"] == SYNTHETIC
    assert SYNTHETIC.startswith("Synthetic video") and SYNTHETIC.endswith(TERM)


def test_nothing_is_copied_from_the_source(lipsync, tmp_path):
    face, out = tmp_path / "face.mp4", tmp_path / "out.mp4"
    with av.open(VIDEO) as source, av.open(str(face), "w") as copy:
        copy.metadata.update(title="Jo at home", comment="not synthetic", location="+52.5+013.4/")
        stream = copy.add_stream("libx264", rate=25)
        size = source.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for frame in source.decode(video=0):
            frame.pts = None
            copy.mux(stream.encode(frame))
        copy.mux(stream.encode(None))
    assert tags(face)["title"] == "Jo at home"
    lipsync.run(str(face), SPEECH, str(out), box=BOX)
    found = tags(out)
    assert found.pop("comment") == SYNTHETIC
    assert "Jo" not in str(found) and "52.5" not in str(found)


def test_other_videos_of_the_writer_do_not_say_so(tmp_path):
    with VideoWriter(tmp_path / "real.mp4", 25) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert "comment" not in tags(tmp_path / "real.mp4")


def fill_sink(sink) -> None:
    with sink:
        for _ in range(5):
            sink.sound(np.zeros((640, 1), np.float32))
            sink.frame(np.zeros((32, 32, 3), np.uint8))


class Memory(io.BytesIO):
    """A pipe whose reader keeps everything."""

    gone = False

    def check(self) -> None:
        pass


def test_live_results_say_so_too(tmp_path):
    path = tmp_path / "live.mp4"
    fill_sink(create_sink(str(path), "mpegts", 25, 16000, 1))
    assert tags(path)["comment"] == SYNTHETIC
    path, pipe = tmp_path / "live.mkv", Memory()
    fill_sink(ContainerSink(pipe, "mkv", 25, 16000, 1))
    path.write_bytes(pipe.getvalue())
    assert tags(path)["comment"] == SYNTHETIC


def test_a_transport_stream_says_so_in_the_name_of_its_service():
    """It has no comments. PyAV tells a program's metadata only in this text."""
    pipe, level = Memory(), av.logging.get_level()
    fill_sink(ContainerSink(pipe, "mpegts", 25, 16000, 1))
    av.logging.set_level(av.logging.INFO)
    try:
        with av.open(io.BytesIO(pipe.getvalue())) as stream:
            assert f": {SYNTHETIC}\n" in stream.dumps_format()
    finally:
        av.logging.set_level(level)


SIZES = [(32, 32), (33, 47), (97, 131), (360, 640), (641, 361)]


@pytest.mark.parametrize("background", [0, 128, 255])
@pytest.mark.parametrize("size", SIZES)
def test_the_mark_stays_in_its_corner(size, background):
    height, width = size
    frame = np.full((height, width, 3), background, np.uint8)
    draw_mark(frame, "AI")
    rows, columns = np.nonzero((frame != background).any(axis=2))
    letters = max(9, round(0.04 * height))
    assert rows.min() >= height - 1.6 * letters and columns.min() >= width - 2.6 * letters
    assert height - 1 - rows.max() >= round(0.02 * height)
    assert frame[rows, columns].max() > 200 or background == 255
    assert frame[rows, columns].min() < 60 or background == 0  # white with a dark rim


def test_a_long_mark_shrinks_to_the_frame():
    for width in (1, 32, 64, 640):
        frame = np.full((240, width, 3), 90, np.uint8)
        draw_mark(frame, "lips redrawn by a machine, not said by this person")
        rows, columns = np.nonzero((frame != 90).any(axis=2))
        assert len(rows) and rows.min() > 180
        assert width < 640 or columns.min() > 200


@pytest.mark.parametrize("text", ["généré par IA", "создано ИИ", "Συνθετικό", "مولّد"])
def test_other_alphabets(text):
    frame = np.zeros((240, 320, 3), np.uint8)
    draw_mark(frame, text)
    assert frame.max() > 200


@pytest.mark.parametrize(
    ("text", "reason"), [("AI 合成", "合成"), ("a\nb", r"\\n"), (" ", "letters")]
)
def test_what_cannot_be_drawn_is_refused(text, reason):
    for draw in (check_mark, lambda text: draw_mark(np.zeros((64, 64, 3), np.uint8), text)):
        with pytest.raises(InputError, match=reason):
            draw(text)


def test_flag_refused(tmp_path):
    result = run_script(
        "inference.py", "--checkpoint_path", "x", "--face", FACE, "--audio", SPEECH,
        "--outfile", tmp_path / "out.mp4", "--mark", "合成",
    )  # fmt: skip
    assert result.returncode == 2 and "合成" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("faithful", [False, True])
def test_all_frames_are_marked_and_nothing_else_changes(lipsync, tmp_path, faithful):
    results = []
    for number, mark in enumerate((None, "AI generated")):
        out = tmp_path / f"{number}.mkv"
        lipsync.run(VIDEO, SPEECH, str(out), box=BOX, faithful=faithful, mark=mark)
        results.append(pixels(out))
    plain, marked = results
    expected = plain.copy()
    for frame in expected:
        draw_mark(frame, "AI generated")
    assert (marked == expected).all()
    assert (plain != marked).any(axis=(1, 2, 3)).all()


def test_live_frames_are_marked(lipsync):
    results = []
    for mark in (None, "AI generated"):
        with LipSyncStream(lipsync, FACE, box=PICTURE_BOX, mark=mark) as stream:
            results.append(stream.feed(load_audio(SPEECH)) + stream.flush())
    for plain, marked in zip(*results, strict=True):
        draw_mark(plain, "AI generated")
        assert (plain == marked).all()


def test_a_manifest_has_a_column_for_it(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("face,audio,outfile,mark\na.mp4,b.wav,c.mp4,AI generated\nd.mp4,b.wav,e.mp4,\n")
    args = get_args_parser().parse_args(["--checkpoint_path", "x", "--manifest", str(path)])
    assert [job.options["mark"] for job in read_manifest(args, options_from(args))] == [
        "AI generated",
        None,
    ]
    path.write_text("face,audio,outfile,mark\na.mp4,b.wav,c.mp4,合成\n")
    assert_refused(
        run_script("inference.py", "--checkpoint_path", "x", "--manifest", path), "line 2", "mark"
    )
