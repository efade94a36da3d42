"""The command line: `sparse3d train | evaluate | detect | data | config | convert-weights | doctor`.

Everything heavy is imported inside of the command that needs it, so that `--help` and typing errors answer at
once. Faults of the input end as one line on stderr and exit code 2; --debug shows the traceback instead.
"""

import argparse
import difflib
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sparse3d import __version__

INPUT_FAULT, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 good, 1 a check failed, 2 fault of the input, 130 interrupted."""
    try:
        arguments = _parse(argv)
    except SystemExit as end:  # argparse has printed help (0) or the fault (2)
        return end.code if isinstance(end.code, int) else INPUT_FAULT
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        _say(f"interrupted{_how_to_resume(arguments)}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `sparse3d ... | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if arguments.debug or not _is_input_fault(error):
            raise
        _say(f"error: {_in_one_line(error, arguments)}")
        return INPUT_FAULT


# ---- commands ----------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.engine.hooks import StopOnSignal
    from sparse3d.recipes import detection
    from sparse3d.recipes.detection_config import DetectionConfig

    loaded = config.load(DetectionConfig, arguments.config, arguments.overrides)
    out = arguments.out or Path("runs") / Path(arguments.config).stem
    arguments.out = out
    with _bar("generating scenes") as report:
        outcome = detection.train(loaded, out, arguments.resume, progress_of_data=report)
    interrupted = outcome.ended == StopOnSignal.REASON
    if outcome.is_main and interrupted:
        _say(f"interrupted after a whole step, checkpoint written{_how_to_resume(arguments)}")
    elif outcome.is_main:
        _say(f"{outcome.ended}; evaluate with: sparse3d evaluate {outcome.run}")
    return INTERRUPTED if interrupted else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.recipes import detection

    with _bar("evaluating") as report:
        outcome = detection.evaluate(
            arguments.run_folder,
            arguments.split,
            arguments.checkpoint,
            device=arguments.device,
            data_root=arguments.data,
            progress=report,
        )
    Console().print(*outcome.judgement.tables())
    _say(f"{outcome.checkpoint.name}; written to {outcome.folder}")
    return 0


def _detect(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes import detect_files
    from sparse3d.recipes.detection import load_detector

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    run, out = arguments.run_folder, Path(arguments.out)
    model = load_detector(run, arguments.checkpoint, arguments.device).config.model
    found = detect_files.detect(
        run,
        arguments.inputs,
        out,
        arguments.score,
        arguments.checkpoint,
        calib=arguments.calib,
        device=arguments.device,
    )
    count = assumed = 0
    for path, points, detections, camera in found:
        count, assumed = count + 1, assumed + (camera.source is None)
        print(f"{path}: {len(detections.boxes)} objects")
        if arguments.pictures:
            from sparse3d.io.files import atomic_path
            from sparse3d.viewers.bev import BevStyle, draw_bev

            picture = draw_bev(
                points,
                model.bounds,
                boxes=detections.boxes.numpy(),
                labels=detections.labels.numpy(),
                scores=detections.scores.numpy(),
                class_names=model.classes,
                title=path.name,
                style=BevStyle(point_size=2),
            )
            with atomic_path(out / f"{path.stem}.png") as temporary:
                picture.save(temporary, format="PNG")
    if assumed:
        _say(f"no calibration for {assumed} of {count} inputs: their .txt assume minidrive's (see --calib)")
    _say(f"{count} files; written to {out}")
    return 0


def _data_make(arguments: argparse.Namespace) -> int:
    from sparse3d.data.minidrive import write_minidrive

    with _bar("generating scenes") as report:
        write_minidrive(
            arguments.out,
            arguments.scenes,
            arguments.seed,
            val_fraction=arguments.val_fraction,
            progress=report,
        )
    _say(f"{arguments.scenes} scenes in {arguments.out}; train with data.root={arguments.out}")
    return 0


def _data_check(arguments: argparse.Namespace) -> int:
    from sparse3d.data.kitti_check import check_kitti

    report = check_kitti(arguments.root, arguments.columns)
    print(report)
    return 0 if report.ok else 1


def _data_list(arguments: argparse.Namespace) -> int:
    import os

    folder = os.environ.get("SPARSE3D_DATASETS")
    print("kitti      the KITTI object benchmark; the expected folders: datasets/README.md")
    print("minidrive  generated streets in the same layout: sparse3d data make minidrive --out DIR")
    print(f"$SPARSE3D_DATASETS: {folder or 'not set (data.root is then a path)'}")
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []:
        if (path / "ImageSets").is_dir():
            print(f"  {path.name}")
    return 0


def _config_list(arguments: argparse.Namespace) -> int:
    from sparse3d.config import config_names

    print("\n".join(config_names()))
    return 0


def _config_show(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.recipes.detection_config import DetectionConfig

    print(config.to_yaml(config.load(DetectionConfig, arguments.name, arguments.overrides)), end="")
    return 0


def _config_keys(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.recipes.detection_config import DetectionConfig

    lines = config.describe(DetectionConfig)
    print("\n".join(line for line in lines if line.startswith(arguments.prefix)))
    return 0


def _convert_weights(arguments: argparse.Namespace) -> int:
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
    _say(f"{len(written)} of {len(entries)} tensors written to {out}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from sparse3d.doctor import examine

    return 0 if examine() else 1


# ---- the parser --------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse with our form of an error: one line, with the nearest word for a typing error."""

    def error(self, message: str) -> NoReturn:
        _say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(INPUT_FAULT)

    def _check_value(self, action: argparse.Action, value: str) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in action.choices], n=1, cutoff=0.5)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(map(str, action.choices))}"
            )
            raise argparse.ArgumentError(None, f"unknown word '{value}'; {hint}")


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
    parser = _Parser(
        prog="sparse3d",
        description="3D perception on sparse voxels: train, evaluate and run detectors.",
        epilog="Start with: sparse3d train centerpoint_minidrive",
    )
    parser.add_argument("--version", action="version", version=f"sparse3d {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def command(
        parent, name: str, run: Callable[[argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser:
        made = parent.add_parser(name, help=summary, description=summary, parents=[common])
        made.set_defaults(run=run)
        return made

    train = command(commands, "train", _train, "Train a model as a config says.")
    train.add_argument(
        "config", metavar="CONFIG", help="a file, or the name of a config (sparse3d config list)"
    )
    train.add_argument(
        "overrides", nargs="*", metavar="a.b=c", help="changes of the config, e.g. train.epochs=20"
    )
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/<config name>)")
    train.add_argument("--resume", action="store_true", help="continue the run in the folder")

    evaluate = command(commands, "evaluate", _evaluate, "Judge a trained model on labelled data.")
    _run_arguments(evaluate)
    evaluate.add_argument("--split", help="e.g. val, train (default: what the run's config says)")
    evaluate.add_argument("--data", metavar="DIR", help="a folder to use in place of the run's data.root")

    detect = command(commands, "detect", _detect, "Detect objects in point clouds.")
    _run_arguments(detect)
    detect.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="point clouds (.bin .pcd .ply .npy) or folders"
    )
    detect.add_argument(
        "--out", required=True, metavar="DIR", help="folder for one .json and one KITTI result .txt an input"
    )
    detect.add_argument(
        "--calib", metavar="FILE", help="KITTI calibration of all inputs (default: the one in calib/ beside)"
    )
    detect.add_argument("--pictures", action="store_true", help="also draw each input from above, as .png")
    detect.add_argument(
        "--score", type=float, default=0.3, help="lowest score to report (default: %(default)s)"
    )

    data = commands.add_parser("data", help="Make, check or list data sets.", description="Data sets.")
    data_commands = data.add_subparsers(
        dest="data_command", required=True, metavar="COMMAND", title="commands"
    )
    make = command(
        data_commands, "make", _data_make, "Generate scenes; repeat an interrupted call to continue."
    )
    make.add_argument("name", choices=["minidrive"], help="what to generate")
    make.add_argument("--out", required=True, metavar="DIR", help="folder for the scenes")
    make.add_argument("--scenes", type=int, default=400, help="how many (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    make.add_argument("--val-fraction", type=float, default=0.2, help="share in val (default: %(default)s)")
    check = command(
        data_commands, "check", _data_check, "Read every file of a data set and say what is wrong."
    )
    check.add_argument("name", choices=["kitti"], help="layout of the folder")
    check.add_argument(
        "--root", required=True, metavar="DIR", help="the folder, or its name in $SPARSE3D_DATASETS"
    )
    check.add_argument("--columns", type=int, default=4, help="float32 values a point (default: %(default)s)")
    command(
        data_commands, "list", _data_list, "List the data sets that sparse3d knows and those that are here."
    )

    config = commands.add_parser("config", help="List, show and explain configs.", description="Configs.")
    config_commands = config.add_subparsers(
        dest="config_command", required=True, metavar="COMMAND", title="commands"
    )
    command(config_commands, "list", _config_list, "Names of the configs that come with sparse3d.")
    show = command(
        config_commands, "show", _config_show, "A config with every value, defaults and bases resolved."
    )
    show.add_argument("name", metavar="CONFIG", help="a file or a name")
    show.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes, as for train")
    keys = command(
        config_commands, "keys", _config_keys, "All keys of a detection config: type, default, meaning."
    )
    keys.add_argument("prefix", nargs="?", default="", help="only keys that begin so, e.g. train.")

    convert = command(
        commands,
        "convert-weights",
        _convert_weights,
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

    command(commands, "doctor", _doctor, "Say what this machine offers and test the kernels on it.")
    return parser


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


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="folder of a training run")
    parser.add_argument("--checkpoint", default="best", help="best, last or a step (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")


# ---- faults and words --------------------------------------------------------------------------------------


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
    way_out = _how_to_resume(arguments) or " and give the same command again"
    return f"the disk is full ({text}); make room{way_out}"


def _how_to_resume(arguments: argparse.Namespace) -> str:
    if getattr(arguments, "command", None) != "train":
        return ""
    return f"; continue with the same command and --resume (run folder: {arguments.out or 'runs/...'})"


def _say(text: str) -> None:
    print(f"sparse3d: {text}", file=sys.stderr)


class _bar:
    """A progress bar on a terminal, a line every tenth part elsewhere; made when it is first reported to."""

    def __init__(self, what: str):
        self.what = what
        self._progress = self._task = None
        self._tenth = -1

    def __enter__(self) -> Callable[[int, int], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _report(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            if self._progress is None:
                self._progress = Progress(console=Console(stderr=True))
                self._progress.start()
                self._task = self._progress.add_task(self.what, total=total)
            assert self._task is not None
            self._progress.update(self._task, completed=done)
        elif 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            _say(f"{self.what}: {done} of {total}")
        if done >= total:  # the training that follows has a bar of its own
            self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


if __name__ == "__main__":
    sys.exit(main())
