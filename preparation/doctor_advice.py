"""From the doctor's numbers to findings in plain words, the most serious first, and one verdict.

"stop" keeps an expert that is trained from scratch from converging, or makes its scores worthless;
"warn" costs quality; "note" is good to know. Their explanations are in doctor_words.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from preparation.doctor_words import WORDS

LEVELS = ("stop", "warn", "note")
# LRS2's training split, 29 hours of thousands of speakers, takes the expert 150,000 steps to leave
# chance. A sixth of it is learned by heart in that time.
SMALL_HOURS = 5.0
TRIAL_HOURS = 0.25  # nothing but small models and synthetic faces learns from so little
FEW_SPEAKERS = 20  # are learned by heart, too
MOST, MANY, SOME, FEW = 0.5, 0.2, 0.05, 0.01  # shares of the clips
IN_SYNC = 0.8  # share of the clips that should be
FAR = 3  # frames; a hint is good to one or two
# Share of the expert's wrong pairs that are off by 2 frames or less. Clips of LRS2's mean length,
# 2.3 s, have 0.07; clips of 1.2 s have 0.15.
NEAR_NEGATIVES = 0.10
SILENCE = 0.4  # of the time; news and read sentences have up to 0.3

# Tests of doctor_corpus.TESTS that make a warning: code, least share of the clips, what was seen
WARNINGS = (
    ("clipped", SOME, "the sound is clipped in {} of the clips"),
    ("quiet", MANY, "speech is below -40 dBFS in {} of the clips"),
    ("dc", SOME, "the wave does not swing about zero in {} of the clips"),
    ("sound_short", SOME, "the sound ends before the picture in {} of the clips"),
    ("faceless", SOME, "a tenth of the frames or more show no face in {} of the clips"),
    ("jumping", SOME, "the box of the face leaps in {} of the clips"),
    ("crowded", MANY, "other people are in the picture in {} of the clips"),
    ("small_face", SOME, "the face is smaller than 48 pixels in {} of the clips"),
    ("blurred", SOME, "{} of the clips are blurred"),
    ("dark", SOME, "{} of the clips are dark"),
    ("bright", SOME, "{} of the clips are bright"),
    ("burnt_out", SOME, "a tenth of the picture is white in {} of the clips"),
    ("still", FEW, "{} of the clips are still pictures"),
)


@dataclass(frozen=True)
class Finding:
    """seen: what was measured; why it matters; do: what to do about it; verdict: the last line of
    the page where nothing is worse, "" for what a training can live with.
    """

    level: str
    code: str
    seen: str
    why: str
    do: str
    verdict: str = ""


def advise(summary: dict, root: str, expert: str | None = None) -> list[Finding]:
    """The findings, worst first, for doctor_corpus.summarise's numbers with "sync" and "hint".

    root, expert: paths for the commands.
    """
    paths = {"{root}": shlex.quote(root), "{expert}": shlex.quote(expert) if expert else "E"}
    parts = (_usable, _sync, _amount, _tests, _copies, _filelists)
    found = []
    for level, code, seen, *verdict in (entry for part in parts for entry in part(summary)):
        why, do = WORDS[code]
        for place, path in paths.items():
            do = do.replace(place, path)
        # only what is serious enough speaks the verdict
        found.append(Finding(level, code, seen, why, do, *(verdict if level != "note" else ())))
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def verdict(findings: list[Finding]) -> str:
    """One line: the worst finding's word, or that all is well."""
    spoken = next((finding.verdict for finding in findings if finding.verdict), None)
    if spoken is None:
        warned = any(finding.level == "warn" for finding in findings)
        spoken = "ready to train" + (", better so after the warnings" if warned else "")
        if any(finding.code == "sync_unknown" for finding in findings):
            spoken += "; first ask an expert whether lips and sound are in sync"
    return f"verdict: {spoken}"


