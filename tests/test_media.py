import os

import av
import cv2
import numpy as np
import pytest

from errors import InputError
from media import picture, read
from media.write import VideoWriter


@pytest.fixture
def frames():
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 4)
    return [np.roll(picture, 2 * i, axis=1) for i in range(30)]


def write(path, frames, fps=25, audio=None, rate=None):
    with VideoWriter(path, fps, audio, rate) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_timed(path, frames, times):
    """A video with any timestamps: frame i is shown at times[i] milliseconds."""
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "bgr0"
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format="bgr0")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def numbered(count, size=16):
    """Frames whose brightness is their number."""
    return [np.full((size, size, 3), i, np.uint8) for i in range(count)]


def seen(path, fps):
    return [int(frame[0, 0, 0]) for _, frame in read.iter_frames(path, fps)]


def test_lossless_output_is_exact(tmp_path, frames, tone):
    path = write(tmp_path / "a.mkv", frames, audio=tone, rate=16000)
    got = [frame for _, frame in read.iter_frames(path)]
    np.testing.assert_array_equal(got, frames)
    wav = read.load_audio(path)
    assert len(wav) == round(30 / 25 * 16000)
    np.testing.assert_allclose(wav[:16000], tone, atol=1e-4)
    assert (wav[16000:] == 0).all()  # the tone ends first: silence to the video's end


@pytest.mark.parametrize(("seconds", "rate"), [(0.3, 16000), (5.0, 44100), (1.2, 48000)])
def test_mp4_audio_and_video_last_the_same(tmp_path, frames, seconds, rate):
    sound = np.zeros(round(seconds * rate), np.float32)
    path = write(tmp_path / "a.mp4", frames, audio=sound, rate=rate)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        lengths = [float(stream.duration * stream.time_base) for stream in (video, audio)]
    assert lengths[0] == pytest.approx(1.2, abs=1e-3)
    assert abs(lengths[0] - lengths[1]) <= 1 / 25


def test_mp4_keeps_colours(tmp_path):
    colours = [(200, 60, 40), (40, 200, 60), (60, 40, 200), (128, 128, 128), (10, 240, 250)]
    for colour in colours:
        path = write(tmp_path / "a.mp4", [np.full((64, 64, 3), colour, np.uint8)] * 3)
        _, frame = next(read.iter_frames(path))
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), colour, atol=3)


def test_odd_sizes_gain_an_edge_pixel(tmp_path):
    path = write(tmp_path / "a.mp4", [np.full((33, 47, 3), 90, np.uint8)] * 2)
    info = read.probe(path)
    assert (info.width, info.height) == (48, 34)
    path = write(tmp_path / "a.mkv", [np.full((33, 47, 3), 90, np.uint8)] * 2)
    assert (read.probe(path).width, read.probe(path).height) == (47, 33)


def test_a_frame_of_another_size_is_scaled_to_the_first_one_s(tmp_path):
    frames = [
        np.full((*size, 3), level, np.uint8) for size, level in (((32, 48), 90), ((64, 20), 180))
    ]
    path = write(tmp_path / "a.mkv", frames)
    shown = [frame for _, frame in read.iter_frames(path)]
    assert [frame.shape for frame in shown] == [(32, 48, 3)] * 2
    assert [int(frame.mean()) for frame in shown] == [90, 180]


def test_what_a_killed_process_left_of_a_video_goes_what_is_being_written_stays(tmp_path):
    dead, living = (tmp_path / f".a.mkv.{pid}.part" for pid in (2**22 + 1, os.getppid()))
    other = tmp_path / f".b.mkv.{2**22 + 1}.part"  # beyond what Linux gives
    for path in (dead, living, other):
        path.touch()
    write(tmp_path / "a.mkv", [np.zeros((16, 16, 3), np.uint8)])
    assert {path.name for path in tmp_path.iterdir()} == {"a.mkv", living.name, other.name}


def test_variable_rate_is_resampled_by_timestamp(tmp_path):
    times = [0, 40, 80, 120, 400, 440, 480]  # frame 3 is held for 0.28 s
    expected = [int(np.argmin([abs(40 * k - t) for t in times])) for k in range(13)]
    for start in (0, 1370):  # seconds count from the first frame
        path = write_timed(tmp_path / "v.mkv", numbered(7), [start + time for time in times])
        assert seen(path, 25)[:13] == expected


@pytest.mark.parametrize("fps", [15, 23.976, 30, 50, 59.94])
def test_other_rates_keep_their_timing(tmp_path, fps):
    path = write(tmp_path / "a.mkv", numbered(round(fps * 2)), fps=fps)
    got = seen(path, 25)
    assert len(got) == pytest.approx(50, abs=1)
    for k, number in enumerate(got):
        assert abs(number / fps - k / 25) <= 0.5 / fps + 0.002


def test_same_rate_passes_every_frame_once(tmp_path):
    assert seen(write(tmp_path / "a.mkv", numbered(40)), 25) == list(range(40))


