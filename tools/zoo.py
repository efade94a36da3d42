"""Train detectors with the same budget on the same data, and put them side by side.

    python tools/zoo.py centerpoint_minidrive second_minidrive ... --out runs/zoo [a.b=c ...]

Each config is trained into OUT/<config> as it stands (a run that is there is continued or left as it is),
judged on its validation split and timed on a generated frame. Prints a Markdown table: KITTI's 3-D AP, R40,
moderate, in percent; the mean of centre-distance AP; parameters; minutes of the training command on this
machine, its last evaluation included; time a frame and peak memory of prediction, a process for each
model.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_models
import machine

SPARSE3D = (sys.executable, "-m", "sparse3d")


def trained(name: str, out: Path, overrides: list[str]) -> Path:
    """The folder of the finished run of a config; `zoo.json` in it holds the wall time of the command."""
    run = out / name
    if not (run / "zoo.json").exists():
        resume = ["--resume"] if (run / "metrics.jsonl").exists() else []
        begin = time.perf_counter()
        subprocess.run([*SPARSE3D, "train", name, "--out", str(run), *resume, *overrides], check=True)
        minutes = None if resume else (time.perf_counter() - begin) / 60
        subprocess.run([*SPARSE3D, "evaluate", str(run)], check=True, stdout=subprocess.DEVNULL)
        (run / "zoo.json").write_text(json.dumps({"minutes": minutes}))
    return run


def row(name: str, run: Path) -> str:
    """One line of the table."""
    metrics: dict[str, Any] = json.loads((run / "evaluation" / "val" / "metrics.json").read_text())
    minutes: float | None = json.loads((run / "zoo.json").read_text())["minutes"]
    found = subprocess.run(
        [sys.executable, bench_models.__file__, str(run), "--one"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    speed = json.loads(found.stdout.splitlines()[-1])
    precision = {
        row["class_name"]: row["r40"]
        for row in metrics["kitti"]["rows"]
        if (row["metric"], row["overlap"], row["difficulty"]) == ("3d", "strict", "moderate")
    }
    cells = [
        f"`{name}`",
        *(f"{precision[c]:.1f}" for c in ("Car", "Pedestrian", "Cyclist")),
        f"{metrics['centre_distance']['mAP']:.1f}",
        f"{speed['parameters']:,}",
        "-" if minutes is None else f"{minutes:.1f}",
        f"{statistics.median(speed['milliseconds']):.0f}",
        f"{speed['peak'] / 2**30:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("words", nargs="+", metavar="CONFIG|a.b=c")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    overrides = [word for word in arguments.words if "=" in word]
    names = [word for word in arguments.words if "=" not in word]
    print(machine.words())
    runs = {name: trained(name, arguments.out, overrides) for name in names}
    print("| config | Car | Pedestrian | Cyclist | mAP | parameters | minutes | ms a frame | peak, GiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        print(row(name, run), flush=True)


if __name__ == "__main__":
    main()
