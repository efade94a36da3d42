"""`sparse3d view`: look at point clouds, with what is labelled in them and what a model finds."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say

if TYPE_CHECKING:
    from sparse3d.commands.view_things import Gallery
    from sparse3d.viewers.scene import Scene


def add(commands: Commands) -> None:
    """Register with the parser."""
    view = add_command(commands, "view", _run, "Look at point clouds, their labels and a model's results.")
    view.add_argument(
        "thing", metavar="THING", help="a cloud (.bin .pcd .ply .npy), a folder or data set of them, or a RUN"
    )
    view.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="with a RUN: clouds, folders (default: its val split)",
    )
    view.add_argument("--out", type=Path, metavar="PNG", help="write a picture; needs no display")
    view.add_argument("--browser", action="store_true", help="a page in the browser, on this machine alone")
    view.add_argument("--port", type=int, default=0, help="of the page (default: one that is free)")
    view.add_argument("--frame", default="0", help="number or name of the first one (default: %(default)s)")
    view.add_argument(
        "--color", choices=["height", "intensity", "class"], help="(default: class where it is known)"
    )
    view.add_argument("--labels", type=Path, metavar="FILE", help="a SemanticKITTI .label of the cloud")
    view.add_argument("--columns", type=int, default=4, help="float32 values a point in .bin files")
    view.add_argument("--no-truth", action="store_true", help="without labelled boxes")
    view.add_argument("--data", metavar="DIR", help="with a RUN: a folder in place of its data.root")
    view.add_argument("--split", help="with a RUN: e.g. val, train (default: what it is judged on)")
    view.add_argument("--checkpoint", default="best", help="best, last or a step (default: %(default)s)")
    view.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    view.add_argument("--score", type=float, default=0.3, help="lowest score to show (default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.errors import require_extra

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    if arguments.out is not None and arguments.browser:
        raise ValueError("--out writes a picture, --browser opens a page: choose one")
    if arguments.out is None:  # before a model is loaded for nothing
        require_extra("viser" if arguments.browser else "open3d", "viz")
    names, scene = _gallery(arguments)
    start = _number(arguments.frame, names)
    if arguments.out is not None:
        return _picture(arguments, scene(start))
    if arguments.browser:
        from sparse3d.viewers.browser import SceneServer

        shown = SceneServer(len(names), scene, arguments.port, start)
        print(shown.url, flush=True)
        say("Ctrl-C ends it; who has this address sees the page, from this machine alone")
        shown.wait()
        return 0
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError("there is no display here; use --out picture.png, or --browser")
    from sparse3d.viewers.window import KEYS, SceneWindow

    say(KEYS)
    SceneWindow(len(names), scene, start, color_by=arguments.color, truth=not arguments.no_truth).run()
    return 0


def _gallery(arguments: argparse.Namespace) -> "Gallery":
    from functools import lru_cache

    from sparse3d.commands.view_things import Gallery, clouds_of, files_gallery

    thing = Path(arguments.thing)
    if (thing / "config.yaml").is_file():
        from sparse3d.commands.view_runs import RunChoice, run_gallery

        choice = RunChoice(thing, arguments.checkpoint, arguments.device, arguments.score)
        found = run_gallery(choice, arguments.inputs, arguments.split, arguments.data, arguments.columns)
    elif arguments.inputs:
        raise ValueError(f"{thing} is not the folder of a run, to be applied to {arguments.inputs[0]}")
    else:
        found = files_gallery(clouds_of(thing), arguments.columns, arguments.labels)
    # Going back and forth, or changing colours, must not run the model again.
    return Gallery(found.names, lru_cache(maxsize=8)(found.scene))


def _number(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    known = f"{names[0]} to {names[-1]}" if names else "the split is empty"
    raise ValueError(f"no frame {wanted!r}; there are {len(names)}: {known}")


def _picture(arguments: argparse.Namespace, scene: "Scene") -> int:
    from sparse3d.io.files import atomic_path
    from sparse3d.viewers.perspective import draw_scene

    if arguments.out.suffix.lower() != ".png":
        raise ValueError(f"{arguments.out}: the picture is a PNG, its name must end in .png")
    picture = draw_scene(scene, arguments.color, truth=not arguments.no_truth)
    with atomic_path(arguments.out) as temporary:
        picture.save(temporary, format="PNG")
    say(f"{len(scene.points)} points, {len(scene.found.boxes)} objects found, written to {arguments.out}")
    return 0
