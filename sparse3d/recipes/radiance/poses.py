"""Poses that are refined with a field, and what follows for the photos that it is judged on.

Refined poses are known up to a similarity of the world. So the poses of held-out photos, which come from the
same files and are as imperfect, are first moved by the similarity between the training photos' poses in the
files and the refined ones, and then refined on their own photo with the field held, as BARF (arXiv
2104.06405, section 4.3) does it: what is judged is the field and not its frame.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.background import LearnedBackground, behind
from sparse3d.fields.build import Field
from sparse3d.fields.pose_refinement import PoseRefinement
from sparse3d.geometry.alignment import Similarity, similarity_between
from sparse3d.geometry.rays import rays_through
from sparse3d.io.files import write_text
from sparse3d.recipes.radiance.config import PhotosConfig, RadianceConfig

Progress = Callable[[int, int], None]


def refinement(config: RadianceConfig, photos: int) -> PoseRefinement | None:
    """A fresh one for so many photos, None where poses are not to be refined. At the full rate of the
    optimiser a step of Adam moves poses by `pose_refinement.rate`."""
    wanted = config.pose_refinement
    if not wanted.enabled:
        return None
    unit = wanted.rate / config.optimizer.lr
    return PoseRefinement(photos, unit, unit * config.model.space.side / 2)


@dataclass(frozen=True)
class RefinedPhotos:
    """Training photos with refined cameras, and what the refinement did to the world as a whole."""

    photos: PosedPhotos
    moved: Similarity

    def align(self, others: PosedPhotos) -> PosedPhotos:
        """Other photos of the same files, with their cameras moved like the world."""
        return _posed(others, self.moved.poses(others.cameras.camera_to_world))


def refined(photos: PosedPhotos, poses: PoseRefinement) -> RefinedPhotos:
    """The photos that a field was trained on, with the poses that it found."""
    before = photos.cameras.camera_to_world
    after = poses.poses(torch.from_numpy(before)).cpu().numpy()
    return RefinedPhotos(_posed(photos, after), similarity_between(before, after))


def settled(
    field: Field,
    learned: LearnedBackground | None,
    photos: PosedPhotos,
    data: PhotosConfig,
    config: RadianceConfig,
    progress: Progress | None = None,
) -> PosedPhotos:
    """Photos with their poses refined, each by itself, against the field and the background that was
    `learned` with it; these stay as they are."""
    steps = config.pose_refinement.test_steps
    if not steps:
        return photos
    found = []
    for row in range(len(photos)):
        found.append(_settle(field, learned, photos, row, data, config))
        if progress is not None:
            progress(row + 1, len(photos))
    return _posed(photos, np.stack(found))


def _settle(
    field: Field,
    learned: LearnedBackground | None,
    photos: PosedPhotos,
    row: int,
    data: PhotosConfig,
    config: RadianceConfig,
) -> np.ndarray:
    """(4, 4): the pose of one photo."""
    wanted, side = config.pose_refinement, config.model.space.side
    device = next(field.parameters()).device
    background = data.background_color(photos.capture.background)
    colors = torch.from_numpy(photos.photo(row).over(background)).to(device, torch.float32).flatten(0, 1)
    width = photos.cameras[row].width
    poses = PoseRefinement(1, shift=side / 2).to(device)
    optimizer = torch.optim.Adam(poses.parameters(), wanted.rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, wanted.test_steps)
    random = torch.Generator().manual_seed(config.train.seed)
    for _ in range(wanted.test_steps):
        chosen = torch.randint(len(colors), (wanted.test_pixels,), generator=random)
        places = torch.stack([chosen % width, chosen // width], 1).numpy() + 0.5
        rays = rays_through(photos.cameras, np.full(len(chosen), row), places).to(device)
        moved = poses(rays, torch.zeros_like(chosen).to(device))
        offsets = torch.rand(len(chosen), generator=random).to(device)
        wall = behind(learned or background, moved.directions)
        seen = field.render(moved.origins, moved.directions, wall, offsets=offsets)
        loss = (seen.color - colors[chosen.to(device)]).square().sum(1).mean()
        (poses.corrections.grad,) = torch.autograd.grad(loss, poses.corrections)
        optimizer.step()
        falling.step()
    before = torch.from_numpy(photos.cameras.camera_to_world[row : row + 1])
    return poses.poses(before)[0].cpu().numpy()


def write_poses(path: Path, photos: PosedPhotos) -> None:
    """Names and camera_to_world, OpenCV axes, as JSON."""
    poses = zip(photos.names, photos.cameras.camera_to_world.tolist(), strict=True)
    write_text(path, json.dumps([{"name": name, "camera_to_world": pose} for name, pose in poses]) + "\n")


def _posed(photos: PosedPhotos, camera_to_world: np.ndarray) -> PosedPhotos:
    return replace(photos, cameras=replace(photos.cameras, camera_to_world=camera_to_world))
