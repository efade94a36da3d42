"""Distances again: a band whose values have the right zeros but wrong sizes, such as one that was blended,
fused, smoothed or predicted, as a band of distances from where it passes 0.

The surface is extracted and the distance from it is exact (`sparse3d.mesh.distance`), so that nothing is
marched or swept over the lattice and no error grows with the way; the sides are those of the values.
"""

from dataclasses import replace

import numpy as np

from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.signed_band import SignedBand, band_to_mesh


def redistance(band: SignedBand) -> SignedBand:
    """The same points with the distance from the surface of the band, metres, and the signs that they had
    (0 is outside). |grad| is 1 but for the surface's creases. ValueError for a band that passes 0 nowhere
    between voxels that are whole: there is nothing to be away from."""
    surface = band_to_mesh(band)
    if not len(surface.faces):
        raise ValueError(
            f"none of the voxels between these {len(band.points)} points has values on both sides of 0"
        )
    away = MeshDistance(surface).unsigned(band.places).astype(np.float32)
    return replace(band, distances=np.where(band.distances < 0, -away, away))
