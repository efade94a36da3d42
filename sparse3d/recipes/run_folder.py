"""The folder of one run: `config.yaml` (resolved), `metrics.jsonl`, `checkpoints/`, `evaluation/`."""

from pathlib import Path
from typing import Any, TypeVar

from sparse3d import config as configs
from sparse3d.engine.checkpoint import CheckpointFolder
from sparse3d.errors import ConfigError, DataError

T = TypeVar("T")

# Keys that a resumed run may change: they decide where and when, not what is learned.
FREE_KEYS = (
    "train.max_minutes",
    "train.device",
    "loader.workers",
    "checkpoint.",
    "evaluation.",
    "log.",
    "data.root",
    "data.cache_dir",
    "distillation.source",
    "generate",
)


class RunFolder:
    """Paths of a run."""

    def __init__(self, path: str | Path, keep: int = 2):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "evaluation"
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", keep)

    @property
    def has_begun(self) -> bool:
        """False for a run that failed before its first step (no data, say); it may be started again."""
        return self.metrics.exists() or self.checkpoints.last() is not None

    def start(self, config: Any, resume: bool, if_begun: bool = False) -> None:
        """Claim the folder for a run of `config`, or go on with the run that is in it (`if_begun`: whichever
        it takes). Raises ConfigError."""
        resume = resume or if_begun and self.config.exists()
        if not self.config.exists():
            if resume:
                raise ConfigError(
                    f"--resume: no run in {self.path} (it has no config.yaml); start it without"
                )
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ConfigError(f"{self.path} exists and is not a run; choose another folder with --out")
        elif resume:
            changed = changed_keys(self.read_config(type(config)), config)
            changed = [key for key in changed if not key.startswith(FREE_KEYS)]
            if changed:
                raise ConfigError(
                    f"--resume: the config differs from {self.config} in {', '.join(changed[:5])}; "
                    "resume with the same config, or start a new run with another --out"
                )
        elif self.has_begun:
            raise ConfigError(
                f"{self.path} already holds a run; continue it with --resume, "
                "or choose another folder with --out"
            )
        configs.dump(config, self.config)

    def check(self) -> None:
        """DataError unless a run was started in this folder."""
        if not self.config.is_file():
            raise DataError(
                self.path, "not the folder of a run: it has no config.yaml; name what --out named"
            )

    def read_config(self, cls: type[T]) -> T:
        """The config that the run was started with."""
        self.check()
        return configs.load(cls, self.config)


def changed_keys(one: Any, other: Any) -> list[str]:
    """Dotted names of the values in which two configs differ."""
    a, b = _flat(configs.to_dict(one)), _flat(configs.to_dict(other))
    missing = object()
    return [key for key in dict.fromkeys([*a, *b]) if a.get(key, missing) != b.get(key, missing)]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in _flat(below, f"{prefix}.{name}" if prefix else name).items()
    }
