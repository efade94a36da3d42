"""Time KITTI's evaluation of a validation split: average precision of three classes in 2-D, AOS, BEV and 3-D.

    python tools/bench_kitti_eval.py [--frames 3769] [--detections 30] [--threads 1 2] [--repeats 5]

Frames are made up: 3 to 15 cars, pedestrians, cyclists, vans and DontCare regions with the occlusions and
heights of KITTI's, and about `--detections` results in each, half of them on objects, the others anywhere.
The file formats are not part of it: results are in memory.
"""

import argparse

import machine
import numpy as np

from sparse3d.evaluation import kitti, kitti_frames
from sparse3d.io.kitti import KittiObjects

KINDS = ("Car", "Pedestrian", "Cyclist", "Van", "DontCare")
SHARES = (0.5, 0.12, 0.06, 0.07, 0.25)
SIZES = np.array([[1.5, 1.6, 3.9], [1.75, 0.65, 0.85], [1.7, 0.6, 1.75], [2.2, 1.9, 5.0], [-1, -1, -1]])
FOCAL, WIDTH, HEIGHT = 720.0, 1242, 375


def objects(
    rng: np.random.Generator, kinds: np.ndarray, places: np.ndarray, scores: np.ndarray
) -> KittiObjects:
    """Rows of `kinds` (N,) at x and z (N, 2) on the ground, with the image boxes that a camera would give."""
    sizes = SIZES[kinds] * rng.normal(1, 0.04, (len(kinds), 3))
    column = WIDTH / 2 + FOCAL * places[:, 0] / places[:, 1]
    half = FOCAL * np.abs(sizes[:, 2]) / places[:, 1] / 2
    bottom = HEIGHT / 2 + FOCAL * 1.65 / places[:, 1]
    top = bottom - FOCAL * np.abs(sizes[:, 0]) / places[:, 1]
    image = np.stack([column - half, top, column + half, bottom], 1)
    image = np.clip(image, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    yaw = rng.uniform(-np.pi, np.pi, len(kinds))
    return KittiObjects(
        names=np.array(KINDS)[kinds],
        truncated=rng.choice([0.0, 0.2, 0.4], len(kinds), p=[0.85, 0.1, 0.05]),
        occluded=rng.choice([0, 1, 2, 3], len(kinds), p=[0.5, 0.25, 0.2, 0.05]),
        alpha=yaw - np.arctan2(places[:, 0], places[:, 1]),
        boxes_image=image,
        dimensions=sizes,
        locations=np.stack([places[:, 0], np.full(len(kinds), 1.65), places[:, 1]], 1),
        rotation_y=yaw,
        scores=scores,
    )


def split(frames: int, detections: int) -> tuple[list[KittiObjects], list[KittiObjects]]:
    """Labels and results."""
    rng = np.random.default_rng(0)
    truth, results = [], []
    for _ in range(frames):
        count = rng.integers(3, 16)
        kinds = rng.choice(len(KINDS), count, p=SHARES)
        z = rng.uniform(6, 65, count)
        places = np.stack([rng.uniform(-0.6, 0.6, count) * z, z], 1)
        labelled = objects(rng, kinds, places, np.ones(count))
        truth.append(labelled)
        real = np.flatnonzero(kinds < 3)
        on_objects = np.repeat(real, 2)[: detections // 2]
        others = max(detections - len(on_objects), 0)
        z = rng.uniform(6, 65, others)
        near = places[on_objects] + rng.normal(0, 0.15, (len(on_objects), 2))
        found = objects(
            rng,
            np.concatenate([kinds[on_objects], rng.integers(0, 3, others)]),
            np.concatenate([near, np.stack([rng.uniform(-0.6, 0.6, others) * z, z], 1)]),
            np.concatenate([rng.beta(5, 2, len(on_objects)), rng.beta(2, 6, others)]),
        )
        found.rotation_y[: len(on_objects)] = labelled.rotation_y[on_objects] + rng.normal(
            0, 0.05, len(on_objects)
        )
        results.append(found)
    return truth, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=3769)
    parser.add_argument("--detections", type=int, default=30, help="results in a frame")
    machine.add_arguments(parser)
    arguments = parser.parse_args()
    truth, results = split(arguments.frames, arguments.detections)
    boxes, found = (sum(map(len, frames)) for frames in (truth, results))
    joined = kitti_frames.join_frames(truth, results)
    print(machine.words())
    print(f"{len(truth)} frames, {boxes} labels, {found} results, {len(joined.similarity)} pairs; on the CPU")
    for threads in arguments.threads:
        machine.use_threads(threads)
        outcome = kitti.evaluate(truth, results)
        times = machine.in_turns(
            {
                "whole evaluation": lambda: kitti.evaluate(truth, results),
                "of that, overlaps": lambda: kitti_frames.join_frames(truth, results),
            },
            arguments.repeats,
        )
        for what, milliseconds in times.items():
            seconds = [value / 1000 for value in milliseconds]
            print(f"{threads} threads, {what}: {machine.spread(seconds)} s, median (fastest - slowest)")
        assert outcome.frames == len(truth)
    print(f"mAP 3-D moderate R40 of these results: {outcome.mean():.2f}")


if __name__ == "__main__":
    main()
