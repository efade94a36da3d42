"""Scene `index` of seed `seed`: the same whatever else is generated, by however many threads."""

from dataclasses import dataclass

import numpy as np

from sparse3d.data.minidrive.config import MinidriveConfig
from sparse3d.data.minidrive.scan import Motion, scan
from sparse3d.data.minidrive.world import build_world


@dataclass(frozen=True)
class MinidriveScene:
    """One scan with everything that is known about it.

    `points` (N, 4) float32 x, y, z, intensity in the LiDAR frame; `semantic` (N,) SemanticKITTI class ids;
    `instance` (N,): m + 1 on object m, 0 elsewhere. `boxes` (M, 7) float32, `names` (M,), `hits` (M,)
    returned points, `visible` (M,) share of the object that nothing hides: all objects of the street, hit or
    not, in view of the camera or not. `motion`: of the sensor during the turn.
    """

    points: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    boxes: np.ndarray
    names: np.ndarray
    hits: np.ndarray
    visible: np.ndarray
    motion: Motion


def simulate(seed: int, index: int, config: MinidriveConfig | None = None) -> MinidriveScene:
    """Build the street, turn the sensor once."""
    config = MinidriveConfig() if config is None else config
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    # Separate streams: another sensor sees the same street.
    for_world, for_motion, for_scan = (
        np.random.Generator(np.random.Philox(s)) for s in np.random.SeedSequence([seed, index]).spawn(3)
    )
    world = build_world(config, for_world)
    motion = Motion(
        speed=float(for_motion.uniform(0, config.ego.max_speed)),
        turn_rate=float(for_motion.normal(0, config.ego.turn_rate)),
    )
    seen = scan(world, config.lidar, motion, for_scan)
    return MinidriveScene(
        points=seen.points,
        semantic=seen.semantic,
        instance=seen.instance,
        boxes=world.boxes.astype(np.float32),
        names=world.names,
        hits=seen.hits,
        visible=seen.visible,
        motion=motion,
    )
