"""Time minidrive, writing included: `python tools/bench_minidrive.py --scenes 40 --threads 2`."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numba

from sparse3d.data.minidrive import MinidriveConfig, simulate, write_minidrive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    options = parser.parse_args()
    numba.set_num_threads(options.threads)

    config = MinidriveConfig()
    scene = simulate(options.seed, 0, config)  # compiles
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_minidrive(
            folder,
            options.scenes,
            options.seed,
            config,
            progress=lambda done, scenes: ends.append(time.perf_counter()),
        )
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    each = sorted(1e3 * (b - a) for a, b in zip([start, *ends], ends, strict=False))
    low, high = each[len(each) // 20], each[-1 - len(each) // 20]
    print(
        f"minidrive {config.lidar.beams} x {config.lidar.columns}, {len(scene.points)} points, "
        f"{options.threads} threads: {len(each) / (ends[-1] - start):.1f} scenes/s; "
        f"median {statistics.median(each):.0f} ms, 5-95 % {low:.0f}-{high:.0f} ms; "
        f"{size / len(each) / 1e6:.2f} MB a scene"
    )


if __name__ == "__main__":
    main()
