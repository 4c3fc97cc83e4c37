"""Speech as it arrives: the mel window of each video frame as soon as its sound is complete."""

from __future__ import annotations

import numpy as np

from audio import MEL_STEPS, melspectrogram, window_starts
from errors import InputError
from hparams import HParams

SAMPLE_RATE, HOP = HParams.sample_rate, HParams.hop_size
HALF = HParams.n_fft // 2
MARGIN = 3  # mel rows at either end of a piece whose padding and pre-emphasis are not the speech's


class SpeechStream:
    """Mel windows (80, 16), one a video frame, equal to audio.speech_chunks of the whole speech.

    `feed` gives back the windows that the sound so far completes: a frame's window ends LOOKAHEAD
    after the frame begins. `flush` continues the speech with silence and gives the rest, so that
    there are as many windows as speech_chunks has. Memory: the last window's sound.
    """

    # the window reaches 16 rows on from one training frame before its own, and half an FFT more
    LOOKAHEAD = (MEL_STEPS - 1) * HOP / SAMPLE_RATE - 1 / 25 + HALF / SAMPLE_RATE  # seconds

    def __init__(self, fps: float = 25.0) -> None:
        self.fps = fps
        self.samples = 0  # of speech so far
        self.windows = 0  # handed out
        lead = window_starts(1, fps)[1]
        self._wav = np.zeros(lead * HOP, np.float32)  # sound from row `_row` on
        self._row = 0
        self._lead = lead

    def feed(self, wav: np.ndarray) -> list[np.ndarray]:
        """Windows that the next samples (n,), float32 at 16 kHz, full scale 1, complete."""
        wav = np.asarray(wav, np.float32)
        if not np.isfinite(wav).all():
            raise InputError("the speech has samples that are not finite numbers")
        self._wav = np.concatenate([self._wav, wav])
        self.samples += len(wav)
        # the last row whose FFT needs no sample that is still to come
        complete = (self._lead * HOP + self.samples - HALF) // HOP
        return self._take(lambda start: start + MEL_STEPS - 1 <= complete)

    def flush(self) -> list[np.ndarray]:
        """The windows that are left when the speech has ended. Nothing can be fed afterwards."""
        total = max(1, round(self.samples / SAMPLE_RATE * self.fps)) if self.samples else 0
        if self.windows >= total:
            return []
        end = self._start(total - 1) + MEL_STEPS + 1  # rows
        missing = end * HOP - self._row * HOP - len(self._wav)
        self._wav = np.pad(self._wav, (0, max(0, missing)))
        return self._take(lambda start: self.windows < total)

    def _start(self, frame: int) -> int:
        return window_starts(1, self.fps, frame)[0][0]

    def _take(self, ready) -> list[np.ndarray]:
        starts = []
        first = self.windows
        while ready(self._start(self.windows)):
            starts.append(self._start(self.windows))
            self.windows += 1
        if not starts:
            return []
        base = max(0, starts[0] - MARGIN)
        last = starts[-1] + MEL_STEPS - 1
        # from `base` to half an FFT behind the last row, and one row more for the reflection
        piece = self._wav[(base - self._row) * HOP : (last - self._row) * HOP + HALF + HOP]
        mel = melspectrogram(piece)
        windows = [mel[:, start - base : start - base + MEL_STEPS] for start in starts]
        keep = max(0, self._start(self.windows) - MARGIN) - self._row
        self._wav, self._row = self._wav[keep * HOP :], self._row + keep
        assert len(windows) == self.windows - first
        return windows
