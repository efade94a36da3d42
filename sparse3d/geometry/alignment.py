"""How two sets of the same camera poses differ, beyond the choice of a world frame and its scale.

Poses that are found from pictures are known up to a similarity: all of the world may be turned, moved and
scaled with the cameras in it, and the pictures stay what they are.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,), metres

    def poses(self, camera_to_world: np.ndarray) -> np.ndarray:
        """(N, 4, 4) -> (N, 4, 4): the cameras with the world moved; rotations stay rotations."""
        out = np.array(camera_to_world, dtype=np.float64)
        out[:, :3, :3] = self.rotation @ out[:, :3, :3]
        out[:, :3, 3] = self.scale * out[:, :3, 3] @ self.rotation.T + self.translation
        return out


def similarity_between(source: np.ndarray, target: np.ndarray) -> Similarity:
    """What takes the poses (N, 4, 4) `source` nearest to those of `target`.

    The rotation is the nearest to those between the cameras' axes and, with the same weight, between their
    places, so that it is known for any number of cameras, in one line too. Scale and translation are the
    least squares of the places; the scale is 1 where all cameras stand in one place. ValueError for none.
    After Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991).
    """
    if len(source) == 0 or source.shape != target.shape:
        raise ValueError(f"poses {source.shape} and {target.shape}, expected as many, and at least one")
    a, b = source[:, :3, 3], target[:, :3, 3]
    a, b = a - a.mean(0), b - b.mean(0)
    spread = np.sqrt((a**2).sum() * (b**2).sum())
    total = np.einsum("nij,nkj->ik", target[:, :3, :3], source[:, :3, :3]) / len(source)
    if spread > 0:
        total = total + b.T @ a / spread
    u, _, vt = np.linalg.svd(total)
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    turned = a @ rotation.T
    scale = float((turned * b).sum() / (a**2).sum()) if spread > 0 else 1.0
    scale = scale if scale > 0 else 1.0  # places that contradict the axes
    translation = target[:, :3, 3].mean(0) - scale * rotation @ source[:, :3, 3].mean(0)
    return Similarity(scale, rotation, translation)


def pose_errors(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (N,), radians, and distances (N,), metres of the true world, between poses (N, 4, 4) after the
    similarity that joins them best."""
    aligned = similarity_between(found, truth).poses(found)
    between = np.einsum("nji,njk->nik", aligned[:, :3, :3], truth[:, :3, :3])
    # The sine too: an arc cosine loses half of its digits at small angles.
    sine = np.linalg.norm(between - np.swapaxes(between, 1, 2), axis=(1, 2)) / (2 * np.sqrt(2))
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return np.arctan2(sine, cosine), np.linalg.norm(aligned[:, :3, 3] - truth[:, :3, 3], axis=1)
