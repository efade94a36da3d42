"""Every block of code in what people read runs, and every command in it is one that sparse3d has."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

from sparse3d import cli
from sparse3d.commands.reconstruct import METHODS
from sparse3d.config import config_names
from sparse3d.recipes import tasks
from tests.docs.pages import PAGES, ROOT, blocks, inline_commands

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITH_CODE = [
    n for n, page in zip(NAMES, PAGES, strict=True) if any(b.language == "python" for b in blocks(page))
]
WITH_COMMANDS = [
    n
    for n, page in zip(NAMES, PAGES, strict=True)
    if inline_commands(page) or any(b.commands for b in blocks(page))
]
CONFIGS = {Path(name).name for name in config_names()}
# Pages whose commands run for real, with less of everything.
TUTORIALS = ["docs/first_detector.md", "docs/first_reconstruction.md"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own to run in; what a page does to the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSE3D_DATASETS", raising=False)
    modules, threads = dict(sys.modules), torch.get_num_threads()
    torch.manual_seed(0)
    yield tmp_path
    torch.set_num_threads(threads)
    for name in set(sys.modules) - set(modules):
        if name.partition(".")[0] in ("spconv", "cumm"):  # `sparse3d.compat.install()`
            del sys.modules[name]


def run_python(name: str, block, names: dict) -> None:
    """In the names of the page; a fault is shown with the page's own line."""
    code = compile("\n" * (block.line - 1) + block.text, str(ROOT / name), "exec")
    # Not find_spec: the page on spconv puts a stand-in in its place.
    if block.needs is None or block.needs in packages_distributions():
        exec(code, names)


@pytest.mark.parametrize("name", [name for name in WITH_CODE if name not in TUTORIALS])
def test_python_runs(here, name):
    names = {"__name__": "page"}
    for block in blocks(ROOT / name):
        if block.language == "python":
            run_python(name, block, names)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_are_those_of_sparse3d(name, capsys):
    for block in blocks(ROOT / name):
        for words in block.commands:
            check_command(words, capsys)
    for words in inline_commands(ROOT / name):
        check_command(words, capsys, whole=False)


def check_command(words, capsys, whole=True):
    """The parser takes it, and the config that it names takes its overrides. Text may name a command without
    what it is about."""
    shown = f"sparse3d {' '.join(words)}"
    before = ["", *words]
    words = [_example(word.strip("[]"), before[k]) for k, word in enumerate(words) if word != "..."]
    words += ["X"] * ("..." in before)
    try:
        arguments = cli._parse(words)
    except SystemExit as end:
        said = capsys.readouterr().err
        incomplete = "are required" in said or re.search(r"unknown word '[A-Z]+'", said)
        assert end.code == 0 or not whole and incomplete, f"{shown}: {said}"
        return
    if arguments.command == "reconstruct":
        source = arguments.config or METHODS[arguments.method]
    else:
        source = getattr(arguments, "config", None) or getattr(arguments, "name", None)
    if source in CONFIGS:
        tasks.load(source, arguments.overrides)
    elif arguments.command in ("train", "reconstruct") and source not in ("X", "CONFIG"):
        raise AssertionError(f"{shown}: there is no config {source!r}")


def _example(word, before):
    """A letter behind an option stands for a number (`--scenes N`)."""
    return "1" if len(word) == 1 and word.isupper() and before.strip("[").startswith("--") else word


# What makes the commands of the tutorials small. Options that come later overrule those of the page.
SMALL = {
    ("data", "make", "minidrive"): ["--scenes", "5"],
    ("data", "make", "minidrive-drives"): ["--scenes", "1"],
    ("data", "make", "three-spheres"): ["--views", "14"],
    ("train",): ["train.steps=1", "loader.workers=0"],
    ("reconstruct",): ["--scale", "0.5", "--no-turntable", "train.steps=100"],
    ("distill",): ["train.steps=20"],
    ("render",): ["--size", "20"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_from_its_first_line_to_its_last(here, name):
    names = {"__name__": "page"}
    for block in blocks(ROOT / name):
        if block.language == "python":
            run_python(name, block, names)
        for words in block.commands:
            small = [
                option for begin, less in SMALL.items() if words[: len(begin)] == [*begin] for option in less
            ]
            assert cli.main([*words, *small]) == 0, f"{name}, sparse3d {' '.join(words)}"
