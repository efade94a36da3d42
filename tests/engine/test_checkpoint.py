"""Checkpoints are whole or not there, whatever happens while they are written."""

import errno
import json
import os
import shutil

import pytest
import torch

from sparse3d.engine import checkpoint as module
from sparse3d.engine.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    load_weights,
    read_checkpoint,
)
from sparse3d.errors import DataError


def made(step, value=1.0):
    return Checkpoint({"model.w": torch.full((3,), value)}, {"step": step})


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("step_"))


def test_round_trip_keeps_every_kind_of_tensor_and_value(tmp_path):
    tied = torch.randn(2, 3)
    tensors = {
        "model.a": tied,
        "model.b": tied,  # the same memory
        "model.empty": torch.zeros(0, 4),
        "model.scalar": torch.tensor(3, dtype=torch.int64),
        "model.half": torch.randn(5).bfloat16(),
        "model.view": torch.randn(4, 4).t(),
        "rng.torch": torch.get_rng_state(),
    }
    state = {"step": 7, "lr": 0.1 + 0.2, "nested": {"list": [1, None, "x"]}}
    got = read_checkpoint(CheckpointFolder(tmp_path).save(Checkpoint(tensors, state)))
    assert got.state == {"format": 1, **state}
    assert got.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert got.tensors[name].dtype == tensor.dtype and torch.equal(got.tensors[name], tensor)
    assert got.part("rng").keys() == {"torch"}


def test_newest_and_best_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for step, metric in [(1, 0.1), (2, 0.9), (3, 0.5), (4, 0.2), (5, 0.3)]:
        folder.save(made(step), ("ap", metric) if metric in (0.1, 0.9) else None)
    assert names(tmp_path) == ["step_00000002", "step_00000004", "step_00000005"]
    assert folder.find("last").name == "step_00000005"
    assert folder.find("best").name == folder.find("2").name == "step_00000002"
    best = folder.best()
    assert best is not None and (best.metric, best.value) == ("ap", 0.9)


def test_unknown_checkpoint_lists_those_that_are_there(tmp_path):
    CheckpointFolder(tmp_path).save(made(3))
    with pytest.raises(FileNotFoundError, match="no checkpoint '9'.*there are: step_00000003"):
        CheckpointFolder(tmp_path).find("9")


@pytest.mark.parametrize("call", range(5))
def test_full_disk_at_any_sync_leaves_the_former_one(tmp_path, monkeypatch, call):
    """Syncs of a save: tensors, state, temporary folder, checkpoints folder, pointer."""
    folder = CheckpointFolder(tmp_path)
    folder.save(made(1, 1.0))
    calls, real = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as caught:
        folder.save(made(2, 2.0))
    message = str(caught.value)
    assert "No space left on device" in message and "is intact" in message and "--resume" in message
    monkeypatch.undo()
    assert len(calls) == call + 1
    last = folder.find("last")
    expected = 1.0 if last.name == "step_00000001" else 2.0
    assert torch.equal(read_checkpoint(last).tensors["model.w"], torch.full((3,), expected))
    assert last.name == "step_00000001"
    folder.save(made(2, 2.0))
    assert folder.find("last").name == "step_00000002"
    assert not list(tmp_path.glob(".*")), "leftovers of failed writes are cleaned"


def test_kill_in_the_middle_leaves_the_former_one_and_is_cleaned_up(tmp_path, monkeypatch):
    """A kill runs no cleanup at all: the temporary folder stays until the next save."""
    folder = CheckpointFolder(tmp_path)
    folder.save(made(1))

    def killed(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_synced", killed)
        patch.setattr(shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(SystemExit):
            folder.save(made(2))
    assert list(tmp_path.glob(".step_00000002.*"))
    assert folder.find("last").name == "step_00000001"
    folder.save(made(2, 5.0))
    assert read_checkpoint(folder.find("last")).tensors["model.w"][0] == 5.0
    assert not list(tmp_path.glob(".*"))


def test_lost_pointer_falls_back_to_the_newest_folder(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(made(1))
    folder.save(made(2))
    (tmp_path / "last").write_text("../../elsewhere")
    assert folder.find("last").name == "step_00000002"
    (tmp_path / "last").unlink()
    assert folder.find("last").name == "step_00000002"


@pytest.mark.parametrize("cut", [0, 4, 40, -1])
def test_truncated_tensors_are_named(tmp_path, cut):
    path = CheckpointFolder(tmp_path).save(made(1)) / module.TENSORS
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="tensors.safetensors: truncated or corrupt"):
        read_checkpoint(path.parent)


def test_damaged_state_is_named(tmp_path):
    folder = CheckpointFolder(tmp_path).save(made(1))
    (folder / module.STATE).write_text("{")
    with pytest.raises(DataError, match="state.json: not valid JSON"):
        read_checkpoint(folder)
    (folder / module.STATE).write_text(json.dumps({"format": 99}))
    with pytest.raises(DataError, match="not a checkpoint of format 1"):
        read_checkpoint(folder)
    (folder / module.STATE).unlink()
    with pytest.raises(DataError, match="state.json: missing"):
        read_checkpoint(folder)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    model = torch.nn.Linear(3, 2)
    tensors = {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}
    with pytest.raises(DataError) as caught:
        load_weights(model, tensors, "run/checkpoints/step_1")
    message = str(caught.value)
    assert message.startswith("run/checkpoints/step_1: ")
    for part in ("1 missing: bias", "1 unexpected: scale", "weight is (2, 4), the model has (2, 3)"):
        assert part in message
