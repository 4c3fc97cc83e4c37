"""What the doctor's findings mean and what to do about them: code -> (why it matters, what to do).

{root} is the preprocessed root, {expert} the checkpoint of a lip-sync expert.
"""

CORRECT = "python preprocess.py --preprocessed_root {root} --correct_sync --expert {expert}"
ASK = "python preprocess.py --preprocessed_root {root} --doctor --expert {expert}"
SPLIT = (
    "python preprocess.py --preprocessed_root {root} --make_filelists train=0.9,val=0.05,test=0.05"
)
TUNE = (
    "fine-tune the released models: python wav2lip_train.py --config configs/finetune.yaml "
    "--data_root {root} --checkpoint_path checkpoints/wav2lip.pth "
    "--checkpoint_dir checkpoints/mine --syncnet_checkpoint_path checkpoints/lipsync_expert.pth"
)
AGAIN = "delete these folders (doctor.json names them) and run preprocess.py again"
BY_HEART = "the validation then measures what was learned by heart"

WORDS = {
    # files
    "unusable": ("training leaves them out", AGAIN),
    "damaged": (
        "a window of a damaged crop is replaced; a mel of other sound teaches what is wrong",
        AGAIN,
    ),
    "fps": (
        "a window pairs 5 frames with 0.2 s of sound: at another rate they drift apart",
        "preprocess the videos again: preprocess.py makes 25 frames a second of any rate",
    ),
    # sync
    "out_of_sync": (
        "the expert is told that lips and sound belong together where they do not, and stays at "
        "chance (loss 0.69)",
        CORRECT,
    ),
    "unsure": (
        "either it is not the voice of that face (voice-over, dubbing, music), or the expert is "
        "too weak to tell",
        "try SyncNet v2 or lipsync_expert.pth; look at clips of low confidence in doctor.json; "
        "--correct_sync leaves them out",
    ),
    "in_sync": ("this is what the expert's training needs", "nothing"),
    "sync_unknown": ("nothing else decides so often whether an expert converges", ASK),
    "hint_out_of_sync": (
        "an expert that is trained on this stays at chance (loss 0.69)",
        "make sure: " + ASK + "; then " + CORRECT,
    ),
    "hint_in_sync": ("a hint says nothing about single clips", "make sure: " + ASK),
    "sync_sample": ("the shares are known to a few percent", "ask about every clip: " + CORRECT),
    # amount
    "one_speaker": (
        "an expert from scratch learns one face and voice by heart and stays at chance on others",
        TUNE,
    ),
    "trial": (
        "enough to try the programs with small models (configs/tiny_cpu.yaml), not to train the "
        "full ones",
        "for more than a trial, " + TUNE,
    ),
    "small": ("an expert from scratch learns so little by heart before it learns to listen", TUNE),
    "few_speakers": (
        "what is trained on few speakers fails on others, and so does its validation",
        "add speakers, or " + TUNE,
    ),
    "one_sided": (
        "an epoch takes a window of each clip: most are of this one speaker",
        "leave some of these clips out of train.txt",
    ),
    "short_clips": (
        "the expert is told that these are out of sync, though nobody could see it, and its loss "
        "stays high",
        "prefer longer clips: preprocess.py --min_seconds 2",
    ),
    # sound
    "silence": (
        "silence fits any closed mouth: it teaches no sync",
        "leave these clips out (silence_share in doctor.json)",
    ),
    "clipped": ("the distortion fills all mel bands", "take recordings with less gain"),
    "quiet": ("soft sounds fall below the spectrogram's floor", "amplify, preprocess again"),
    "dc": ("a fault of the recording, heard in the lowest mel bands", "high-pass it at 50 Hz"),
    "sound_short": (
        "the last frames have no sound; often a sign of sound that is out of sync",
        "look at the source videos",
    ),
    # faces and pictures
    "faceless": (
        "a window needs 5 faces in a row",
        "try --detector sfd, or leave such videos out",
    ),
    "jumping": (
        "another's lips come under the same voice, or a wall was taken for a face",
        "preprocess with --split on, which cuts where a face is lost",
    ),
    "crowded": ("the voice may be another's", "--correct_sync drops clips whose lips fit no voice"),
    "small_face": ("blown up to 96 x 96 they show no lips", "take larger sources"),
    "blurred": ("the generator learns to blur", "leave them out (sharpness in doctor.json)"),
    "dark": ("lips hardly differ from skin", "lighten them, or leave them out"),
    "bright": ("lips hardly differ from skin", "darken them, or leave them out"),
    "burnt_out": ("there is nothing to see in it", "leave them out"),
    "still": ("lips that never move fit no speech", "leave them out (change in doctor.json)"),
    # copies and lists
    "same_sound": ("copies count double", "keep one of each (copies in doctor.json)"),
    "same_picture": (
        "copies count double; where their sound differs, one is dubbed",
        "keep one of each (copies in doctor.json)",
    ),
    "same_source": ("copies count double", "keep one of each (copies in doctor.json)"),
    "no_filelists": ("training needs train.txt and val.txt, of different speakers", SPLIT),
    "leak": (BY_HEART, SPLIT),
    "copies_leak": (BY_HEART, "keep one of each (copies_in_two in doctor.json)"),
    "missing": ("training leaves them out", "preprocess these, or " + SPLIT),
    "dropped_listed": (
        "they are out of sync beyond repair",
        "train with the filelists that --correct_sync wrote",
    ),
    "examined": ("copies among the rest are not found", "run without --max_clips"),
}
