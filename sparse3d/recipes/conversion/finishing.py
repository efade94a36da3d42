"""What is done to a mesh before it is written: holes, noise, size, texture, in this order."""

from dataclasses import dataclass, replace

from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.baking import Paint, baked
from sparse3d.mesh.cleaning import without_flat_faces, without_forked_edges
from sparse3d.mesh.holes import with_holes_filled
from sparse3d.mesh.painting import paint_of
from sparse3d.mesh.simplify import simplified
from sparse3d.mesh.smoothing import smoothed
from sparse3d.mesh.unwrapping import unwrapped


@dataclass(frozen=True)
class FinishConfig:
    """Nothing is done where a number is None or 0. ValueError for numbers that make no sense."""

    fill_holes: int = 0  # edges of the longest border that is closed
    smooth: int = 0  # steps
    simplify: int | None = None  # triangles
    texture: int | None = None  # texels a side
    metallic: float = 0.0
    roughness: float = 1.0
    lit: bool = False  # viewers put light on it; else colours are shown as they are

    def __post_init__(self):
        if min(self.fill_holes, self.smooth) < 0 or (self.simplify is not None and self.simplify < 4):
            raise ValueError(f"fill_holes and smooth are at least 0, simplify at least 4: {self}")
        if self.texture is not None and not 16 <= self.texture <= 16384:
            raise ValueError(f"a texture has 16 to 16384 texels a side, got {self.texture}")
        Material(metallic=self.metallic, roughness=self.roughness)

    @property
    def changes_shape(self) -> bool:
        return bool(self.fill_holes or self.smooth or self.simplify)


def finished(mesh: Mesh, config: FinishConfig, paint: Paint | None = None) -> Mesh:
    """A mesh as `config` asks for; a texture is painted by `paint`, or else from the mesh as it came: what
    was simplified keeps the paint of what it was. ValueError for a texture where there is neither."""
    came = mesh
    if config.changes_shape:
        mesh = without_forked_edges(without_flat_faces(mesh))
    if config.fill_holes:
        mesh = with_holes_filled(mesh, config.fill_holes)
    if config.smooth:
        mesh = smoothed(mesh, config.smooth)
    if config.simplify is not None:
        mesh = simplified(mesh, config.simplify)
    if config.texture is not None:
        if paint is None and came.has_paint and (config.changes_shape or came.has_texture):
            paint = paint_of(came)
        mesh = baked(unwrapped(mesh, config.texture), config.texture, paint)
    if config.lit or config.metallic or config.roughness != 1.0:
        material = replace(
            mesh.material or Material(),
            metallic=config.metallic,
            roughness=config.roughness,
            unlit=not config.lit,
        )
        mesh = replace(mesh, material=material)
    return mesh
