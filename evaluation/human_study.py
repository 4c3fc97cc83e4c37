"""What people say of a report's videos: blinded clips, a page to judge them on, a table of answers.

    python -m evaluation.human_study make --report results/eval --out results/study
    python -m evaluation.human_study serve --study results/study
    python -m evaluation.human_study score --study results/study

`make` copies the generated videos of one report or more (--report again; one of several checkpoints
counts as several) under names that tell nothing; key.json says what is what. Of every clip that all
of the reports have, each report's video is judged alone, and then each two side by side. `serve`
asks on a local page: 1 to 5 for sync, quality and overall, and which of two is better. Each answer
is on the disk (answers.jsonl) before the next clip is shown; who types the same name again goes on
where they stopped. `score` writes scores.md and scores.json: means with 95% intervals (raters and
clips drawn again), preferences with a two-sided sign test, and how far the raters agree. An answer
given twice counts as it was given last.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import operator
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from errors import InputError, require_file, require_package, run_cli
from evaluation.score_table import write_results
from lipsync.options import positive
from media.files import read_object, write_json

QUESTIONS = {
    "sync": "Do the lips fit the speech?",
    "quality": "How good is the picture?",
    "overall": "How good is the video as a whole?",
}
PREFERENCES = ("left", "right", "neither")
DRAWS = 2000  # of the bootstrap


def find_videos(folders: Sequence[str]) -> dict[str, dict[str, str]]:
    """{report's name: {line of its list: the generated video}} of reports of one checkpoint or
    several. InputError where a folder holds none.
    """
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        report = _read_json(os.path.join(folder, "report.json"), "report")
        if names := report.get("names"):  # of several, each in a folder of its own
            parts = find_videos([os.path.join(folder, n.replace(os.sep, "_")) for n in names])
        else:
            made, videos = os.path.join(folder, "generated"), {}
            listed = require_file(os.path.join(made, "pairs.csv"), "report's list")
            with open(listed, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if name := row.get("file"):
                        path = require_file(os.path.join(made, name), "report's video")
                        videos[row.get("video")] = path
            if not videos:
                raise InputError(f"the report {folder} has made no video")
            parts = {str(report.get("name", folder)): videos}
        for name, videos in parts.items():  # one checkpoint may be reported twice, by its options
            found[f"{name} ({folder})" if name in found else name] = videos
    return found


def make_study(reports: Sequence[str], out: str, seed: int, limit: int | None = None) -> dict:
    """Write the folder `out`, which appears only when complete; returns its key. limit: so many of
    the clips, drawn. InputError where the reports have no clip in common, or `out` is there.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} is there already, perhaps with answers: choose another --out")
    videos, draw = find_videos(reports), random.Random(seed)
    clips = sorted(set.intersection(*map(set, videos.values())))
    if not clips:
        raise InputError("no clip is in all of the reports: make them of one list")
    clips = draw.sample(clips, min(limit or len(clips), len(clips)))
    shown = list(itertools.product(videos, clips))
    draw.shuffle(shown)
    names = {(report, clip): f"{number:04}{os.path.splitext(videos[report][clip])[1]}"
             for number, (report, clip) in enumerate(shown)}  # fmt: skip
    pairs = [draw.sample([names[one, clip], names[other, clip]], 2)
             for one, other in itertools.combinations(videos, 2) for clip in clips]  # fmt: skip
    draw.shuffle(pairs)
    key = {
        "seed": seed,
        "files": {names[r, c]: {"report": r, "clip": c} for r, c in shown},
        "items": {f"clip {n}": [names[pair]] for n, pair in enumerate(shown)}
        | {f"pair {n}": pair for n, pair in enumerate(pairs)},
    }
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".study_", dir=parent) as folder:
        whole = os.path.join(folder, "study")
        os.makedirs(os.path.join(whole, "clips"))
        for (report, clip), name in names.items():
            shutil.copyfile(videos[report][clip], os.path.join(whole, "clips", name))
        write_json(os.path.join(whole, "key.json"), key, indent=2)
        os.rename(whole, out)
    return key


