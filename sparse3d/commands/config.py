"""`sparse3d config list | show | keys`: what there is to configure."""

import argparse

from sparse3d.commands.parsing import Commands, add_command, add_group


def add(commands: Commands) -> None:
    """Register with the parser."""
    config = add_group(commands, "config", "List, show and explain configs.", "Configs.")
    add_command(config, "list", _list, "Names of the configs that come with sparse3d.")
    show = add_command(config, "show", _show, "A config with every value, defaults and bases resolved.")
    show.add_argument("name", metavar="CONFIG", help="a file or a name")
    show.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes, as for train")
    keys = add_command(config, "keys", _keys, "All keys of a config: type, default, meaning.")
    keys.add_argument(
        "--task",
        choices=["detection", "segmentation", "radiance", "splatting"],
        default="detection",
        help="(default: %(default)s)",
    )
    keys.add_argument("prefix", nargs="?", default="", help="only keys that begin so, e.g. train.")


def _list(arguments: argparse.Namespace) -> int:
    from sparse3d.config import config_names

    print("\n".join(config_names()))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.recipes import tasks

    print(config.to_yaml(tasks.load(arguments.name, arguments.overrides)), end="")
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.recipes.tasks import TASKS

    lines = config.describe(TASKS[arguments.task].config)
    print("\n".join(line for line in lines if line.startswith(arguments.prefix)))
    return 0
