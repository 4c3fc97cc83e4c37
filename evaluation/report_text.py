"""The evaluation report as Markdown and JSON: one generator, or several side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

from evaluation import lips
from evaluation.gen_videos_from_filelist import FPS
from evaluation.metrics import COLUMNS, Column
from evaluation.quality import COUNTED
from evaluation.score_table import mean_text, write_results

# LSE-D, LSE-C, FID on LRS2 (paper, table 1), and the mean of two independent reruns of the released
# weights and scripts
PUBLISHED = (
    ("Wav2Lip, published", 6.386, 7.789, 4.887),
    ("Wav2Lip + GAN, published", 6.469, 7.781, 4.446),
    ("real videos, published", 6.736, 7.838, None),
    ("Wav2Lip, released weights rerun by others", 7.15, 6.77, None),
    ("Wav2Lip + GAN, released weights rerun by others", 7.21, 6.79, None),
)
CLEAR = 2.0  # standard errors by which right and wrong sound must differ
# Our own expert's scale is another, and not comparable with LSE
SYNC = {
    "lse": {"lse_d": Column("LSE-D", -1), "lse_c": Column("LSE-C", 1)},
    "sync": {
        "sync_distance": Column("sync distance by our own expert (not LSE)", -1),
        "sync_confidence": Column("sync confidence of our own expert", 1),
    },
}
NEAR = "offset within 1 frame"


def write_report(reports: Sequence[dict], out: str) -> str:
    """Write report.json and report.md of report.evaluate's answers into `out`; returns the tables,
    for the screen.
    """
    names = [report["name"] for report in reports]
    columns, rows = measured(reports)
    whole = reports[0]
    if len(reports) > 1:
        measures = [dict(zip(columns, row, strict=True)) for row in rows]
        whole = {"names": names, "measures": measures}
    shown = [
        "\n\n".join(warnings(reports)),
        "## All measures\n\n" + table([f"**{c}**" if c in names else c for c in columns], rows),
        "`copy` keeps the video's mouth, `average` shows its mean: a sync loss may take either for "
        "talking.\nThe frames are compared with the truth for clips driven by their own "
        "sound, `real` is a true clip against itself;\nmost of a pasted frame is the true frame: "
        "the mouth region tells more.",
        _paper_table(reports),
        _verdicts(reports[0]["sync"]),
        _missing(reports[0]["missing"]),
    ]
    ends = [_skipped(whole), _protocols(whole), _pictures(whole)] if len(reports) == 1 else [
        "What was left out, how the numbers were made and pictures: in the report of each."
    ]  # fmt: skip
    sections = [*map(_head, reports), *shown, *ends]
    text = "\n\n".join(section for section in sections if section) + "\n"
    write_results(os.path.join(out, "report"), text, whole)
    return "\n\n".join(s for s in shown if s) + f"\n\n{out}: report.md, report.json"


def _head(report: dict) -> str:
    made = report["generation"]["generated"]
    label = made["settings"]["generator"]
    return (
        f"# Evaluation of {report['name']}\n\nGenerator `{label}`, list `{report['filelist']}`: "
        f"{made['videos']} of {report['pairs']} pairs made, frames in mode `{report['mode']}`."
    )


def table(header: Sequence, rows: Sequence[Sequence]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 2) + "---|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _score(summary: dict | None, name: str) -> str:
    return mean_text(summary["scores"].get(name) if summary else None)


def measured(reports: Sequence[dict]) -> tuple[list[str], list[tuple]]:
    """(columns: a measure's title, the generators, the baselines, real clips with their own and
    another's sound, the measure's name; rows). A metric's title is its class's.
    """
    first, names = reports[0], [report["name"] for report in reports]
    columns = ["measure", *names, *lips.BASELINES, "real", "wrong sound", "column"]
    none, rows = [None] * 2, []

    def add(name: str, title: object, summaries: list[dict | None]) -> None:
        rows.append((str(title), *(_score(found, name) for found in summaries), f"`{name}`"))

    if first["lips"]:
        scored = [report["lips"][report["name"]] for report in reports]
        for name, column in lips.COLUMNS.items():
            add(name, column, [*scored, *map(first["lips"].get, lips.BASELINES), *none])
    for kind in first["sync"]:
        generated = [report["sync"][kind]["generated"] for report in reports]
        groups = [*generated, *none, *(first["sync"][kind][g] for g in ("real", "wrong sound"))]
        for name, column in SYNC[kind].items():
            add(name, column, groups)
        rows.append((NEAR, *map(_near, groups), "`offset`"))
    if first["fid"]:
        values = [_number(report["fid"]["fid"]) for report in reports]
        rows.append(("FID, lower is better", *values, *"----", "`fid`"))
    own = [report["quality"]["own_sound"] for report in reports]
    length = "av_length_difference"
    for name, column in {**COLUMNS, length: COUNTED[length]}.items():
        if name in own[0]["scores"]:
            add(name, column, [*own, *none, first["quality"]["truth"], None])
    for name in _seconds(first):
        spent = [_number(_seconds(report).get(name), 0) for report in reports]
        rows.append((f"seconds a minute of video: {name}", *spent, *"----", "`seconds`"))
    return columns, rows


def _near(summary: dict | None) -> str:
    if summary is None:
        return "-"
    offsets = [row.get("offset") for rows in summary["by_video"].values() for row in rows]
    offsets = [offset for offset in offsets if offset is not None]
    return f"{sum(abs(offset) <= 1 for offset in offsets)} of {len(offsets)}"


def _seconds(report: dict) -> dict[str, float]:
    """What a minute of video took, by what was done."""
    made, quality = report["generation"], report["quality"]["own_sound"]

    def minutes(summary: dict) -> float:
        frames = summary["scores"]["frames"]
        return frames["n"] * frames["mean"] / FPS / 60 if frames else 0.0

    generated = minutes(made["generated"])
    took = {"generation": (made["generated"]["seconds"], generated)}
    took |= {name: (groups["generated"]["seconds"], generated)
             for name, groups in report["sync"].items()}  # fmt: skip
    if report["fid"]:
        sides = [report["fid"][side] for side in ("real", "generated")]
        took["fid"] = sum(s["seconds"] for s in sides), sum(s["frames"] for s in sides) / FPS / 60
    took["quality"] = quality["seconds"], minutes(quality)
    if report["lips"]:
        took["lips"] = report["lips"][report["name"]]["seconds"], generated
    return {name: spent / length for name, (spent, length) in took.items() if length}


def warnings(reports: Sequence[dict]) -> Iterator[str]:
    """What the lips' numbers mean where they are bad, above all under a good sync score."""
    for report in reports:
        scores = report["lips"] and lips.means(report["lips"][report["name"]])
        text = scores and lips.warning(scores)
        if not text:
            continue
        numbers = f"follows {scores['follows']:.2f}, leak {scores['leak']:.2f}"
        yield f"**{report['name']}**: {text} ({numbers})."
        for kind, groups in report["sync"].items():
            name, column = next(iter(SYNC[kind].items()))
            score = groups["generated"]["scores"].get(name)
            if score is None or not tells(groups, name, column):
                continue
            made = score["mean"]
            real, wrong = (groups[g]["scores"][name]["mean"] for g in ("real", "wrong sound"))
            if made < (real + wrong) / 2:  # nearer to the right sound
                yield (
                    f"**{report['name']}**: its {name} ({made:.3f}) is as good as that of real "
                    f"clips ({real:.3f}), and yet the lips do not follow the sound. The sync score "
                    "is fooled: do not rank this generator by it."
                )