class Study:
    """A folder of make_study's and the answers in it. InputError where it is none.

    items: {item: [file] or [left file, right file]}; files: {file: {"report", "clip"}}.
    """

    def __init__(self, folder: str) -> None:
        key = _read_json(os.path.join(folder, "key.json"), "study")
        try:
            self.seed, self.files, self.items = key["seed"], key["files"], key["items"]
        except KeyError as error:
            raise InputError(f"{folder}/key.json has no {error}: make the study again") from error
        self.clips = os.path.abspath(os.path.join(folder, "clips"))
        self.log, self._lock = os.path.join(folder, "answers.jsonl"), threading.Lock()

    def read(self, mend: bool = False) -> dict[tuple[str, str], dict]:
        """{(rater, item): answer}. InputError naming the first line that is none; a last line that
        a kill cut short is left out with a word, and where it is to `mend`, removed.
        """
        answers: dict[tuple[str, str], dict] = {}
        if not os.path.exists(self.log):
            return answers
        with self._lock, open(self.log, "rb") as file:
            *lines, torn = file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                answer = json.loads(line)
                self.check(answer)
            except (ValueError, InputError) as error:
                raise InputError(f"{self.log}, line {number} is no answer: {error}") from error
            answers[answer["rater"], answer["item"]] = answer
        if torn:
            done = "removed" if mend else "ignored"
            print(f"{self.log}: the last line was cut short, and is {done}", file=sys.stderr)
            if mend:
                os.truncate(self.log, os.path.getsize(self.log) - len(torn))
        return answers

    def check(self, answer: object) -> None:
        """InputError where this is not all that an item asks of a rater."""
        if not isinstance(answer, dict) or not isinstance(answer.get("rater"), str):
            raise InputError("it names no rater")
        item = self.items.get(str(answer.get("item")))
        if item is None:
            raise InputError(f"this study has no item {answer.get('item')!r}")
        if len(item) == 1 and any(answer.get(name) not in range(1, 6) for name in QUESTIONS):
            raise InputError(f"{', '.join(QUESTIONS)} take 1 to 5 each")
        if len(item) == 2 and answer.get("preference") not in PREFERENCES:
            raise InputError(f"a preference is one of {', '.join(PREFERENCES)}")

    def keep(self, rater: str, item: str, **given: object) -> None:
        """Append an answer; it is on the disk when this returns. InputError where it is none."""
        answer = {"rater": rater, "item": item, **given, "time": round(time.time(), 3)}
        self.check(answer)
        line = (json.dumps(answer) + "\n").encode()
        with self._lock, open(self.log, "ab", buffering=0) as file:
            whole = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)  # half a line would spoil the next
                raise

    def next(self, rater: str) -> tuple[str | None, int]:
        """(the first item without this rater's answer, None after the last; how many have one).

        Clips come before pairs, which would show them beforehand, in an order of the rater's own.
        """
        order = list(self.items)
        random.Random(f"{self.seed} {rater}").shuffle(order)
        order.sort(key=lambda item: len(self.items[item]))
        answered = {item for name, item in self.read() if name == rater}
        return next((item for item in order if item not in answered), None), len(answered)


def interval(scores: np.ndarray) -> list[float]:
    """95% interval of the mean of scores (raters, clips), NaN where there is none: both are drawn
    again with replacement, as others would have been asked about other clips.
    """
    draw, rated = np.random.default_rng(0), ~np.isnan(scores)
    raters, clips = (draw.multinomial(n, np.full(n, 1 / n), DRAWS) for n in scores.shape)
    sums, counts = (((raters @ x) * clips).sum(1) for x in (np.where(rated, scores, 0.0), rated))
    drawn = counts > 0
    return np.percentile(sums[drawn] / counts[drawn], [2.5, 97.5]).tolist()


def agreement(scores: np.ndarray) -> float | None:
    """Krippendorff's alpha for intervals of scores (raters, items), NaN where there is none: 1 is
    the same from all, 0 as if by chance; None where no item has two scores, or all are equal.

    It is one minus the variance within items over that of all their scores.
    """
    items = [column[~np.isnan(column)] for column in scores.T]
    items = [item for item in items if len(item) > 1]
    total = np.var(np.concatenate(items), ddof=1) if items else 0.0
    if total == 0:
        return None
    within = sum(len(item) * np.var(item, ddof=1) for item in items)
    return float(1 - within / sum(map(len, items)) / total)


