"""Speech as it arrives: the mel window of each video frame as soon as its sound is complete."""

from __future__ import annotations

import numpy as np

from audio import MEL_STEPS, melspectrogram, window_starts
from errors import InputError
from hparams import HParams

SAMPLE_RATE, HOP = HParams.sample_rate, HParams.hop_size
HALF = HParams.n_fft // 2
MARGIN = 3  # mel rows that a piece begins earlier: its padding and pre-emphasis reach 2 of them


class SpeechStream:
    """Mel windows (80, 16), one a video frame, equal to audio.speech_chunks of the whole speech.

    `feed` gives back the windows that the sound so far completes: a frame's window ends at most
    LOOKAHEAD after the frame begins. `flush` continues the speech with silence and gives the rest,
    so that there are as many windows as speech_chunks has; none for no speech at all. Memory: the
    last window's sound.
    """

    # the window reaches 16 rows on from one training frame before its own, and half an FFT more
    LOOKAHEAD = (MEL_STEPS - 1) * HOP / SAMPLE_RATE - 1 / 25 + HALF / SAMPLE_RATE  # seconds

    def __init__(self, fps: float = 25.0) -> None:
        self.fps = fps
        self.samples = 0  # of speech so far
        self.windows = 0  # handed out
        self._lead = window_starts(1, fps)[1]  # rows of silence before the speech
        self._wav = np.zeros(self._lead * HOP, np.float32)  # sound from row `_row` on
        self._row = 0

    def feed(self, wav: np.ndarray) -> list[np.ndarray]:
        """Windows that the next samples (n,), float32 at 16 kHz, full scale 1, complete.

        InputError where a sample is not a finite number.
        """
        wav = np.asarray(wav, np.float32)
        if not np.isfinite(wav).all():
            raise InputError("the speech has samples that are not finite numbers")
        self._wav = np.concatenate([self._wav, wav])
        self.samples += len(wav)
        # rows whose FFT needs no sample that is still to come
        complete = (self._lead * HOP + self.samples - HALF) // HOP + 1
        return self._take(complete)

    def flush(self) -> list[np.ndarray]:
        """The windows that are left when the speech has ended. Nothing can be fed afterwards."""
        rows = self._start(self._total() - 1) + MEL_STEPS
        missing = (rows + 1 - self._row) * HOP - len(self._wav)  # half an FFT behind the last row
        self._wav = np.pad(self._wav, (0, max(0, missing)))
        return self._take(rows)

    def _total(self) -> int:
        """How many windows the speech so far has, as in speech_chunks."""
        return max(1, round(self.samples / SAMPLE_RATE * self.fps)) if self.samples else 0

    def _start(self, frame: int) -> int:
        return window_starts(1, self.fps, frame)[0][0]

    def _take(self, rows: int) -> list[np.ndarray]:
        """The next windows that end within the first `rows` rows."""
        starts = []
        while self.windows < self._total() and self._start(self.windows) + MEL_STEPS <= rows:
            starts.append(self._start(self.windows))
            self.windows += 1
        if not starts:
            return []
        base = max(0, starts[0] - MARGIN)
        last = starts[-1] + MEL_STEPS - 1
        mel = melspectrogram(self._wav[(base - self._row) * HOP : (last - self._row) * HOP + HALF])
        # below about 4 frames a second the next window may begin where no sound is yet
        keep = max(0, self._start(self.windows) - MARGIN) - self._row
        keep = min(keep, len(self._wav) // HOP)
        self._wav, self._row = self._wav[keep * HOP :], self._row + keep
        return [mel[:, start - base : start - base + MEL_STEPS] for start in starts]
