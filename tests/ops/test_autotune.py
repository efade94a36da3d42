"""Laws of tuning: the search, the file of choices, and who decides."""

import json
import os
from typing import NamedTuple

import pytest
import torch

from sparse3d_ops.gpu import autotune

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Choice(NamedTuple):
    a: int
    b: int = 0


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(autotune.VARIABLE, raising=False)
    autotune.use(None)
    yield
    autotune.use(None)


def choose(task="t", device=CPU, allowed=lambda choice: True):
    return autotune.choose(task, device, Choice(1), [], allowed, lambda choice: pytest.fail("was launched"))


def test_each_round_starts_from_the_best_so_far_and_the_first_of_equals_wins():
    tried = []

    def cost(choice, limit):
        tried.append(choice)
        return (choice.a - 3) ** 2 + (choice.b - 1) ** 2 + (0 if choice.a < 5 else float("inf"))

    rounds = [
        lambda best: [best._replace(a=a) for a in (1, 2, 4, 5)],  # 2 and 4 cost the same
        lambda best: [best._replace(b=b) for b in (0, 1, 2)],
    ]
    assert autotune.search(Choice(1), rounds, cost) == Choice(2, 1)
    assert len(tried) == len(set(tried))


def test_a_search_in_which_nothing_runs_keeps_the_default():
    rounds = [lambda best: [Choice(2), Choice(3)]]
    assert autotune.search(Choice(1), rounds, lambda choice, limit: float("inf")) == Choice(1)


def test_choices_outlive_the_process_and_join_those_of_another(tmp_path):
    path = tmp_path / "new" / "folder" / "choices.json"
    mine, theirs = autotune.Store(path, True), autotune.Store(path, True)
    mine.add("a", Choice(1, 2))
    theirs.add("b", Choice(3, 4))  # read before `a` was written
    assert autotune.Store(path, True).choices == {"a": [1, 2], "b": [3, 4]}
    assert [file.name for file in path.parent.iterdir()] == ["choices.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"choices": {"a": [1, ',
        b"\xff\xfe\x00",
        b"[]",
        b"3",
        b'{"other": 1}',
        b'{"choices": 4}',
        b'{"choices": {"a": 4}}',
        b'{"choices": {"a": [1, "x"]}}',
        b'{"choices": {"a": [1.5]}}',
        b'{"choices": {"a": [true]}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_a_warning_and_is_replaced(tmp_path, content):
    path = tmp_path / "choices.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="choices.json: tuned choices are ignored"):
        store = autotune.Store(path, True)
    assert store.choices == {}
    with pytest.warns(UserWarning, match="ignored"):
        store.add("b", Choice(5))
    assert json.loads(path.read_text()) == {"choices": {"b": [5, 0]}}


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="tuned choices are ignored"):
        store = autotune.Store(tmp_path / "file" / "choices.json", True)
    with pytest.warns(UserWarning, match="tuned choices are not kept"):
        store.add("a", Choice(1))
    store.add("b", Choice(2))
    assert store.choices == {"a": [1, 0], "b": [2, 0]}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "choices.json"
    store = autotune.Store(path, True)
    store.add("a", Choice(1))

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="no space left"):
        store.add("b", Choice(2))
    assert autotune.Store(path, True).choices == {"a": [1, 0]} and len(list(tmp_path.iterdir())) == 1


def test_a_named_file_decides_and_is_left_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "fixed.json"
    path.write_text('{"choices": {"t": [7, 8], "short": [7], "odd": [3, 3]}}')
    before = path.read_bytes()
    monkeypatch.setenv(autotune.VARIABLE, str(path))
    for device in (CPU, CUDA):
        assert choose("t", device) == Choice(7, 8)
        assert choose("new", device) == Choice(1)
        assert choose("short", device) == Choice(1)
        assert choose("odd", device, allowed=lambda choice: choice.a != 3) == Choice(1)
    assert path.read_bytes() == before


def test_a_named_file_that_is_not_there_is_a_warning(tmp_path):
    autotune.use(str(tmp_path / "missing.json"))
    with pytest.warns(UserWarning, match="no such file"):
        assert choose() == Choice(1)


def test_nothing_is_tried_when_off_or_deterministic_or_without_a_gpu(monkeypatch):
    assert autotune.store(CPU) is None and choose() == Choice(1)
    monkeypatch.setenv(autotune.VARIABLE, "off")
    assert autotune.store(CUDA) is None and choose(device=CUDA) == Choice(1)
    autotune.use("on")
    torch.use_deterministic_algorithms(True)
    try:
        assert choose(device=CUDA) == Choice(1)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_new_shape_is_tried_once_and_then_known_to_the_next_process(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU (80 GB)/x")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(autotune, "file_name", lambda name: "choices.json")
    costs = {Choice(1): 3.0, Choice(2): 1.0, Choice(3): 2.0}
    monkeypatch.setattr(autotune, "milliseconds", lambda run, choice, device, limit: run(choice))
    runs = []

    def run(choice):
        runs.append(choice)
        return costs[choice]

    def ask():
        rounds = [lambda best: list(costs)]
        return autotune.choose("t", CUDA, Choice(1), rounds, lambda choice: True, run)

    assert ask() == ask() == Choice(2) and len(runs) == 3
    autotune.use(None)  # forgets what was read, as a new process does
    assert ask() == Choice(2) and len(runs) == 3
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert autotune.choose("new", CUDA, Choice(1), [lambda best: list(costs)], bool, run) == Choice(1)
    assert len(runs) == 3
