"""Errors with a way out. The command line shows each of these as one line and ends with exit code 2."""

import importlib
from pathlib import Path
from types import ModuleType


class ConfigError(ValueError):
    """A config file, key, value or class name that does not exist or does not fit."""


class DataError(ValueError):
    """A file that is missing, truncated or corrupt. The message begins with its path (and offset or line)."""

    def __init__(self, path: str | Path, problem: str):
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self._arguments = path, problem

    def __reduce__(self) -> tuple[type["DataError"], tuple[str | Path, str]]:
        return type(self), self._arguments  # pickle would call it with the message alone


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra of sparse3d brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed; get it with: pip install 'sparse3d[{extra}]'"
        ) from error