def score_study(study: Study) -> dict:
    """What scores.json holds: "raters", "answers" (their number), "means" {report: {question:
    {"mean", "interval", "n"}}}, "preferences" [{"reports": two, "counts": of the first, the second
    and neither, "p"}], "agreement" {question or two reports: alpha}. InputError without an answer.
    """
    from scipy.stats import binomtest

    answers = study.read()
    if not answers:
        raise InputError(f"nobody has answered yet: no answer in {study.log}")
    raters = sorted({rater for rater, _ in answers})
    means: dict[str, dict] = {entry["report"]: {} for entry in study.files.values()}
    preferences, agreed = [], {}

    def shown(item: str) -> list[str]:
        """The reports whose videos an item shows, left to right."""
        return [study.files[name]["report"] for name in study.items[item]]

    def given(reports: set[str], count: int, value: Callable[[dict], float]) -> np.ndarray:
        """(raters, items with so many videos, all of these reports), NaN without an answer."""
        items = [i for i, f in study.items.items() if len(f) == count and {*shown(i)} <= reports]
        rows = [[answers.get((rater, item)) for item in items] for rater in raters]
        return np.array([[np.nan if a is None else value(a) for a in row] for row in rows])

    for question in QUESTIONS:
        value = operator.itemgetter(question)
        agreed[question] = agreement(given(set(means), 1, value))
        for report, summary in means.items():
            scores = given({report}, 1, value)
            scores = scores[~np.isnan(scores).all(1)]  # of who has judged any
            if scores.size:
                found = {"mean": float(np.nanmean(scores)), "interval": interval(scores)}
                summary[question] = found | {"n": int((~np.isnan(scores)).sum())}
    for pair in itertools.combinations(means, 2):
        # 1: the first report's is better, -1: the second's, 0: neither
        worth = {None: 0, pair[0]: 1, pair[1]: -1}

        def better(answer: dict, worth: dict = worth) -> int:
            sides = dict(zip(PREFERENCES, shown(answer["item"]), strict=False))
            return worth[sides.get(answer["preference"])]

        chosen = given(set(pair), 2, better)
        first, second, neither = (int((chosen == value).sum()) for value in (1, -1, 0))
        p = binomtest(first, first + second).pvalue if first + second else None
        preferences.append({"reports": pair, "counts": (first, second, neither), "p": p})
        agreed[" or ".join(pair)] = agreement(chosen)
    return {"raters": raters, "answers": len(answers), "means": means,
            "preferences": preferences, "agreement": agreed}  # fmt: skip


def format_scores(scores: dict) -> str:
    """Markdown."""
    from evaluation.report_text import table

    rows = [
        (report, *("{mean:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]".format(**f)
                   for f in found.values()), next(iter(found.values()))["n"])
        if found else (report, *"---", 0)
        for report, found in scores["means"].items()
    ]  # fmt: skip
    text = f"{scores['answers']} answers, raters: {len(scores['raters'])}. 1 is bad, 5 is good; in "
    text += "brackets 95% intervals over raters and clips.\n\n"
    text += table(("videos", *QUESTIONS, "ratings"), rows)
    rows = []
    for found in scores["preferences"]:
        total = max(1, sum(found["counts"]))
        shares = (f"{100 * count / total:.0f}% ({count})" for count in found["counts"])
        p = "-" if found["p"] is None else f"{found['p']:.3g}"
        rows.append((" or ".join(found["reports"]), *shares, p))
    header = ("which is better", "the first", "the second", "neither", "p, two-sided sign test")
    text += "\n\n" + table(header, rows) if rows else ""
    alphas = scores["agreement"].items()
    said = ", ".join(f"{name} {'-' if a is None else format(a, '.2f')}" for name, a in alphas)
    return f"{text}\n\nAgreement of the raters (Krippendorff's alpha, interval): {said}.\n"


def _read_json(path: str, what: str) -> dict:
    try:
        return read_object(require_file(path, what), what)
    except ValueError as error:
        raise InputError(str(error)) from error


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What people say of a report's videos.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write a study's folder")
    add = make.add_argument
    add("--report", action="append", required=True, metavar="DIR",
        help="folder that evaluation.report wrote; again for more")  # fmt: skip
    add("--out", default="results/study", help="default %(default)s")
    add("--clips", type=positive, metavar="N", help="only so many of the clips, drawn by the seed")
    add("--seed", type=int, default=0, help="of what is drawn and every order; default 0")
    serve = commands.add_parser("serve", help="ask people, on a page of this machine")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in; default: not")
    serve.add_argument("--port", type=positive, default=7860, help="default %(default)s")
    score = commands.add_parser("score", help="write the table of what they said")
    for command in (serve, score):
        command.add_argument("--study", default="results/study", help="default %(default)s")
    return parser


def main(args: argparse.Namespace) -> None:
    if args.command == "make":
        key = make_study(args.report, args.out, args.seed, args.clips)
        pairs = sum(len(files) == 2 for files in key["items"].values())
        print(f"{args.out}: {len(key['files'])} clips, {pairs} pairs; key.json tells what is what")
        return
    study = Study(args.study)
    if args.command == "score":
        scores = score_study(study)
        text = format_scores(scores)
        write_results(os.path.join(args.study, "scores"), text, scores)
        print(text, end="")
        return
    for name in study.files:
        require_file(os.path.join(study.clips, name), "study's clip")
    study.read(mend=True)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    require_package("gradio", "the study's page", "-r requirements-app.txt")
    from page.serve import launch
    from page.study import build_page

    address = launch(build_page(study, QUESTIONS, PREFERENCES), args.host, args.port, 1)
    print(f"open {address} (Ctrl-C ends it)", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