def test_rotation_is_honoured(tmp_path):
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:8] = 255  # a bright bar at the top
    path = write(tmp_path / "a.mp4", [np.rot90(upright, 1)] * 3)  # lying on its left side
    patch_matrix(path)
    info = read.probe(path)
    assert (info.width, info.height) == (32, 48)
    _, frame = next(read.iter_frames(path))
    assert frame[:6].mean() > 200 > 60 > frame[12:].mean()


def patch_matrix(path, turn=(0, 1, -1, 0)):
    """Write a display matrix (a, b, c, d), x' = ax + cy and y' = bx + dy, into the track header of
    an mp4, as phones do; 90 degrees clockwise.
    """
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags, times, reserved, layer
    a, b, c, d = (0x10000 * value for value in turn)
    matrix = (a, b, 0, c, d, 0, 0, 0, 0x40000000)
    data[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
    path.write_bytes(data)


def test_late_audio_is_aligned_to_the_first_frame(tmp_path, tone):
    from fractions import Fraction

    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 16, 16, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for i, frame in enumerate(numbered(25)):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format="bgr0")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(video.encode(picture))
        chunk = av.AudioFrame.from_ndarray(tone[None, :8000], format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = 16000, 4800, Fraction(1, 16000)  # 0.3 s
        container.mux(sound.encode(chunk))
        container.mux(sound.encode(None))
        container.mux(video.encode(None))
    wav = read.load_audio(path)
    assert np.abs(wav[:4780]).max() < 1e-3
    np.testing.assert_allclose(wav[4816:12000], tone[16:7200], atol=0.01)


def test_audio_is_resampled_and_mixed(tmp_path):
    time = np.arange(44100) / 44100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 300 * time), np.zeros(44100)]).astype(np.float32)
    path = write(tmp_path / "s.mkv", numbered(25), audio=stereo, rate=44100)
    assert read.audio_format(path) == (44100, 2)
    wav = read.load_audio(path)
    expected = 0.25 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    assert len(wav) == 16000
    np.testing.assert_allclose(wav[200:-200], expected[200:-200], atol=2e-3)


def test_nothing_partial_is_left_behind(tmp_path, frames):
    path = tmp_path / "a.mp4"
    with pytest.raises(RuntimeError), VideoWriter(path, 25) as writer:
        writer.write(frames[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no frame came"), VideoWriter(path, 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_finished_output_survives_a_failed_rerun(tmp_path, frames):
    path = write(tmp_path / "a.mkv", frames[:3])
    before = path.read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(path, 25) as writer:
        writer.write(frames[0])
        raise RuntimeError
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp3"])
def test_unknown_output_ending(tmp_path, name):
    with pytest.raises(InputError, match="ends in .mp4"):
        VideoWriter(tmp_path / name, 25)


@pytest.mark.parametrize(
    "content", [b"", b"just text, no video\n" * 50, b"\x00\x00\x00\x18ftypmp42"]
)
def test_files_that_are_no_media(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for reader in (read.probe, read.load_audio, lambda p: next(read.iter_frames(p))):
        with pytest.raises(InputError, match=r"a\.mp4"):
            reader(path)


def test_playlists_and_missing_files_are_refused(tmp_path, frames):
    write(tmp_path / "secret.mkv", frames[:2])
    playlist = tmp_path / "list.mp4"
    playlist.write_text("ffconcat version 1.0\nfile secret.mkv\n")
    with pytest.raises(InputError):
        read.probe(playlist)
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError):
        read.probe(playlist)
    with pytest.raises(InputError, match="not found"):
        read.probe(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="folder"):
        read.probe(tmp_path)


def test_truncated_file_gives_what_it_holds(tmp_path, frames):
    path = write(tmp_path / "a.mkv", frames)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    got = list(read.iter_frames(cut))
    assert 5 <= len(got) < 30


def test_video_without_sound_and_sound_without_video(tmp_path, frames, tone):
    from scipy.io import wavfile

    with pytest.raises(InputError, match="no audio track"):
        read.load_audio(write(tmp_path / "mute.mkv", frames[:3]))
    wavfile.write(tmp_path / "a.wav", 16000, tone)
    with pytest.raises(InputError, match="no video track"):
        read.probe(tmp_path / "a.wav")


def test_audio_that_is_not_finite(tmp_path, tone):
    from scipy.io import wavfile

    tone[100] = np.nan
    wavfile.write(tmp_path / "a.wav", 16000, tone)
    with pytest.raises(InputError, match="not finite"):
        read.load_audio(tmp_path / "a.wav")


def test_pictures_are_told_by_content(tmp_path, frames):
    cv2.imwrite(str(tmp_path / "p.png"), frames[0])
    odd_name = (tmp_path / "p.png").rename(tmp_path / "naïve 測試.mp4")
    assert picture.is_image(odd_name)
    np.testing.assert_array_equal(picture.read_image(odd_name), frames[0])
    assert not picture.is_image(write(tmp_path / "v.mkv", frames[:2]))
    broken = tmp_path / "b.png"
    broken.write_bytes(odd_name.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cannot be decoded.*b\.png"):
        picture.read_image(broken)
