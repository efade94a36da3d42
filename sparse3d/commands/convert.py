"""`sparse3d convert IN OUT`: any representation of a scene as any other, with what was lost."""

import argparse
from dataclasses import fields
from pathlib import Path

from sparse3d.commands.mesh_options import add_finish_options, add_frame_options, finish_of, frame_of
from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say

# Words of `sparse3d.recipes.conversion.kinds.Kind`, which is not imported for --help (held by a test).
KINDS = ("mesh", "band", "occupancy", "voxels", "gaussians", "surfels", "points")


def add(commands: Commands) -> None:
    """Register with the parser."""
    convert = add_command(
        commands,
        "convert",
        _run,
        "Meshes, voxels, Gaussians and points, each as any other and in any format.",
    )
    convert.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="a mesh (.ply .obj .glb .stl), Gaussians (.ply .compressed.ply .splat .spz .sog .glb, "
        "or a folder of .sog's files), points (.ply .pcd .npy .bin), voxels (.safetensors .npz), or a "
        "folder of a run",
    )
    convert.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="the same; the ending picks the format; a name without one is a folder of radiance "
        "voxels, which 'sparse3d render' draws",
    )
    convert.add_argument(
        "--to",
        choices=KINDS,
        help="what OUT is to hold, where its ending leaves that open (default: what IN is)",
    )
    convert.add_argument(
        "--report", action="store_true", help="how far surfaces and pictures change with each step"
    )
    made = convert.add_argument_group("how fine what is made is")
    made.add_argument(
        "--resolution", type=int, metavar="N", help="voxels along the longest side (default: 128)"
    )
    made.add_argument("--voxel-size", type=float, metavar="H", help="metres, in place of --resolution")
    made.add_argument(
        "--count", type=int, metavar="N", help="Gaussians, surfels or points (default: by size)"
    )
    made.add_argument(
        "--refine",
        type=int,
        metavar="STEPS",
        help="that what shows pictures is fitted to those of IN for (default: 300; 0 is quick)",
    )
    made.add_argument("--views", type=int, metavar="N", help="pictures to fit to (default: 24)")
    made.add_argument(
        "--view-size", type=int, metavar="P", help="pixels a side of them (default: twice --resolution)"
    )
    made.add_argument("--sh-degree", type=int, metavar="D", help="at most, of fitted colours (default: 2)")
    made.add_argument("--seed", type=int, metavar="S", help="(default: 0)")
    splats = convert.add_argument_group("files of Gaussians")
    splats.add_argument(
        "--frame",
        metavar="AXES",
        help="where x, y, z point in IN, as RDF: right, down, front (default: by format)",
    )
    splats.add_argument(
        "--out-frame", metavar="AXES", help="where they are to point in OUT (default: by format)"
    )
    splats.add_argument("--spz-version", type=int, choices=[2, 3, 4], help="of .spz (default: 4)")
    splats.add_argument("--no-check", action="store_true", help="don't read OUT back to compare it")
    add_finish_options(convert)
    add_frame_options(convert)


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes.conversion import files

    source, target = arguments.source, arguments.target
    if files.source_is_splats(source):
        held = files.kinds_for(target)
        same = {"gaussians", "surfels"} & set(held)
        # Gaussians stay Gaussians where nothing else is asked for: block by block, whatever their number.
        if same and arguments.to is None:
            _convert_splats(arguments)
            return 0
    _convert(arguments)
    say(f"{_bytes(source) / 1e6:.2f} MB -> {_bytes(target) / 1e6:.2f} MB: {target}")
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from sparse3d.geometry.mesh import Mesh
    from sparse3d.io.mesh_frames import WORLD
    from sparse3d.recipes.conversion import files, judging, steps
    from sparse3d.recipes.conversion.finishing import finished
    from sparse3d.recipes.conversion.kinds import ConversionConfig, described, kind_of
    from sparse3d.recipes.conversion.views import extent_of

    given = {field.name: getattr(arguments, field.name) for field in fields(ConversionConfig)}
    config = ConversionConfig(**{name: value for name, value in given.items() if value is not None})
    finish, frame, options = finish_of(arguments), frame_of(arguments), _splat_options(arguments)
    if (
        arguments.target.exists()
        and arguments.source.exists()
        and arguments.source.samefile(arguments.target)
    ):
        raise ValueError(f"{arguments.target}: is what is read; write to another name")
    thing = files.read_thing(arguments.source, WORLD, arguments.frame)
    source = kind_of(thing)
    target = files.target_kind(arguments.target, source, arguments.to)
    say(f"{source}: {described(thing)}")
    rows = []
    if arguments.report:
        made, rows = judging.convert_and_judge(thing, target, config)
    else:
        made = steps.convert(thing, target, config)
    if isinstance(made, Mesh):
        whole, made = made, finished(made, finish)
        if arguments.report and made is not whole:
            rows.append(judging.compared(whole, made, config))
    files.write_thing(arguments.target, made, frame, arguments.out_frame, **options)
    if rows:
        Console().print(judging.table(rows, config.voxel(extent_of(thing))))
    say(f"{target}: {described(made)}")


def _splat_options(arguments: argparse.Namespace) -> dict[str, object]:
    if arguments.spz_version is None:
        return {}
    if arguments.target.suffix.lower() != ".spz":
        raise ValueError(f"--spz-version: {arguments.target} is no .spz")
    return {"version": arguments.spz_version}


def _convert_splats(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from sparse3d.gaussians.formats.converting import convert

    done = convert(
        arguments.source,
        arguments.target,
        axes=arguments.frame,
        target_axes=arguments.out_frame,
        compare=not arguments.no_check,
        **_splat_options(arguments),
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
    """Size of a file, or of all in a folder (of what lies beside a list of files)."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    if path.suffix == ".json":
        return sum(p.stat().st_size for p in path.parent.iterdir())
    return path.stat().st_size
