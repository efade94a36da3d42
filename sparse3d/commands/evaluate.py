"""`sparse3d evaluate`: how good a trained model is on labelled data, or a mesh against the true surface."""

import argparse

from sparse3d.commands.mesh_options import add_frame_options, frame_of
from sparse3d.commands.parsing import Commands, add_command, add_run_arguments
from sparse3d.commands.talk import Bar, say


def add(commands: Commands) -> None:
    """Register with the parser."""
    evaluate = add_command(commands, "evaluate", _run, "Judge a trained model on labelled data, or a mesh.")
    add_run_arguments(evaluate, "folder of a training run, or a mesh with --against or --dtu")
    evaluate.add_argument("--split", help="e.g. val, train (default: what the run's config says)")
    evaluate.add_argument("--tta", action="store_true", help="segmentation: average over eight views")
    evaluate.add_argument(
        "--analyse", action="store_true", help="detection: also write a page of what is wrong, analysis.html"
    )
    evaluate.add_argument("--data", metavar="DIR", help="a folder to use in place of the run's data.root")
    surface = evaluate.add_argument_group("a mesh (.ply, .obj, .glb, .stl) against its truth")
    surface.add_argument(
        "--against", metavar="TRUTH", help="a mesh, a cloud, three_spheres, or sphere:X,Y,Z,RADIUS in metres"
    )
    surface.add_argument(
        "--threshold", type=float, metavar="T", help="metres, of the F-score (default: 1 %% of the diagonal)"
    )
    surface.add_argument(
        "--samples", type=int, default=100_000, metavar="N", help="points on each (default: %(default)s)"
    )
    surface.add_argument("--dtu", metavar="DIR", help="DTU's folder with ObsMask/ and Points/")
    surface.add_argument("--scan", type=int, metavar="N", help="which of its scans")
    surface.add_argument(
        "--cameras",
        metavar="DIR",
        help="photos with cameras_sphere.npz, whose frame the mesh is in (default: DTU's own, mm)",
    )
    add_frame_options(evaluate)


def _run_surface(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.io.meshes import read_mesh
    from sparse3d.recipes import surface_scores

    if arguments.against is not None and arguments.dtu is not None:
        raise ValueError("--against and --dtu are two truths; give one")
    if (arguments.dtu is None) != (arguments.scan is None):
        raise ValueError("--dtu and --scan belong together: --dtu DIR --scan 24")
    mesh = read_mesh(arguments.run_folder, frame_of(arguments))
    if arguments.dtu is not None:
        found = surface_scores.score_dtu_scan(mesh, arguments.dtu, arguments.scan, arguments.cameras)
        truth = f"scan {arguments.scan} of DTU"
    else:
        assert arguments.against is not None
        found = surface_scores.score_surface(mesh, arguments.against, arguments.threshold, arguments.samples)
        truth = arguments.against
    triangles = f"{len(mesh.faces)} triangles, {'closed' if mesh.is_closed else 'open'}"
    Console().print(*surface_scores.tables(found, mesh=triangles, against=truth))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.against is not None or arguments.dtu is not None or arguments.scan is not None:
        return _run_surface(arguments)
    from rich.console import Console

    from sparse3d.recipes import tasks

    task = tasks.task_of_run(arguments.run_folder)
    options = {"tta": True} if arguments.tta else {}
    if options and task.name != "segmentation":
        raise ValueError(
            f"--tta averages over views of a scan for segmentation; this is a run of {task.name}"
        )
    if arguments.analyse and task.name != "detection":
        raise ValueError(f"--analyse looks at detections; this is a run of {task.name}")
    with Bar("evaluating") as report:
        outcome = task.recipe.evaluate(
            arguments.run_folder,
            arguments.split,
            arguments.checkpoint,
            device=arguments.device,
            data_root=arguments.data,
            progress=report,
            **options,
        )
    if outcome is None:  # not the first of several processes: nothing to tell
        return 0
    Console().print(*outcome.judgement.tables())
    say(f"{outcome.checkpoint.name}; written to {outcome.folder}")
    if arguments.analyse:
        from sparse3d.commands.detection_page import write_page

        page = outcome.folder / "analysis.html"
        title = f"{arguments.run_folder}, {outcome.checkpoint.name}, split {outcome.folder.name}"
        write_page(page, outcome.judgement, outcome.dataset, outcome.bounds, title)
        say(f"look at {page}")
    return 0
