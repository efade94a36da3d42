"""Flat charts for textures: a mesh cut into pieces that lie flat beside each other in a square, through
xatlas."""

from dataclasses import replace

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.geometry.mesh import Mesh

_MANY = 300_000  # triangles: xatlas takes minutes from here on


def unwrapped(mesh: Mesh, size: int = 1024, padding: int = 4) -> Mesh:
    """The mesh with a place in a texture for each corner; charts keep about `padding` texels of a texture of
    `size` x `size` between them. What was painted by a former texture is lost: bake it (`baking`).

    Takes about a second for 10 000 triangles. ValueError for more than 300 000 (simplify first), for none,
    and for fewer than 16 texels a side; MissingExtraError without xatlas.
    """
    if size < 16 or padding < 0:
        raise ValueError(f"a texture of {size} texels with {padding} between charts; at least 16, and 0")
    if not 0 < len(mesh.faces) <= _MANY:
        raise ValueError(
            f"{len(mesh.faces)} triangles to unwrap, expected 1 to {_MANY}: simplify the mesh first "
            "(sparse3d.mesh.simplify, or --simplify)"
        )
    xatlas = require_extra("xatlas", "mesh")
    # Around the middle and of side one: the library works in float32 and drops triangles that are tiny.
    low, high = mesh.vertices.min(0).astype(np.float64), mesh.vertices.max(0).astype(np.float64)
    unit = ((mesh.vertices - (low + high) / 2) / max(float((high - low).max()), 1e-30)).astype(np.float32)
    atlas = xatlas.Atlas()
    atlas.add_mesh(unit, mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.create_image = size, padding, False
    atlas.generate(pack_options=packing)
    rows, faces, uv = atlas[0]
    assert np.array_equal(rows[faces], mesh.faces), "charts keep the order of triangles"
    return replace(mesh, uv=np.asarray(uv, dtype=np.float32)[faces], material=None)