def _paper_table(reports: Sequence[dict]) -> str:
    lse = reports[0]["sync"].get("lse", {})
    protocol = next(iter(lse.values()))["settings"]["protocol"] if lse else None
    ours = f"`{protocol}`, this list" if protocol else "this list; no SyncNet v2 weights"
    rows = [
        (name, _number(d), _number(c), _number(f), "`lrs`, LRS2 unpaired test list")
        for name, d, c, f in PUBLISHED
    ]
    groups = [(f"**{r['name']}**", r["sync"].get("lse", {}).get("generated"), r["fid"])
              for r in reports]  # fmt: skip
    wrong = "real videos with another's sound, here"
    groups += [("real videos, here", lse.get("real"), None), (wrong, lse.get("wrong sound"), None)]
    for name, summary, fid in groups:
        scores = (_score(summary, column) for column in SYNC["lse"])
        rows.append((name, *scores, _number(fid["fid"] if fid else None), ours))
    header = ("videos", "LSE-D (lower is better)", "LSE-C (higher)", "FID (lower)", "protocol")
    text = "## The paper's table\n\n" + table(header, rows)
    fid = reports[0]["fid"]
    return text + (f"\n\nFID: {fid['warning']}." if fid and fid["warning"] else "")


def tells(groups: dict, name: str, column: Column) -> bool | None:
    """Whether a metric tells real videos from those with the wrong sound; None: not measured."""
    real, wrong = (groups[group]["scores"].get(name) for group in ("real", "wrong sound"))
    if real is None or wrong is None:
        return None
    errors = [score["standard_error"] or 0.0 for score in (real, wrong)]
    return column.better * (real["mean"] - wrong["mean"]) > CLEAR * math.hypot(*errors)


