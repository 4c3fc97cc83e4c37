"""The evaluation report as Markdown and JSON."""

from __future__ import annotations

import math
import os

from evaluation.gen_videos_from_filelist import FPS
from media.files import replacing, write_json

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
BETTER = {"lse_d": -1, "lse_c": 1, "sync_distance": -1, "sync_confidence": 1}
QUALITY = (
    ("psnr", "PSNR, dB, higher is better"),
    ("ssim", "SSIM, higher is better"),
    ("lpips", "LPIPS, lower is better"),
    ("psnr_mouth", "PSNR of the mouth region"),
    ("ssim_mouth", "SSIM of the mouth region"),
    ("l1_mouth", "mean error of the mouth region, grey levels"),
    ("lsd", "LSD with the expert, 0..1, lower is better"),
    ("identity", "cosine of face embeddings"),
    ("temporal", "change of the error from frame to frame, grey levels"),
    ("av_length_difference", "sound minus picture, seconds"),
)


def write_report(report: dict, out: str) -> str:
    """Write report.json and report.md into `out`; returns the tables, for the screen."""
    write_json(os.path.join(out, "report.json"), report, indent=2)
    sections = [
        _head(report),
        _paper_table(report),
        _sync_table(report),
        _quality_table(report),
        _lips_table(report),
        _missing(report),
        _skipped(report),
        _protocols(report),
        _speed(report),
        _pictures(report),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    with replacing(os.path.join(out, "report.md")) as file:
        file.write(text)
    shown = "\n\n".join(s for s in sections[1:6] if s)
    return f"{shown}\n\n{out}: report.md, report.json"


def _head(report: dict) -> str:
    made = report["generation"]["generated"]
    label = made["settings"]["generator"]
    return (
        f"# Evaluation of {report['name']}\n\nGenerator `{label}`, list `{report['filelist']}`: "
        f"{made['videos']} of {report['pairs']} pairs made, frames in mode `{report['mode']}`."
    )


def _table(header: tuple, rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 2) + "---|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _score(summary: dict | None, name: str) -> str:
    """Mean +- standard error."""
    found = summary["scores"].get(name) if summary else None
    if found is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + ("" if error is None else f" +- {error:.3f}")


def _paper_table(report: dict) -> str:
    lse, fid = report["sync"].get("lse", {}), report["fid"]
    protocol = next(iter(lse.values()))["settings"]["protocol"] if lse else None
    ours = f"`{protocol}`, this list" if protocol else "this list; no SyncNet v2 weights"
    rows = [
        (name, _number(d), _number(c), _number(f), "`lrs`, LRS2 unpaired test list")
        for name, d, c, f in PUBLISHED
    ]
    for group, name in (
        ("generated", f"**{report['name']}**"),
        ("real", "real videos, here"),
        ("wrong sound", "real videos with another's sound, here"),
    ):
        summary = lse.get(group)
        value = fid["fid"] if fid and group == "generated" else None
        rows.append(
            (name, _score(summary, "lse_d"), _score(summary, "lse_c"), _number(value), ours)
        )
    header = ("videos", "LSE-D (lower is better)", "LSE-C (higher)", "FID (lower)", "protocol")
    text = "## The paper's table\n\n" + _table(header, rows)
    text += _verdict(lse, ("lse_d", "lse_c"))
    if fid and fid["warning"]:
        text += f"\n\nFID: {fid['warning']}."
    return text


def _sync_table(report: dict) -> str:
    sync = report["sync"].get("sync")
    if not sync:
        return ""
    names = ("sync_distance", "sync_confidence")
    rows = []
    for group, title in (
        ("generated", f"**{report['name']}**"),
        ("real", "real videos"),
        ("wrong sound", "real videos with another's sound"),
    ):
        summary = sync[group]
        offsets = [row.get("offset") for rows in summary["by_video"].values() for row in rows]
        offsets = [offset for offset in offsets if offset is not None]
        near = sum(abs(offset) <= 1 for offset in offsets)
        share = f"{near} of {len(offsets)}"
        rows.append((title, *(_score(summary, name) for name in names), share, summary["videos"]))
    header = ("videos", "sync_distance (lower is better)", "sync_confidence (higher)",
              "offset within 1 frame", "videos scored")  # fmt: skip
    return (
        "## Sync, by our own expert\n\nOn a scale of its own: not LSE, and not comparable with it."
        f"\n\n{_table(header, rows)}{_verdict(sync, names)}"
    )


def _verdict(groups: dict, names: tuple[str, ...]) -> str:
    """Whether the metric tells real videos from those with the wrong sound."""
    lines = []
    for name in names if groups else ():
        real, wrong = (groups[g]["scores"].get(name) for g in ("real", "wrong sound"))
        if real is None or wrong is None:
            continue
        gap = BETTER[name] * (real["mean"] - wrong["mean"])
        errors = [group["standard_error"] or 0.0 for group in (real, wrong)]
        clear = gap > CLEAR * math.hypot(*errors)
        told = "tells" if clear else "**does NOT clearly tell**"
        end = "" if clear else ": do not trust it here"
        means = f"{real['mean']:.3f} against {wrong['mean']:.3f}"
        lines.append(f"- {name} {told} the right sound from the wrong, {means}{end}")
    return "\n\n" + "\n".join(lines) if lines else ""


def _quality_table(report: dict) -> str:
    own, truth = report["quality"]["own_sound"], report["quality"]["truth"]
    rows = [
        (title, _score(own, name), _score(truth, name), f"`{name}`")
        for name, title in QUALITY
        if name in own["scores"]
    ]
    header = ("against the true frames", report["name"], "a true clip against itself", "column")
    return (
        f"## Quality: {own['videos']} clips driven by their own sound\n\n{_table(header, rows)}\n\n"
        "Most of a pasted frame is the true frame: the mouth region tells more."
    )


def _lips_table(report: dict) -> str:
    if not report["lips"]:
        return ""
    from evaluation.lips import format_table

    return (
        "## Do the lips follow the sound?\n\nPartial correlations of lip openings, by landmarks "
        "that no training here optimises\n(evaluation/lips.py). `copy` keeps the video's mouth, "
        f"`average` shows its mean.\n\n{format_table(report['lips'])}"
    )


def _missing(report: dict) -> str:
    if not report["missing"]:
        return ""
    lines = [f"- {m['metric']}: `{m['file']}` ({m['where']})" for m in report["missing"]]
    return "## Not measured, for want of weights\n\n" + "\n".join(lines)


def _skipped(report: dict) -> str:
    parts = {f"generation, {name}": s for name, s in report["generation"].items()}
    for name, groups in report["sync"].items():
        parts |= {f"{name}, {group}": summary for group, summary in groups.items()}
    parts |= {f"quality, {name}": summary for name, summary in report["quality"].items()}
    parts |= {f"lips, {name}": summary for name, summary in report["lips"].items()}
    lines = [
        f"- {part}: {entry['video']}: {entry['reason']}"
        for part, summary in parts.items()
        for entry in summary["skipped"]
    ]
    for side in ("real", "generated") if report["fid"] else ():
        lines += [
            f"- fid, {side}: {e['video']}: {e['reason']}" for e in report["fid"][side]["skipped"]
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
    return "## How the numbers were made\n\n" + "\n".join(lines)


def _speed(report: dict) -> str:
    """One line: the work that a minute of video took."""
    made, fid = report["generation"], report["fid"]

    def minutes(summary: dict) -> float:
        frames = summary["scores"]["frames"]
        return frames["n"] * frames["mean"] / FPS / 60 if frames else 0.0

    generated = minutes(made["generated"])
    took = {"generation": (made["generated"]["seconds"], generated)}
    took |= {
        name: (sync["generated"]["seconds"], generated) for name, sync in report["sync"].items()
    }
    if fid:
        sides = [fid["real"], fid["generated"]]
        took["fid"] = sum(s["seconds"] for s in sides), sum(s["frames"] for s in sides) / FPS / 60
    if "own_sound" in made:
        took["quality"] = report["quality"]["own_sound"]["seconds"], minutes(made["own_sound"])
    parts = [f"{name} {spent / length:.0f}" for name, (spent, length) in took.items() if length]
    return f"Seconds of work for a minute of video: {', '.join(parts)}."


def _settings(settings: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _pictures(report: dict) -> str:
    shown = [f"![{title}]({name})" for title, name in report["pictures"].items()]
    return "## Pictures\n\n" + "\n\n".join(shown) if shown else ""
