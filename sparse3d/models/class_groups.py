"""Classes that share the outputs of a head: groups of names in a config, labels in a network."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from sparse3d.errors import ConfigError


def group_labels(groups: Sequence[Sequence[str]], classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The labels of each group, a channel each; no groups mean one of all classes. ConfigError unless the
    groups hold each class once."""
    grouped = [name for group in groups for name in group]
    if grouped and sorted(grouped) != sorted(classes):
        raise ConfigError(f"head.groups hold {grouped}, expected each of {list(classes)} once")
    return tuple(tuple(list(classes).index(name) for name in group) for group in groups or (classes,))


def sum_losses(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of several groups, added name by name."""
    total: dict[str, Tensor] = {}
    for losses in parts:
        for name, value in losses.items():
            total[name] = total[name] + value if name in total else value
    return total
