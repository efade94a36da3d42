"""Checkpoints: one folder each, whole or not there.

    checkpoints/step_00000120/tensors.safetensors    model.*, ema.*, optimizer.*, rng.*
    checkpoints/step_00000120/state.json             step, epoch, sampler position, versions, ...
    checkpoints/last                                 the name of the newest one, written after it is complete
    checkpoints/best                                 JSON: name, metric, value

A folder is written under a temporary name, synced and renamed; nothing is ever unpickled.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from sparse3d.errors import DataError
from sparse3d.io.files import write_text

TENSORS, STATE = "tensors.safetensors", "state.json"
FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the former one is intact."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to continue: tensors by name, and JSON values for the rest."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix.`, without it."""
        start = prefix + "."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


@dataclass(frozen=True)
class Best:
    """The best checkpoint so far by one metric."""

    name: str
    metric: str
    value: float


class CheckpointFolder:
    """The `checkpoints/` folder of a run: writes, prunes and finds checkpoints."""

    def __init__(self, folder: str | Path, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def save(self, checkpoint: Checkpoint, best: tuple[str, float] | None = None) -> Path:
        """Write a checkpoint, then point `last` (and `best`: metric and value) at it, then drop old ones.

        A kill or a full disk at any moment leaves the former checkpoints loadable. Raises CheckpointError.
        """
        name = f"step_{checkpoint.state['step']:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear_leftovers()
            # A folder that stands is complete, and runs repeat bit for bit: the same step needs no second
            # writing.
            if not (self.folder / name).is_dir():
                self._write_folder(name, checkpoint)
            write_text(self.folder / "last", name + "\n")
            if best is not None:
                value = {"name": name, "metric": best[0], "value": best[1]}
                write_text(self.folder / "best", json.dumps(value) + "\n")
        except OSError as error:
            former = self.last()
            intact = f"{former.name} is intact" if former else "there is no former one"
            raise CheckpointError(
                f"cannot write checkpoint {self.folder / name}: {error.strerror or error}; {intact}. "
                "Free disk space (or lower train.checkpoint.keep) and continue with --resume"
            ) from error
        self._prune()
        return self.folder / name

    def last(self) -> Path | None:
        """The newest complete checkpoint."""
        pointer = self.folder / "last"
        if pointer.is_file():
            named = self.folder / pointer.read_text(encoding="utf-8").strip()
            if named.parent == self.folder and named.is_dir():
                return named
        return max(self._complete(), default=None)

    def best(self) -> Best | None:
        """The best checkpoint by the metric of the run, if there is one."""
        path = self.folder / "best"
        if not path.is_file():
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            best = Best(str(value["name"]), str(value["metric"]), float(value["value"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path, f"not the pointer to a best checkpoint ({error}); delete it") from error
        return best if (self.folder / best.name).is_dir() else None

    def find(self, which: str) -> Path:
        """A checkpoint by "last", "best", a step number or the name of its folder."""
        if which == "last":
            found = self.last()
        elif which == "best":
            best = self.best()
            found = self.folder / best.name if best else self.last()
        else:
            found = self.folder / (f"step_{int(which):08d}" if which.isdigit() else which)
        if found is None or not found.is_dir():
            known = ", ".join(path.name for path in sorted(self._complete())) or "none"
            raise FileNotFoundError(f"no checkpoint '{which}' in {self.folder}; there are: {known}")
        return found

    def _complete(self) -> list[Path]:
        return [path for path in self.folder.glob("step_*") if path.is_dir()]

    def _write_folder(self, name: str, checkpoint: Checkpoint) -> None:
        # Serialised first and written by Python: a full disk is then an OSError (safetensors' own writer may
        # map the file into memory, where a full disk is a signal that ends the process).
        tensors = safetensors.torch.save(_independent(checkpoint.tensors), metadata={"format": "pt"})
        state = json.dumps({"format": FORMAT, **checkpoint.state}, indent=1).encode()
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=self.folder))
        try:
            _write_synced(temporary / TENSORS, tensors)
            _write_synced(temporary / STATE, state)
            _sync_folder(temporary)
            os.chmod(temporary, 0o755)
            os.replace(temporary, self.folder / name)
            _sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _clear_leftovers(self) -> None:
        for path in self.folder.glob(".step_*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        best = self.best()
        kept = {path.name for path in sorted(self._complete())[-self.keep :]}
        kept |= {best.name} if best else set()
        for path in self._complete():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read one checkpoint folder. Raises DataError naming the file that is missing, truncated or corrupt."""
    folder = Path(folder)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(folder / STATE, "missing; this is not a complete checkpoint") from error
    except ValueError as error:
        raise DataError(folder / STATE, f"not valid JSON ({error})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(folder / STATE, f"not a checkpoint of format {FORMAT}; written by another version?")
    try:
        tensors = safetensors.torch.load_file(folder / TENSORS)
    except FileNotFoundError as error:
        raise DataError(folder / TENSORS, "missing; this is not a complete checkpoint") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(folder / TENSORS, f"truncated or corrupt ({error})") from error
    return Checkpoint(tensors, state)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy `tensors` into `model`'s state. Raises DataError that lists every name and shape that does not
    fit.
    """
    own = model.state_dict()
    check_names(own, tensors, source)
    model.load_state_dict(dict(tensors))


def check_names(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise a DataError unless both have the same names with the same shapes."""
    missing = [name for name in expected if name not in got]
    unexpected = [name for name in got if name not in expected]
    wrong = [
        f"{name} is {tuple(got[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in got and got[name].shape != tensor.shape
    ]
    listed = ((missing, "missing"), (unexpected, "unexpected"), (wrong, "of another shape"))
    problems = [f"{len(names)} {what}: {_few(names)}" for names, what in listed if names]
    if problems:
        way_out = "is the config the one that it was trained with?"
        raise DataError(source, f"does not fit the model; {'; '.join(problems)}; {way_out}")


def better(metric: float, best: Best | None) -> bool:
    """Larger metrics are better, of equal ones the later; NaN never is."""
    return not math.isnan(metric) and (best is None or metric >= best.value)


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Tied weights share memory, which the format does not know: each name gets values of its own.
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return result


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
