"""The command line: `sparse3d train | evaluate | detect | track | segment | data | config | ...`.

The commands are in `sparse3d/commands`. Everything heavy is imported inside of the command that needs it, so
that `--help` and typing errors answer at once. Faults of the input end as one line on stderr and exit code 2;
--debug shows the traceback instead.
"""

import argparse
import errno
import sys
from collections.abc import Sequence

from sparse3d import __version__
from sparse3d.commands import (
    config,
    convert,
    convert_weights,
    data,
    detect,
    distill,
    doctor,
    evaluate,
    fuse,
    mesh,
    reconstruct,
    render,
    segment,
    track,
    train,
    view,
)
from sparse3d.commands.parsing import INPUT_FAULT, Parser
from sparse3d.commands.talk import say
from sparse3d.commands.train import INTERRUPTED, how_to_resume

COMMANDS = (
    *(train, evaluate, detect, track, segment),
    *(reconstruct, distill, render, mesh, fuse),
    *(convert, view, data, config, convert_weights, doctor),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 good, 1 a check failed, 2 fault of the input, 130 interrupted."""
    try:
        arguments = _parse(argv)
    except SystemExit as end:  # argparse has printed help (0) or the fault (2)
        return end.code if isinstance(end.code, int) else INPUT_FAULT
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        say(f"interrupted{how_to_resume(arguments)}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `sparse3d ... | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if arguments.debug or not _is_input_fault(error):
            raise
        say(f"error: {_in_one_line(error, arguments)}")
        return INPUT_FAULT


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse stops taking overrides at the first option; `train X --resume a.b=c` needs a second look."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if "overrides" in arguments:
        arguments.overrides += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in arguments.overrides]
    if rest:
        parser.error(f"cannot use {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sparse3d",
        description="3D perception and reconstruction on sparse voxels: scans to objects, photos to scenes.",
        epilog="Start with: sparse3d train centerpoint_minidrive",
    )
    parser.add_argument("--version", action="version", version=f"sparse3d {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _is_input_fault(error: Exception) -> bool:
    from sparse3d.errors import MissingExtraError

    faults = [ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError]
    if isinstance(error, (*faults, FileExistsError, MissingExtraError)) or _is_full_disk(error):
        return True
    engine = sys.modules.get("sparse3d.engine.checkpoint"), sys.modules.get("sparse3d.engine.diverged")
    named = [getattr(engine[0], "CheckpointError", None), getattr(engine[1], "TrainingDiverged", None)]
    return any(kind is not None and isinstance(error, kind) for kind in named)


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _in_one_line(error: Exception, arguments: argparse.Namespace) -> str:
    text = " ".join(str(error).split())
    if not _is_full_disk(error):
        return text
    # Files are whole or not there, so that the same command can simply be given again.
    way_out = how_to_resume(arguments) or " and give the same command again"
    return f"the disk is full ({text}); make room{way_out}"


if __name__ == "__main__":
    sys.exit(main())
