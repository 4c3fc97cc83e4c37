"""Every command of the README and its pages is run; every file, link and flag they name exists.

The commands run in the README's order in one sandbox, where the paths that they name are small and
synthetic, so a later one may use what an earlier one made. A command that is neither run nor listed
in NOT_RUN with a reason fails here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPOSITORY, TINY
from readme_sandbox import build
from warm_python import run_python

PAGES = ("README.md", "CONTRIBUTING.md", "docs/finetune.md", "docs/data.md", "docs/training.md",
         "evaluation/README.md")  # fmt: skip
TEXTS = (*PAGES, "CHANGELOG.md", "BENCHMARKS.md", "checkpoints/README.md", "samples/README.md")

NOT_RUN = {
    "python3 -m venv .venv": "installs gigabytes",
    ".venv/bin/pip install -r requirements.txt": "installs gigabytes",
    ".venv/bin/pip install --no-deps -r requirements-landmarks.txt": "make has installed it",
    ". .venv/bin/activate": "belongs to them",
    "make demo": "takes a quarter of an hour",
    "make test": "would run this test again",
    "make lint": "is no test",
    "python -m evaluation.scores_LSE --videos results/dubbed --protocol real --out "
    "results/dubbed_scores": "a track needs more than 100 frames: test_scores_lse.py",
    "pip install -r requirements-app.txt": "installs; test_app.py runs what it brings",
    "pip install --no-deps -r requirements-run.txt": "installs; test_run.py runs without the rest",
    "python app.py --checkpoint_path checkpoints/wav2lip.pth": "serves on; test_app.py",
    "python -m evaluation.human_study serve --study results/study": "serves on; "
    "test_human_study.py",
    "python -m evaluation.human_study score --study results/study": "nobody has answered; "
    "test_human_study.py",
    "python benchmark.py data --data_root prepared --filelists prepared/filelists": "starts Python "
    "again and again; test_benchmark.py runs it",
}
ONE_STEP = " ".join(("--hparams", *TINY, "nsteps=1", "batch_size=1", "eval_windows=1"))
# What is appended to a command that holds a text, so that it ends within seconds; the last of two
# equal flags counts
APPENDED = {
    "_train.py": "--device cpu " + ONE_STEP,
    # the one that ships is not the sandbox's
    "inference.py --face": "--checkpoint_path checkpoints/wav2lip.pth",
    "torchrun": "nsteps=2",  # goes on from the one step of the single process
    "--check ": "syncnet_batch_size=8",
    "--ngpu 4": "--ngpu 0",
    "--detector sfd": "--detector centerface",  # its weights are 90 MB
    "--data_root my_videos": "--strict",  # what fails is told here, not by the next command
    "python realtime.py": "--backend torch",  # the first inference takes the default
    "--outfile results/": "--backend torch",
    "checkpoints/me/best.pth --face": "--backend torch",
    "--manifest": "--backend torch --workers 1",
    "--pairs 6": "--pairs 2",
    # the sandbox has neither those weights nor that list
    "evaluation.lips ": "--checkpoint checkpoints/wav2lip.pth --data_root mvlrs_v1/main "
    "--filelist LIST --limit 1",
    "evaluation.report ": "--detector centerface --limit 1",
    "--filelist dubbed.txt": "--detector centerface",
    # weights by a rule draw no faces, and what is generated is shorter than a track
    "--videos results/result_voice.mp4": "--videos me.mp4 --vshift 10",
    "--videos results/dubbed": "--videos me.mp4 --vshift 10 "
    "--detector centerface --expert checkpoints/lipsync_expert.pth",
    # clips of two seconds are too short for landmarks
    "--preprocessed_root prepared --correct_sync": "--expert checkpoints/lipsync_expert.pth "
    "--min_confidence 0",
    "benchmark.py inference": "--batches 1 --repeats 1 --backends torch "
    "--checkpoint_path checkpoints/wav2lip.pth",
}
REPLACED = {"--nproc_per_node=4": "--nproc_per_node=2"}
# torchrun's, an example's, argparse's, pip's
EXTERNAL = {"--nproc_per_node", "--size", "--help", "--no"}
PLACEHOLDERS = {"x.yaml", "my.yaml"}
WRITTEN = {"report.md", "hparams.yaml"}  # by the scripts
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


class Command(NamedTuple):
    page: str
    language: str
    text: str  # a line of shell, or a block of Python


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page, those in lists included."""
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)
    text = (REPOSITORY / page).read_text()
    return [(found[2], textwrap.dedent(found[3])) for found in fence.finditer(text)]


