"""`sparse3d convert-weights`: weights of another sparse engine in our layout."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say


def add(commands: Commands) -> None:
    """Register with the parser."""
    convert = add_command(
        commands,
        "convert-weights",
        _run,
        "Weights of another sparse engine in sparse3d's layout.",
    )
    convert.add_argument("weights", metavar="IN", help="a safetensors file, or one that torch wrote")
    convert.add_argument("out", metavar="OUT", help="the safetensors file to write")
    convert.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=["spconv1", "spconv2", "minkowski", "torchsparse", "openpcdet"],
        help="whose weights they are",
    )
    convert.add_argument(
        "--map",
        type=_prefixes,
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="change of a name's begin",
    )
    convert.add_argument(
        "--kernel",
        type=_kernel_size,
        action="append",
        default=[],
        metavar="NAME=AxBxC",
        help="kernel size of the sparse layers whose names begin so, where the shape does not tell it",
    )
    convert.add_argument(
        "--dense", action="append", default=[], metavar="NAME", help="weights of torch's own layers: kept"
    )
    convert.add_argument(
        "--axes",
        choices=["xyz", "zyx"],
        help="coordinates of the other network (default: xyz; openpcdet: zyx)",
    )
    convert.add_argument(
        "--dims", type=int, choices=[2, 3], default=3, help="of flat kernels (default: %(default)s)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.io.convert_openpcdet import convert_openpcdet
    from sparse3d.io.convert_weights import Hints, convert, rename, table
    from sparse3d.io.weight_files import read_tensors, write_tensors

    origin, out = arguments.source, Path(arguments.out)
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: the result is a safetensors file, its name must end in .safetensors")
    if origin == "openpcdet" and arguments.axes == "xyz":
        raise ValueError("--axes xyz: the data of OpenPCDet's detectors are zyx")
    hints = Hints(dict(arguments.kernel), arguments.dense, arguments.axes or "xyz", arguments.dims)
    tensors = read_tensors(arguments.weights)
    if origin == "openpcdet":
        entries = convert_openpcdet(tensors, hints, arguments.weights)
    else:
        entries = convert(tensors, origin, hints, arguments.weights)
    entries = rename(entries, dict(arguments.map), arguments.weights)
    Console().print(table(entries))
    written = {entry.name: entry.tensor for entry in entries if entry.name and entry.tensor is not None}
    write_tensors(out, written, origin)
    say(f"{len(written)} of {len(entries)} tensors written to {out}")
    return 0


def _prefixes(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW")
    return old, new


def _kernel_size(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, size = text.partition("=")
    sizes = size.split("x")
    if not equals or not all(k.isdigit() and int(k) > 0 for k in sizes) or len(sizes) not in (2, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=3x3x3")
    return name, tuple(int(k) for k in sizes)