Entries = Iterator[tuple[str, ...]]  # level, code, seen, and where it has one: verdict


def percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 or share == 0 else f"{100 * share:.1f}%"


def duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1.95 else f"{60 * hours:.1f} minutes"


def _level(share: float, stop: float, warn: float) -> str:
    return "stop" if share >= stop else "warn" if share >= warn else "note"


def _usable(summary: dict) -> Entries:
    clips, usable, damaged = summary["clips"], summary["usable"], summary["problems"]
    if usable < clips:
        share = 1 - usable / clips
        reasons = ", ".join(f"{count} with {why}" for why, count in summary["unusable"].items())
        seen = f"{clips - usable} of {clips} clips hold no window: {reasons}"
        spoken = f"unusable: {percent(share)} of the clips hold no window" if share >= MOST else ""
        yield _level(share, MOST, SOME), "unusable", seen, spoken
    if damaged:
        share, (name, problems) = len(damaged) / clips, next(iter(damaged.items()))
        seen = f"{len(damaged)} of {clips} clips are damaged, e.g. {name}: {problems[0]}"
        spoken = f"damaged: {percent(share)} of the clips" if share >= MOST else ""
        yield _level(share, MOST, FEW), "damaged", seen, spoken
    wrong = summary["shares"]["wrong_fps"]
    if wrong:
        seen = f"{percent(wrong)} of the clips are not at 25 frames a second"
        yield "stop", "fps", seen, "wrong frame rate: preprocess the videos again"
    if clips < summary["found"]:
        yield "note", "examined", f"{clips} of {summary['found']} clips were examined, at random"


def _sync(summary: dict) -> Entries:
    sync, hint = summary["sync"], summary["hint"]
    if sync is None:
        yield _hinted(hint)
        return
    of = sync["judged"] - sync["dropped"]
    if sync["sure_share"] < IN_SYNC:
        seen = (
            f"an expert recognises the voice in the lips of {percent(sync['sure_share'])} of {of} "
            f"clips (median confidence {sync['confidence']:.2f})"
        )
        spoken = "lips and voice seem not to belong together" if sync["sure_share"] < MOST else ""
        yield _level(1 - sync["sure_share"], 1 - MOST, 1 - IN_SYNC), "unsure", seen, spoken
    if sync["within_1"] is None:
        return
    seen = (
        f"{percent(sync['within_1'])} of {sync['sure']} clips are in sync to a frame, "
        f"{percent(sync['within_3'])} to 3 frames"
    )
    if sync["within_1"] >= IN_SYNC:
        yield "note", "in_sync", seen
    else:
        how = f"{_offset(sync['common'])} in {percent(sync['common_share'])} of them"
        if sync["common_share"] < IN_SYNC:
            how = "by different amounts"
        spoken = f"out of sync: {how}; correct it first" if sync["within_3"] < IN_SYNC else ""
        yield "stop" if spoken else "warn", "out_of_sync", f"{seen}: {how}", spoken
    asked = sync["judged"] + sum(sync["failed"].values())
    if asked < summary["usable"]:
        yield "note", "sync_sample", f"{asked} clips were judged for sync"


def _offset(frames: int) -> str:
    side = "early" if frames > 0 else "late"
    return f"the sound is {side} by {abs(frames)} frames" if frames else "the sound is in time"


def _hinted(hint: dict | None) -> tuple[str, ...]:
    """Without an expert: what mouths that move with the sound say."""
    if hint is None or not hint["reliable"]:
        seen = "nobody has checked that lips and sound are in sync"
        if hint is not None:
            seen += f"; how mouths move with the sound tells no offset in {hint['clips']} clips"
        return "note", "sync_unknown", seen
    seen = f"a hint from how mouths move with the sound in {hint['clips']} clips: "
    if abs(hint["offset"]) < FAR:
        return "note", "hint_in_sync", seen + "in sync, to a frame or two"
    how = _offset(hint["offset"]).replace("by", "by about")
    return "warn", "hint_out_of_sync", seen + how, f"out of sync, it seems: {how}; make sure"


