"""The doctor's picture: a panel for each measure, the limits as dashed lines."""

from __future__ import annotations

import textwrap

FINE, BAD, HINT = "#4878a8", "#c44e52", "#8c8c8c"
# as in doctor_corpus.TESTS: lowest good value, highest good value
LIMITS = {
    "face_size": (48, None),
    "sharpness": (50, None),
    "speech_db": (-40, None),
    "silence_share": (None, 0.7),
    "faces_share": (0.9, None),
    "brightness": (40, 215),
    "offset": (-3.5, 3.5),
}
TITLES = {
    "seconds": ("clip length", "seconds; at the end: 12 and more"),
    "face_size": ("face size", "pixels, shorter side; at the end: 400 and more"),
    "faces_share": ("frames with a face", "share of the clip's frames"),
    "sharpness": ("sharpness", "variance of the Laplacian at 96 px"),
    "brightness": ("brightness", "mean grey"),
    "speech_db": ("level of speech", "dBFS"),
    "silence_share": ("silence", "share of the clip"),
    "windows_expert": ("windows for the expert", "in a clip; at the end: 300 and more"),
    "offset": ("offset by the expert", "frames (positive: the sound is early)"),
    "confidence": ("confidence of the expert", "median - minimum distance"),
}
SPEAKERS = 40  # bars
FINDINGS = 9  # listed


def plot(report: dict, path: str) -> None:
    """Draw doctor.json's content as one PNG, 1600 x 1200."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 4, figsize=(16, 12), layout="constrained")
    panels = iter(axes.flat)
    for name in ("seconds", None, "face_size", "faces_share", "sharpness", "brightness",
                 "speech_db", "silence_share", "offset", "confidence"):  # fmt: skip
        axis = next(panels)
        if name is None:
            _speakers(axis, report["summary"]["speakers"])
        elif name in report["histograms"]:
            _histogram(axis, name, report["histograms"][name])
        else:
            _empty(axis, TITLES[name][0], "no expert was asked:\n--expert E")
    if report["summary"]["hint"]:
        _hint(next(panels), report["summary"]["hint"])
    else:
        _histogram(next(panels), "windows_expert", report["histograms"]["windows_expert"])
    _findings(next(panels), report["findings"])
    title = textwrap.fill(f"{report['root']}\n{report['verdict']}", 150, replace_whitespace=False)
    figure.suptitle(title.replace("$", r"\$"), fontsize=14, fontweight="bold")
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)


def _histogram(axis, name: str, histogram: dict) -> None:
    edges, counts = histogram["edges"], histogram["counts"]
    title, unit = TITLES[name]
    low, high = LIMITS.get(name, (None, None))
    wrong = [
        (low is not None and right <= low) or (high is not None and left >= high)
        for left, right in zip(edges, edges[1:], strict=False)
    ]
    widths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
    colours = [BAD if bad else FINE for bad in wrong]
    axis.bar(edges[:-1], counts, widths, align="edge", color=colours, edgecolor="white", lw=0.3)
    for limit in (low, high):
        if limit is not None:
            axis.axvline(limit, color=BAD, ls="--", lw=1)
    if name == "sharpness":
        axis.set_xscale("log")
    axis.set(title=title, xlabel=unit, ylabel="clips", xlim=(edges[0], edges[-1]))
    axis.grid(alpha=0.3)
    axis.yaxis.get_major_locator().set_params(integer=True)


def _speakers(axis, speakers: dict) -> None:
    minutes = list(speakers["minutes"].values())
    axis.bar(range(min(SPEAKERS, len(minutes))), minutes[:SPEAKERS], color=FINE)
    rest = f", the largest {SPEAKERS}" if len(minutes) > SPEAKERS else ""
    kind = {"folders": "speakers (folders)", "videos": "source videos"}
    words = kind.get(speakers["by"], "folders or videos, of one speaker")
    axis.set(title=f"{len(minutes)} {words}{rest}", ylabel="minutes", xticks=[])
    axis.grid(alpha=0.3, axis="y")


def _hint(axis, hint: dict) -> None:
    reach = len(hint["curve"]) // 2
    sure = hint["reliable"]
    axis.plot(range(-reach, reach + 1), hint["curve"], "o-", ms=3, color=FINE if sure else HINT)
    axis.axvspan(-2.5, 2.5, color=FINE, alpha=0.1)
    axis.axvline(hint["offset"], color=BAD, ls="--", lw=1)
    axis.set(
        title=f"hint of sync: {hint['offset']:+d}" + ("" if sure else " (unreliable)"),
        xlabel="frames (positive: the sound is early)",
        ylabel="correlation of mouth and sound",
    )
    axis.grid(alpha=0.3)


def _findings(axis, findings: list[dict]) -> None:
    axis.axis("off")
    axis.set_title("findings")
    lines = []
    for finding in findings[:FINDINGS]:
        seen = f"{finding['level'].upper()} {finding['seen']}"
        lines += textwrap.wrap(seen, 52, subsequent_indent="   ", max_lines=4, placeholder=" ...")
    if len(findings) > FINDINGS:
        lines.append(f"... and {len(findings) - FINDINGS} more: doctor.txt")
    text = "\n".join(lines[:34]).replace("$", r"\$") or "none"
    axis.text(0, 0.98, text, va="top", fontsize=9, transform=axis.transAxes)


def _empty(axis, title: str, text: str) -> None:
    axis.set(title=title, xticks=[], yticks=[])
    axis.text(0.5, 0.5, text, ha="center", va="center", color=HINT, transform=axis.transAxes)
