"""Our meshes as those of trimesh and Open3D, and theirs as ours; nothing of either is imported before it is
asked for."""

from typing import Any

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh


def to_trimesh(mesh: Mesh) -> Any:
    """A `trimesh.Trimesh` with the same vertices in the same order; where there is a texture, vertices on its
    seams stand there once for each side. MissingExtraError without trimesh."""
    trimesh = require_extra("trimesh", "mesh")
    if mesh.uv is None or mesh.material is None or mesh.material.texture is None:
        made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        if mesh.colors is not None:
            made.visual = trimesh.visual.ColorVisuals(made, vertex_colors=mesh.colors)
        return made
    from PIL import Image

    rows, faces, uv = mesh.split_at_seams()
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(mesh.material.texture),
        metallicFactor=mesh.material.metallic,
        roughnessFactor=mesh.material.roughness,
    )
    upward = np.stack([uv[:, 0], 1 - uv[:, 1]], 1)
    visual = trimesh.visual.TextureVisuals(uv=upward, material=material)
    return trimesh.Trimesh(mesh.vertices[rows], faces, visual=visual, process=False)


def from_trimesh(theirs: Any) -> Mesh:
    """A `trimesh.Trimesh`, with its colours or its texture; of a scene, all of it as one mesh (without
    textures where there are several). ValueError for what is no mesh."""
    if hasattr(theirs, "geometry"):
        theirs = theirs.to_mesh()
    vertices, faces, visual = np.asarray(theirs.vertices), np.asarray(theirs.faces), theirs.visual
    if visual.kind == "texture" and visual.uv is not None:
        theirs_material = visual.material
        picture = getattr(theirs_material, "baseColorTexture", None) or getattr(
            theirs_material, "image", None
        )
        if picture is not None:
            uv = np.asarray(visual.uv, dtype=np.float32)[faces]
            material = Material(
                texture=np.asarray(picture.convert("RGB")),
                metallic=float(getattr(theirs_material, "metallicFactor", None) or 0.0),
                roughness=float(_or(getattr(theirs_material, "roughnessFactor", None), 1.0)),
            )
            return Mesh(
                vertices, faces, uv=np.stack([uv[..., 0], 1 - uv[..., 1]], -1), material=material
            ).welded_at_seams()
        visual = visual.to_color()
    colors = None
    if visual.kind == "vertex" or visual.kind == "face":
        colors = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
    return Mesh(vertices, faces, colors)


def to_open3d(mesh: Mesh) -> Any:
    """An `open3d.geometry.TriangleMesh`, with normals, colours and texture coordinates where there are.
    MissingExtraError without Open3D."""
    o3d = require_extra("open3d", "viz")
    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    made.vertex_normals = o3d.utility.Vector3dVector(mesh.vertex_normals.astype(np.float64))
    if mesh.colors is not None:
        made.vertex_colors = o3d.utility.Vector3dVector(mesh.colors / 255.0)
    if mesh.uv is not None:
        flat = mesh.uv.reshape(-1, 2).astype(np.float64)
        made.triangle_uvs = o3d.utility.Vector2dVector(np.stack([flat[:, 0], 1 - flat[:, 1]], 1))
        if mesh.material is not None and mesh.material.texture is not None:
            made.textures = [o3d.geometry.Image(mesh.material.texture)]
            made.triangle_material_ids = o3d.utility.IntVector(np.zeros(len(mesh.faces), np.int32))
    return made


def from_open3d(theirs: Any) -> Mesh:
    """An `open3d.geometry.TriangleMesh` or an `open3d.t.geometry.TriangleMesh`."""
    if hasattr(theirs, "to_legacy"):
        theirs = theirs.to_legacy()
    vertices, faces = np.asarray(theirs.vertices), np.asarray(theirs.triangles)
    colors = np.asarray(theirs.vertex_colors)
    colors = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8) if len(colors) else None
    uv, material = None, None
    if theirs.has_triangle_uvs():
        flat = np.asarray(theirs.triangle_uvs)
        uv = np.stack([flat[:, 0], 1 - flat[:, 1]], 1).reshape(-1, 3, 2)
        pictures = [np.asarray(image) for image in theirs.textures if not image.is_empty()]
        if len(pictures) == 1 and pictures[0].ndim == 3:
            material = Material(texture=pictures[0][..., :3])
    return Mesh(vertices, faces, colors, uv, material)


def _or(value: Any, default: float) -> float:
    return default if value is None else value
