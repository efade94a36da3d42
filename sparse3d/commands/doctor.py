"""`sparse3d doctor`: what this machine offers."""

import argparse

from sparse3d.commands.parsing import Commands, add_command


def add(commands: Commands) -> None:
    """Register with the parser."""
    add_command(commands, "doctor", _run, "Say what this machine offers and test the kernels on it.")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.doctor import examine

    return 0 if examine() else 1