def commands() -> list[Command]:
    """Of all pages in order, each once."""
    found = {}
    for page in PAGES:
        for language, text in blocks(page):
            if language == "python":
                found.setdefault(text, Command(page, language, text))
            elif language == "sh":
                for line in text.replace("\\\n", "").splitlines():
                    line = " ".join(line.split())
                    if line and not line.startswith("#"):
                        found.setdefault(line, Command(page, language, line))
    return list(found.values())


COMMANDS = commands()
RUN = [command for command in COMMANDS if command.text not in NOT_RUN]


def adapted(line: str) -> str:
    """What is run in the place of a page's line."""
    for old, new in REPLACED.items():
        line = line.replace(old, new)
    line, *redirect = line.split(" > ")
    added = [extra for mark, extra in APPENDED.items() if mark in f"{line} "]
    return " > ".join([" ".join((line, *added)), *redirect])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, weights):
    root = tmp_path_factory.mktemp("sandbox")
    build(root, weights)
    return root


def shown(command: Command) -> str:
    words = " ".join(command.text.replace("--", "").split()[:7])
    return f"{command.page} {words}".replace("/", "|")


@pytest.mark.parametrize("command", RUN, ids=shown)
def test_command(command, sandbox, monkeypatch):
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    if command.language == "python":
        (sandbox / "block.py").write_text(command.text)
        result = run_python(["block.py"], sandbox, timeout=300)
    else:
        line = adapted(command.text)
        words = shlex.split(line)
        if words[0] == "python" and ">" not in words:
            result = run_python(words[1:], sandbox, timeout=300)
        else:
            path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line], cwd=sandbox, capture_output=True,
                text=True, timeout=300, env=os.environ | {"PATH": path},
            )  # fmt: skip
    assert result.returncode == 0, f"{command.text}\n{result.stdout}{result.stderr}"


def test_commands_that_are_not_run():
    texts = [command.text for command in COMMANDS]
    assert not set(NOT_RUN) - set(texts), "listed, and on no page"
    for line in NOT_RUN:
        if line.startswith("make "):
            result = subprocess.run(["make", "-n", *line.split()[1:]], cwd=REPOSITORY,
                                    capture_output=True, text=True)  # fmt: skip
            assert result.returncode == 0 and result.stdout, result.stderr
        if line.startswith("python "):
            script, *argv = line.removeprefix("python ").removeprefix("-m ").split()
            module = importlib.import_module(script.removesuffix(".py"))
            module.get_args_parser().parse_args(argv)
    importlib.import_module("venv")
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            importlib.metadata.version(re.split(r"[<>=]", line)[0])


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@functools.cache
def repository_files() -> list[str]:
    """Relative paths of all files, but those of hidden folders."""
    files = []
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.relpath(os.path.join(folder, name), REPOSITORY) for name in names]
    return files


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_files_exist(page):
    path = REPOSITORY / page
    text = path.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.exists(), target
            assert not anchor or anchor in headings(linked), target
    names = (
        set(re.findall(r"`([\w./-]+\.(?:py|md|yaml|yml|ipynb))`", text)) - PLACEHOLDERS - WRITTEN
    )
    for name in names:
        assert any(file == name or file.endswith(f"/{name}") for file in repository_files()), name


def help_of(script: str, *argv: str) -> str:
    parser = importlib.import_module(script.removesuffix(".py").replace("/", ".")).get_args_parser()
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        parser.parse_args([*argv, "--help"])
    return output.getvalue()


def test_flags_exist():
    files = [path for place in ("*.py", "*/__main__.py", "evaluation/*.py")
             for path in REPOSITORY.glob(place)]  # fmt: skip
    scripts = [(str(path.relative_to(REPOSITORY)),) for path in files
               if "run_cli(main, " in path.read_text()]  # fmt: skip
    scripts += [("benchmark.py", part) for part in ("data", "inference", "train", "released")]
    scripts += [("evaluation/human_study.py", part) for part in ("make", "serve", "score")]
    text = " ".join(help_of(*script) for script in (*scripts, ("backends/__main__.py", "export")))
    known = set(re.findall(r"--\w+", text)) | EXTERNAL
    for page in TEXTS:
        used = re.findall(r"(?<![\w-])--[a-z]\w+", (REPOSITORY / page).read_text())
        assert not set(used) - known, page


def test_workflow():
    import yaml

    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    lines = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("make lint" in line for line in lines) and any("make test" in li for li in lines)
