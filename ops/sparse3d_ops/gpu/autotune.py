"""Choices of how a kernel is cut up: tried once a shape on this GPU, then kept on disk.

$SPARSE3D_CONV_TUNING, or `use`, says what is done:

- `on` (the default): a shape that is new is tried; choices are kept in $SPARSE3D_CACHE (default: `sparse3d`
  in $XDG_CACHE_HOME or ~/.cache), one file for each kind of GPU and version of Triton. With
  `torch.use_deterministic_algorithms(True)` this is `off`.
- `off`: the default choice, which depends on sizes alone.
- a path: choices are read from that file and new shapes take the default; nothing is tried or written.

A choice can change the order of sums, so bits repeat from run to run where choices do: with `off`, with a
file, or with `on` once the file holds all shapes. Every process tries for itself and waits for no other;
files are written whole, under another name first. A file that cannot be read or written is a warning. Nothing
is tried on a CPU tensor or while a CUDA graph is captured.
"""

import json
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

# A choice is a NamedTuple of integers.
C = TypeVar("C", bound=tuple[int, ...])
Round = Callable[[C], list[C]]

VARIABLE = "SPARSE3D_CONV_TUNING"
# A first launch compiles; of the others the fastest counts, since whatever disturbs a launch makes it slower.
REPEATS = 5
# A choice that was once this much slower than the best is not measured again.
HOPELESS = 2.0

_lock = threading.RLock()
_mode: str | None = None
_stores: dict[tuple[str, torch.device], "Store"] = {}


def use(mode: str | None) -> None:
    """Set what $SPARSE3D_CONV_TUNING says, for this process; None: as the variable says."""
    global _mode
    with _lock:
        _mode = mode
        _stores.clear()


def mode() -> str:
    """`on`, `off` or a path."""
    return _mode or os.environ.get(VARIABLE) or "on"


def cache_folder() -> Path:
    named = os.environ.get("SPARSE3D_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse3d"


def file_name(device_name: str) -> str:
    """One file for each kind of GPU and version of Triton: a choice is good for these alone."""
    import triton

    return re.sub(r"[^A-Za-z0-9.]+", "-", f"conv tuning {device_name} triton {triton.__version__}") + ".json"


class Store:
    """The choices in one file: {task: list of integers}. Anything else is ignored with a warning."""

    def __init__(self, path: Path, writable: bool):
        self.path, self.writable = path, writable
        self.choices = self._read()

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))["choices"]
            if not all(_is_choice(value) for value in found.values()):
                raise ValueError("a choice is not a list of integers")
            return dict(found)
        except FileNotFoundError:
            if not self.writable:
                warnings.warn(f"{self.path}: no such file; {VARIABLE} names it", stacklevel=2)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warnings.warn(f"{self.path}: tuned choices are ignored: {error!r}", stacklevel=2)
        return {}

    def add(self, task: str, choice: tuple[int, ...]) -> None:
        """Keep a choice, and write it together with what other processes have written since."""
        self.choices[task] = list(choice)
        if not self.writable:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self.choices = self._read() | self.choices
            self._write()
        except OSError as error:
            self.writable = False  # one warning is enough
            warnings.warn(f"{self.path}: tuned choices are not kept: {error!r}", stacklevel=2)

    def _write(self) -> None:
        text = json.dumps({"choices": dict(sorted(self.choices.items()))}, indent=1)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name, suffix=".new")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise


def _is_choice(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def store(device: torch.device) -> Store | None:
    """Where choices for a device are, or None where the default choice is to be taken."""
    wanted = mode()
    if wanted == "off" or (wanted == "on" and torch.are_deterministic_algorithms_enabled()):
        return None
    if wanted == "on" and device.type != "cuda":
        return None
    with _lock:
        key = (wanted, device)
        if key not in _stores:
            kept = wanted == "on"
            path = cache_folder() / file_name(torch.cuda.get_device_name(device)) if kept else Path(wanted)
            same = [store for store in _stores.values() if store.path == path]
            _stores[key] = same[0] if same else Store(path, writable=kept)
        return _stores[key]


def choose(
    task: str,
    device: torch.device,
    default: C,
    rounds: list[Round[C]],
    allowed: Callable[[C], bool],
    run: Callable[[C], object],
) -> C:
    """The choice for a task: a stored one, or the fastest that the rounds find, or the default.

    `task` names the kernel and the bucket of shapes that share a choice. Each round yields choices from the
    best so far; `run` launches the kernel with a choice.
    """
    kept = store(device)
    if kept is None:
        return default
    with _lock:
        found = kept.choices.get(task)
        if found is not None and len(found) == len(default):
            choice = default.__class__(*found)  # pyright: ignore[reportArgumentType]
            if allowed(choice):
                return choice
        if not kept.writable and mode() != "on":
            return default
        if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return default
        best = search(default, rounds, lambda choice, limit: milliseconds(run, choice, device, limit))
        kept.add(task, best)
        return best


def search(start: C, rounds: list[Round[C]], cost: Callable[[C, float], float]) -> C:
    """The cheapest choice that the rounds find; of equals the first. `cost(choice, limit)` may stop early
    beyond the limit; infinite for a choice that does not run."""
    best, least = start, cost(start, float("inf"))
    for vary in rounds:
        tried = {best}
        for choice in vary(best):
            if choice in tried:
                continue
            tried.add(choice)
            spent = cost(choice, least)
            if spent < least:
                best, least = choice, spent
    return best


def milliseconds(run: Callable[[C], object], choice: C, device: torch.device, limit: float) -> float:
    """The fastest of a few launches; infinite where the GPU has no room for a choice or cannot compile it."""
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    try:
        run(choice)
    except (OutOfResources, PTXASError, CompilationError, torch.OutOfMemoryError):
        return float("inf")
    fastest = float("inf")
    stream = torch.cuda.current_stream(device)
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        run(choice)
        end.record(stream)
        end.synchronize()
        fastest = min(fastest, begin.elapsed_time(end))
        if fastest > HOPELESS * limit:
            break
    return fastest
