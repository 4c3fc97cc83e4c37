"""The helpers that forks of the released program import, used as they use them."""

import numpy as np
from conftest import GOLDEN


def test_a_fork_s_script_runs(tmp_path, monkeypatch):
    import cv2
    import torch

    import audio
    import face_detection
    import models
    from hparams import get_image_list, hparams
    from models import SyncNet_color as SyncNet
    from models import Wav2Lip, Wav2Lip_disc_qual

    wav = audio.load_wav(str(GOLDEN / "inference/speech.wav"), hparams.sample_rate)
    audio.save_wav(wav, str(tmp_path / "temp.wav"), hparams.sample_rate)
    mel = audio.melspectrogram(audio.load_wav(tmp_path / "temp.wav", 16000))
    assert mel.shape == (hparams.num_mels, len(wav) // hparams.hop_size + 1)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "filelists").mkdir()
    (tmp_path / "filelists/train.txt").write_text("dir/video 12\n")
    assert get_image_list("root", "train") == ["root/dir/video"]

    detector = face_detection.FaceAlignment(
        face_detection.LandmarksType._2D, flip_input=False, device="cpu",
        face_detector="centerface",  # the released default, sfd, needs its weights
    )  # fmt: skip
    face = cv2.imread(str(GOLDEN / "inference/face.png"))
    (x1, y1, x2, y2), nothing = detector.get_detections_for_batch(
        np.array([face, np.full_like(face, 120)])
    )
    assert 0 <= x1 < x2 <= 256 and 0 <= y1 < y2 <= 256 and nothing is None
    assert all(type(number) is int for number in (x1, y1, x2, y2))

    with torch.no_grad():
        faces, mels = torch.zeros(1, 6, 96, 96), torch.zeros(1, 1, 80, 16)
        assert Wav2Lip().eval()(mels, faces).shape == (1, 3, 96, 96)
        assert models.Wav2Lip is Wav2Lip
        assert Wav2Lip_disc_qual().eval()(torch.zeros(1, 3, 5, 96, 96)).shape == (5, 1)
        sound, lips = SyncNet().eval()(mels, torch.zeros(1, 15, 48, 96))
        assert sound.shape == lips.shape == (1, 512)
