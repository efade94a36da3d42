"""`sparse3d convert IN OUT`: a file in another format."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say


class Kind(NamedTuple):
    """A kind of thing that files hold: whether one does, and what converts it."""

    name: str
    holds: Callable[[Path], bool]
    convert: Callable[[argparse.Namespace], None]


def add(commands: Commands) -> None:
    """Register with the parser."""
    convert = add_command(commands, "convert", _run, "Gaussian splats in another format.")
    convert.add_argument("source", type=Path, metavar="IN", help=f"{_ENDINGS}, or a folder of .sog's files")
    convert.add_argument("target", type=Path, metavar="OUT", help="the same; the ending picks the format")
    convert.add_argument(
        "--frame",
        metavar="AXES",
        help="where x, y, z point in IN, as RDF: right, down, front (default: by format)",
    )
    convert.add_argument(
        "--out-frame", metavar="AXES", help="where they are to point in OUT (default: by format)"
    )
    convert.add_argument("--spz-version", type=int, choices=[2, 3, 4], help="of .spz (default: 4)")
    convert.add_argument("--no-check", action="store_true", help="don't read OUT back to compare it")


_ENDINGS = ".ply, .compressed.ply, .splat, .spz, .sog or .glb"


def _run(arguments: argparse.Namespace) -> int:
    for kind in KINDS:
        if kind.holds(arguments.source):
            kind.convert(arguments)
            return 0
    raise ValueError(f"{arguments.source}: not a file that can be converted; there are {_ENDINGS}")


def _holds_splats(path: Path) -> bool:
    from sparse3d.gaussians.formats.table import format_of

    try:
        format_of(path)
    except ValueError:
        return False
    return True


def _convert_splats(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from sparse3d.gaussians.formats.converting import convert
    from sparse3d.gaussians.formats.table import format_of

    options = {}
    if arguments.spz_version is not None:
        if format_of(arguments.target).name != "spz":
            raise ValueError(f"--spz-version: {arguments.target} is no .spz")
        options["version"] = arguments.spz_version
    done = convert(
        arguments.source,
        arguments.target,
        axes=arguments.frame,
        target_axes=arguments.out_frame,
        compare=not arguments.no_check,
        **options,
    )
    came = done.came
    kind = "surfels" if came.splats.surfels else "Gaussians"
    bounds = ", ".join(f"{a} {l:.4g} to {h:.4g}" for a, l, h in zip("xyz", came.low, came.high, strict=True))
    print(f"{came.count} {kind}, SH degree {came.splats.sh_degree}; {bounds} m")
    if came.repairs:
        print(f"mended: {came.repairs}")
    if done.sh_degree < came.splats.sh_degree:
        print(f"SH degree {done.sh_degree} is the highest that {done.form.name} holds; the rest is left out")
    if came.splats.surfels and not done.surfels:
        print(f"{done.form.name} has no surfels: written as Gaussians of no thickness")
    if done.losses is not None:
        table = Table("attribute", "rms error", "largest", "unit")
        for loss in done.losses:
            table.add_row(loss.name, f"{loss.rms:.3g}", f"{loss.most:.3g}", loss.unit)
        Console().print(table)
    before, after = (_bytes(path) for path in (arguments.source, arguments.target))
    say(f"{before / 1e6:.2f} MB -> {after / 1e6:.2f} MB, axes {done.axes}: {arguments.target}")


def _bytes(path: Path) -> int:
    """Size of a file, or of what lies beside a list of files."""
    folder = path if path.is_dir() else path.parent if path.suffix == ".json" else None
    return sum(p.stat().st_size for p in folder.iterdir()) if folder else path.stat().st_size


# Asked in this order: the endings of meshes and of Gaussians overlap.
KINDS = (Kind("Gaussian splats", _holds_splats, _convert_splats),)
