"""Files of weights: tensors by name, read without unpickling, written as safetensors."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes

STATE_KEYS = ("model_state", "state_dict", "model_state_dict", "model")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or from one that torch wrote, without unpickling objects.

    A checkpoint that keeps them in a part of its own (`model_state`, `state_dict`, ...) gives that part.
    Raises DataError for anything else.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(2)
    try:
        if start == b"PK" or start[:1] == b"\x80":
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        else:
            loaded = safetensors.torch.load_file(path)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named.group(1)})" if named else ""
        raise DataError(
            path,
            f"holds objects{what} that only unpickling could read, which can run any code; load it in the "
            "program that wrote it and save its tensors alone: torch.save(model.state_dict(), path)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(
            path, f"is neither a safetensors nor a torch file, or is truncated ({error})"
        ) from error
    return _tensors_of(loaded, path)


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise DataError(path, f"holds a {type(loaded).__name__}, expected tensors by name")
    parts = [key for key in STATE_KEYS if isinstance(loaded.get(key), Mapping)]
    if len(parts) > 1:
        raise DataError(path, f"holds several networks: {', '.join(parts)}; save one of them alone")
    state = loaded[parts[0]] if parts else loaded
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(loaded)[:8]))
        raise DataError(path, f"holds no tensors by name; its keys are: {keys}")
    return tensors


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Write one safetensors file, whole or not at all. `origin` goes into its header."""
    own = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    write_bytes(path, safetensors.torch.save(own, metadata={"format": "pt", "converted_from": origin}))
