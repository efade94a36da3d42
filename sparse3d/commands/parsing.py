"""Making parsers: the form of an error, options that commands share."""

import argparse
import difflib
from collections.abc import Callable
from typing import NoReturn

from sparse3d.commands.talk import say

INPUT_FAULT = 2


class Parser(argparse.ArgumentParser):
    """argparse with our form of an error: one line, with the nearest word for a typing error."""

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(INPUT_FAULT)

    def _check_value(self, action: argparse.Action, value: str) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in action.choices], n=1, cutoff=0.5)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(map(str, action.choices))}"
            )
            raise argparse.ArgumentError(None, f"unknown word '{value}'; {hint}")


# What `add_subparsers` gives; argparse keeps its name private.
Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A command that calls `run(arguments)`, which returns the exit code."""
    made = commands.add_parser(name, help=summary, description=summary)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(run=run)
    return made


def add_group(commands: Commands, name: str, help: str, description: str) -> Commands:
    """A command that only holds others: `sparse3d data check`."""
    group = commands.add_parser(name, help=help, description=description)
    return group.add_subparsers(dest=f"{name}_command", required=True, metavar="COMMAND", title="commands")


def add_run_arguments(parser: argparse.ArgumentParser, what: str = "folder of a training run") -> None:
    """Which trained model, and where it runs."""
    parser.add_argument("run_folder", metavar="RUN", help=what)
    parser.add_argument("--checkpoint", default="best", help="best, last or a step (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
