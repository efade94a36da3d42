"""Meshes whose colours come out of viser's page as they went in.

three.js, which draws that page, maps the tones of every lit or unlit mesh from a file by a fit to ACES
(Stephen Hill's: colours times 1 / 0.6, a matrix, (v^2 + 0.0245786 v - 0.000090537) / (0.983729 v^2 + 0.432951
v + 0.238081), a matrix). Colours of photos went through a camera's own curve already, so the inverse is
written into the file. The most saturated ones have none; they come out as the nearest that does. A texture
has 8 bits, too few for what the inverse makes of pale colours: textured meshes come out as viser shows them.
"""

import tempfile
from pathlib import Path

import numpy as np

from sparse3d.geometry.material import srgb_to_linear
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.glb import write_glb
from sparse3d.io.gltf import ARRAY_BUFFER, ELEMENT_BUFFER, FLOAT, write_glb_tables

_INTO = np.array(
    [[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]], dtype=np.float64
)
_OUT_OF = np.array(
    [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]],
    dtype=np.float64,
)
_EXPOSURE = 1 / 0.6


def before_tone_mapping(linear: np.ndarray) -> np.ndarray:
    """(N, 3) fractions of light that are to be seen -> (N, 3), not above 100, that are drawn as these."""
    y = np.clip(linear @ np.linalg.inv(_OUT_OF).T, 0, 1)
    a, b, c = 1 - 0.983729 * y, 0.0245786 - 0.432951 * y, -0.000090537 - 0.238081 * y
    v = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return np.clip(v @ np.linalg.inv(_INTO).T / _EXPOSURE, 0, 100)


def glb_for_viser(mesh: Mesh) -> bytes:
    """A mesh with colours, a material or a texture as a .glb for viser alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        if mesh.has_texture or (mesh.material is not None and not mesh.material.unlit):
            write_glb(path, mesh)
        else:
            _write_colors(path, mesh.with_vertex_colors())
        return path.read_bytes()


def _write_colors(path: Path, mesh: Mesh) -> None:
    assert mesh.colors is not None
    drawn = before_tone_mapping(srgb_to_linear(mesh.colors / 255))
    vectors = {"componentType": FLOAT, "type": "VEC3"}
    box = {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    tables = [
        (mesh.vertices.astype("<f4"), {**vectors, **box}, ARRAY_BUFFER),
        (drawn.astype("<f4"), vectors, ARRAY_BUFFER),
        (mesh.faces.astype("<u4").ravel(), {"componentType": 5125, "type": "SCALAR"}, ELEMENT_BUFFER),
    ]
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}
    tree = {
        "asset": {"version": "2.0", "generator": "sparse3d"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
    }
    write_glb_tables(path, tree, tables)
