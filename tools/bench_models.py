"""Detectors side by side: parameters, time a frame by stages, peak memory.

    python tools/bench_models.py [CONFIG|RUN[,a.b=c ...]] ... [--points FILE] [--repeats 7] [--precision fp16]

A config gives fresh weights, the folder of a run trained ones. The frame is a point cloud file (a scan of
KITTI, say), or by default a generated full turn of 64 x 2048 rays; nothing is cut but by the model's bounds.
Each model runs in a process of its own, so that its peak memory is its own: that of the whole process, torch
included, or on a GPU what torch took there.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from sparse3d import config
from sparse3d.data.minidrive import LidarConfig, MinidriveConfig, simulate
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.io.points import read_valid_points
from sparse3d.models.detectors import DetectorModel, build_detector
from sparse3d.recipes.detection import load_detector
from sparse3d.recipes.detection_config import DetectionConfig

DEFAULT = ("centerpoint_kitti", "centerpoint_kitti,model.voxel_size=[0.1,0.1,0.1]", "centerpoint_minidrive")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def network(name: str, device: str) -> nn.Module:
    """A config's network with fresh weights, or a run's with its trained ones, ready to predict."""
    source, *overrides = split_overrides(name)
    if Path(source, "config.yaml").is_file():
        return load_detector(source, "best", device).model
    torch.manual_seed(0)
    return build_detector(config.load(DetectionConfig, source, overrides).model).to(device).eval()


def split_overrides(name: str) -> list[str]:
    """`x,a.b=[1,2],c=3` -> x, a.b=[1,2], c=3: commas within brackets do not part."""
    parts, depth = [""], 0
    for letter in name:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def frame(path: str | None) -> LidarFrame:
    """The frame to look at, without labels."""
    if path is not None:
        points = read_valid_points(path)
    else:
        points = simulate(0, 0, MinidriveConfig(lidar=LidarConfig(columns=2048))).points
    points = np.ascontiguousarray(points, dtype=np.float32)
    return LidarFrame("frame", points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))


class Stages:
    """Wall time within each direct child of a module; the rest of a call is "other"."""

    def __init__(self, module: nn.Module, wait: Callable[[], None]):
        self.seconds: dict[str, float] = defaultdict(float)
        begun: list[float] = []

        def enter(*_: object) -> None:
            wait()
            begun.append(time.perf_counter())

        def leave_to(name: str) -> Callable[..., None]:
            def leave(*_: object) -> None:
                wait()
                self.seconds[name] += time.perf_counter() - begun.pop()

            return leave

        for name, child in module.named_children():
            child.register_forward_pre_hook(enter)
            child.register_forward_hook(leave_to(name))


def measure(name: str, points: str | None, repeats: int, precision: str) -> dict[str, object]:
    """One model in this process."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    model, batch = network(name, device), DetectionBatch.collate([frame(points)]).to(device)
    assert isinstance(model, DetectorModel)
    reduced = PRECISIONS[precision]
    stages = Stages(model, wait)
    times = []
    with torch.no_grad(), torch.autocast(device, dtype=reduced, enabled=reduced is not None):
        for repeat in range(repeats + 2):
            if repeat == 2:
                stages.seconds.clear()
            wait()
            begin = time.perf_counter()
            model.predict(batch)
            wait()
            times.append(1e3 * (time.perf_counter() - begin))
    first, _, *times = times
    whole = sum(times)
    shares = {stage: 1e3 * seconds / whole for stage, seconds in stages.seconds.items()}
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: kibibytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "points": len(batch.points),
        "milliseconds": times,
        "first": first,
        "peak": torch.cuda.max_memory_allocated() if device == "cuda" else peak,
        "shares": shares | {"other": 1 - sum(shares.values())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="*", default=DEFAULT, metavar="CONFIG|RUN")
    parser.add_argument("--points", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # measure here, print JSON
    arguments = parser.parse_args()
    if arguments.one:
        found = measure(arguments.models[0], arguments.points, arguments.repeats, arguments.precision)
        print(json.dumps(found))
        return
    print(machine.words())
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    table = Table(title=f"one frame, {arguments.precision}, {device}, {arguments.repeats} repeats")
    for column in ("model", "parameters", "points", "ms a frame", "first call, ms", "peak, GiB", "stages"):
        table.add_column(column, justify="left" if column in ("model", "stages") else "right")
    options = sys.argv[1:]
    options = [word for word in options if word not in arguments.models]
    for name in arguments.models:
        command = [sys.executable, __file__, name, "--one", *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            raise SystemExit(f"{name}: failed, see above")
        found = json.loads(ended.stdout.splitlines()[-1])
        shares = sorted(found["shares"].items(), key=lambda item: -item[1])
        table.add_row(
            name,
            f"{found['parameters']:,}",
            f"{found['points']:,}",
            machine.spread(found["milliseconds"]),
            f"{found['first']:.0f}",
            f"{found['peak'] / 2**30:.2f}",
            ", ".join(f"{stage} {share:.0%}" for stage, share in shares),
        )
        print(f"{name}: {statistics.median(found['milliseconds']):.0f} ms", flush=True)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