def _amount(summary: dict) -> Entries:
    people, hours = summary["speakers"], summary["hours"]
    amount, near = duration(hours), summary["near_negatives"]
    if people["one"]:
        alike = people["likeness"]
        seen = f"{amount} of one speaker" + (
            "" if alike is None else f", by the names and the faces' likeness ({alike:.2f})"
        )
        spoken = f"one speaker, {amount}: fine-tune the released models, train no expert"
        yield "stop", "one_speaker", seen, spoken
    elif hours < TRIAL_HOURS:
        spoken = f"ready for a trial: {amount} train small models only"
        yield "warn", "trial", f"{amount} of sound", spoken
    elif hours < SMALL_HOURS:
        spoken = f"small: {amount}: fine-tune the released models, train no expert from scratch"
        yield "warn", "small", f"{amount} of sound; LRS2's training split has 29 hours", spoken
    if not people["one"] and people["count"] < FEW_SPEAKERS:
        spoken = f"few speakers: {people['count']}: fine-tune the released models, or add some"
        yield "warn", "few_speakers", f"{people['count']} speakers (by {people['by']})", spoken
    elif not people["one"] and people["largest_share"] > MOST:
        share = percent(people["largest_share"])
        yield "warn", "one_sided", f"{share} of the sound is of {people['largest']}"
    if near is not None and near > NEAR_NEGATIVES:
        length = summary["medians"]["seconds"] or 0.0
        seen = f"clips are short (median {length:.1f} s): of the expert's wrong pairs, "
        yield "warn", "short_clips", seen + f"{percent(near)} are off by 2 frames or less"


def _tests(summary: dict) -> Entries:
    shares, silence = summary["shares"], summary["medians"]["silence_share"] or 0.0
    if shares["silent"] >= FEW or silence > SILENCE:
        spoken = "silent: most clips hold no speech" if shares["silent"] >= MOST else ""
        seen = f"{percent(shares['silent'])} of the clips hold next to no speech; "
        seen += f"half of all have more than {percent(silence)} silence"
        yield "stop" if spoken else "warn", "silence", seen, spoken
    for code, least, seen in WARNINGS:
        if shares[code] >= least:
            yield "warn", code, seen.format(percent(shares[code]))


def _copies(summary: dict) -> Entries:
    for kind, count in summary["copied_clips"].items():
        if count:
            example = ", ".join(summary["copies"][kind][0][:3])
            seen = f"{count} clips have the same {kind} as another, e.g. {example}"
            level = "warn" if count / summary["clips"] >= FEW else "note"
            yield level, f"same_{kind}", seen


def _filelists(summary: dict) -> Entries:
    lists = summary["filelists"]
    if not lists or not lists["lists"]:
        yield "note", "no_filelists", "there are no filelists"
        return
    people, clips = len(lists["speakers_in_two"]), len(lists["clips_in_two"])
    if people or clips:
        seen = f"{people} speakers or sources and {clips} clips are in more than one split"
        yield "warn", "leak", seen
    if lists["copies_in_two"]:
        example = ", ".join(lists["copies_in_two"][0][:3])
        yield "warn", "copies_leak", f"copies are in more than one split, e.g. {example}"
    for split, of in lists["lists"].items():
        if of["missing"]:
            share = len(of["missing"]) / of["lines"]
            seen = f"{len(of['missing'])} of {of['lines']} lines of {split}.txt name no clip here"
            spoken = f"{split}.txt belongs to other data" if share >= MOST else ""
            yield _level(share, MOST, FEW), "missing", f"{seen}, e.g. {of['missing'][0]}", spoken
        if of["dropped"]:
            seen = f"{of['dropped']} lines of {split}.txt name clips that --correct_sync dropped"
            yield "warn", "dropped_listed", seen