def _verdicts(sync: dict) -> str:
    lines = []
    for kind, groups in sync.items():
        for name, column in SYNC[kind].items():
            clear = tells(groups, name, column)
            if clear is not None:
                real, wrong = (groups[g]["scores"][name]["mean"] for g in ("real", "wrong sound"))
                told = "tells" if clear else "**does NOT clearly tell**"
                end = "" if clear else ": do not trust it here"
                means = f"{real:.3f} against {wrong:.3f}"
                lines.append(f"- {name} {told} the right sound from the wrong, {means}{end}")
    return "\n".join(lines)


def _missing(missing: Sequence[dict]) -> str:
    lines = [f"- {m['metric']}: `{m['file']}` ({m['where']})" for m in missing]
    return "## Not measured, for want of weights\n\n" + "\n".join(lines) if lines else ""


def _skipped(report: dict) -> str:
    fid = report["fid"] or {}
    sides = {side: fid[side] for side in ("real", "generated") if fid}
    parts = {"generation": report["generation"], **report["sync"], "quality": report["quality"],
             "lips": report["lips"], "fid": sides}  # fmt: skip
    lines = [
        f"- {part}, {name}: {entry['video']}: {entry['reason']}"
        for part, summaries in parts.items()
        for name, summary in summaries.items()
        for entry in summary["skipped"]
    ]
    return "## Left out\n\n" + ("\n".join(lines) if lines else "Nothing.")


def _protocols(report: dict) -> str:
    """What every number depends on."""
    lines = [f"- generation: {_settings(report['generation']['generated']['settings'])}"]
    for name, groups in report["sync"].items():
        lines.append(f"- {name}: {_settings(groups['generated']['settings'])}")
    if report["fid"]:
        fid = report["fid"]
        counts = f"{fid['real']['frames']} real and {fid['generated']['frames']} generated frames"
        lines.append(f"- fid: {_settings(fid['protocol'])}; {counts}")
    lines.append(f"- quality: {_settings(report['quality']['own_sound']['settings'])}")
    return f"## How the numbers of {report['name']} were made\n\n" + "\n".join(lines)


def _settings(settings: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _pictures(report: dict) -> str:
    shown = [f"![{title}]({name})" for title, name in report["pictures"].items()]
    return "## Pictures\n\n" + "\n\n".join(shown) if shown else ""
