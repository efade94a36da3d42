"""From nothing to a LiDAR detector: generate scenes, train from a config, evaluate on held-out ones, draw.

Everything is the `sparse3d` command line; this file only strings four commands together with a budget that
suits two CPU cores. Run it with `make demo`, or with other settings: `run.py --scenes 1200 --steps 2300`.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from sparse3d.cli import main as sparse3d

CONFIG = "centerpoint_minidrive"
DATA = Path("data/minidrive")
HELD_OUT = 1 / 6  # share of the scenes that training never sees: 100 of 600
PICTURES = 6


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Generate scenes, train a LiDAR detector, evaluate and draw."
    )
    parser.add_argument("--scenes", type=int, default=600, help="scenes to generate (default: 600)")
    parser.add_argument("--steps", type=int, default=700, help="training steps of two scenes (default: 700)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run, replaced")
    arguments = parser.parse_args()
    begin = time.monotonic()
    run = arguments.out
    if (run / "config.yaml").is_file():
        shutil.rmtree(run)  # a run of this demo; anything else is left for `train` to refuse

    step("Generating a driving world and scanning it with a spinning LiDAR")
    scenes = ["--scenes", str(arguments.scenes), "--val-fraction", str(HELD_OUT)]
    call("data", "make", "minidrive", "--out", str(DATA), "--seed", "0", *scenes)

    step(f"Training {CONFIG} for {arguments.steps} steps of two scenes")
    budget = [f"data.root={DATA}", "generate=null", f"train.steps={arguments.steps}"]
    call("train", CONFIG, "--out", str(run), *budget)

    step("Evaluating on the held-out scenes")
    call("evaluate", str(run))

    step("Drawing what it sees")
    names = (DATA / "ImageSets" / "val.txt").read_text().split()[:PICTURES]
    clouds = [str(DATA / "training" / "velodyne" / f"{name}.bin") for name in names]
    pictures = run / "pictures"
    call("detect", str(run), *clouds, "--out", str(pictures), "--pictures", "--score", "0.5")

    print(f"\nDone in {(time.monotonic() - begin) / 60:.1f} minutes. Look at {pictures}/*.png")
    return 0


def step(title: str) -> None:
    print(f"\n== {title}", flush=True)


def call(*command: str) -> None:
    """Run one sparse3d command, shown as a user would type it; end the demo when it fails."""
    print(f"$ sparse3d {' '.join(command)}", flush=True)
    code = sparse3d(list(command))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
