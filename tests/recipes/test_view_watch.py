"""A run is followed: each new checkpoint is shown once, whatever happens to the folder meanwhile."""

import json

import pytest

from sparse3d.commands.view_watch import WatchedRun
from sparse3d.errors import DataError


class Page:
    def __init__(self):
        self.notes, self.curves = [], []
        self.losses = self

    def note(self, text):
        self.notes.append(text)

    def show(self, curves):
        self.curves.append(curves)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.yaml").write_text("task: detection\n")
    return tmp_path


def write(run, step):
    (run / f"checkpoints/step_{step:08d}").mkdir(parents=True)
    (run / "checkpoints/last").write_text(f"step_{step:08d}\n")
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "train", "step": step, "loss": 1.0, "losses": {"a": 1.0}}) + "\n")


def followed(run, rounds, show, checkpoint="last"):
    """`rounds` are called one after the other, each before a look at the folder."""
    page, waiting = Page(), iter(rounds)

    def until(seconds):
        act = next(waiting, None)
        if act is not None:
            act()
        return act is None

    WatchedRun(run, checkpoint).follow(page, show, until)
    return page


def test_each_checkpoint_is_shown_once_and_the_first_one_says_so(run):
    shown = []
    rounds = [lambda: None, lambda: write(run, 3), lambda: None, lambda: write(run, 6), lambda: None]
    page = followed(run, rounds, shown.append)
    assert shown == [True, False]
    assert [len(curves[0].steps) for curves in page.curves] == [1, 2]
    assert page.notes == ["", ""]


def test_a_checkpoint_that_goes_while_it_is_read_is_told_and_tried_again(run):
    write(run, 1)
    faults = iter([FileNotFoundError("gone"), DataError("x", "cut off"), None])

    def show(first):
        assert not first
        if (fault := next(faults)) is not None:
            raise fault

    page = followed(run, [lambda: write(run, 2), lambda: None, lambda: None, lambda: None], show)
    assert page.notes == ["gone", "x: cut off", ""]


def test_another_fault_is_not_hidden(run):
    def show(first):
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="of ours"):
        followed(run, [lambda: write(run, 1)], show)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="not the folder of a run"):
        WatchedRun(tmp_path, "last")
