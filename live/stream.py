"""A face that says what is fed to it, frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from errors import InputError, require_file
from face_detection.track import batched
from lipsync.engine import Painter, sample_speech
from lipsync.mark import draw_mark
from lipsync.options import Options
from live.speech import SAMPLE_RATE, SpeechStream
from models.shipped import SAMPLE_VOICE

MIN_FPS = 8  # below, a frame is longer than what is heard of its sound when it is drawn
AHEAD = 8  # frames of the face that are decoded ahead
AT_ONCE = 8  # frames that are drawn at once when many are due
# what needs the speech's end, another process, or the released program's frames
REFUSED = ("silence_gate", "enhance", "faithful", "drop_last")


class LipSyncStream:
    """A face that says what is fed to it; the frames are those of LipSync.run with this speech.

    face: a picture, encoded once, or a video, searched once, then decoded again as it is played
    over and over (pad "loop", "bounce", or "hold"). sample_rate: of the pcm. options: see Options.
    A LipSync whose backend is "auto" computes in int8 where its cache has such a network, as
    LipSync(int8=True) does in any case; int8_speech: a file with speech to check it on, else the
    sample's. A context manager: `close` ends the decoding thread. InputError where the face or an
    option cannot be used.
    """

    def __init__(
        self,
        lipsync,
        face: str,
        sample_rate: int = SAMPLE_RATE,
        int8_speech: str | None = None,
        **options,
    ) -> None:
        from audio import melspectrogram
        from lipsync.source import source_fps
        from media.picture import is_image
        from media.read import count_frames
        from media.streams import ahead

        opts = live_options(options)
        self.fps = source_fps(require_file(face, "face"), opts)
        count = 1 if is_image(face) or opts.static else count_frames(face, self.fps)
        self.source = lipsync.find(face, opts, count, live=True)
        backend = lipsync.backend
        if lipsync.draws_int8(live=True):
            speech = sample_speech(self.source.fps, int8_speech or SAMPLE_VOICE)
            backend = lipsync.int8_of(self.source, speech)
        self._painter = Painter(self.source, backend)
        self._speech, self._resampler = SpeechStream(self.fps), _Resampler(sample_rate)
        with contextlib.ExitStack() as stack:
            # no more than a few frames in memory, however large they are
            self._shown = stack.enter_context(ahead(self.source.endless(), AHEAD))
            # what is slow the first time must not be so during the speech
            melspectrogram(np.zeros(16 * 200, np.float32))
            backend.warm_up(self.source.still)
            if opts.mark:
                draw_mark(np.zeros((64, 64, 3), np.uint8), opts.mark)
            self._stack = stack.pop_all()

    def describe(self) -> str:
        """The engine that draws, and its precision."""
        return self._painter.backend.describe()

    def feed(self, pcm: np.ndarray) -> list[np.ndarray]:
        """The frames, uint8 BGR (H, W, 3), that the next sound completes.

        pcm: int16 or float32 (full scale 1), (n,) or (n, channels).
        """
        return self.draw(self.hear(pcm))

    def flush(self) -> list[np.ndarray]:
        """The frames that are left when the speech has ended."""
        return self.draw(self.end())

    def hear(self, pcm: np.ndarray) -> list[np.ndarray]:
        """The mel windows (80, 16) of the frames that the next sound completes, to be drawn."""
        return self._speech.feed(self._resampler.feed(as_float(pcm).mean(axis=1)))

    def end(self) -> list[np.ndarray]:
        """The mel windows of the frames that are left when the speech has ended."""
        return self._speech.feed(self._resampler.flush()) + self._speech.flush()

    def draw(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The next frames, with lips that say these mel windows."""
        frames = []
        for batch in batched(windows, AT_ONCE):
            shown = [(next(self._shown), mel) for mel in batch]
            frames += [self._painter.paste(*at, face) for at, face in self._painter.faces(shown)]
        return frames

    def skip(self) -> None:
        """The next frame is not drawn."""
        next(self._shown)

    def close(self) -> None:
        """Ends the decoding thread."""
        self._stack.close()

    def __enter__(self) -> LipSyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def live_options(options: dict) -> Options:
    """Options that a stream can keep; InputError for the others."""
    opts = Options(**options)
    for name in REFUSED:
        if getattr(opts, name) not in (None, False):
            raise InputError(f"--{name} is not possible in live mode: use inference.py")
    if opts.pad in ("trim", "stretch"):
        raise InputError(f"--pad {opts.pad} is not possible in live mode: the speech has no end")
    return opts


def as_float(pcm: np.ndarray) -> np.ndarray:
    """int16 or float32 sound, (n,) or (n, channels) -> float32 (n, channels), full scale 1."""
    pcm = np.asarray(pcm)
    if pcm.dtype not in (np.int16, np.float32) or pcm.ndim not in (1, 2):
        raise InputError(f"pcm is int16 or float32, (n,) or (n, channels), not {pcm.dtype}")
    wav = pcm if pcm.dtype == np.float32 else pcm.astype(np.float32) / 32768
    return wav[:, None] if wav.ndim == 1 else wav


class _Resampler:
    """Mono float32 (n,) at any rate to 16 kHz, piece by piece; 16 kHz passes untouched."""

    def __init__(self, rate: int) -> None:
        from media.read import Mixer

        if not 4000 <= rate <= 384000:
            raise InputError(f"sound at {rate} Hz cannot be speech: 4000 to 384000 Hz")
        self._rate, self._mixer = rate, Mixer(SAMPLE_RATE, 1)

    def feed(self, wav: np.ndarray) -> np.ndarray:
        import av

        if not len(wav):
            return wav
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wav[None]), "fltp", "mono")
        frame.sample_rate = self._rate
        return self._mixed(frame)

    def flush(self) -> np.ndarray:
        return self._mixed(None)

    def _mixed(self, frame) -> np.ndarray:
        return np.concatenate([np.zeros((1, 0), np.float32), *self._mixer.feed(frame)], axis=1)[0]
