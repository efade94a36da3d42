"""The units of a mesh file and which way is up in it; within, the world is in metres."""

from dataclasses import dataclass

import numpy as np

from sparse3d.geometry.mesh import Mesh

UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "in": 0.0254}
UPS = ("z", "y")


@dataclass(frozen=True)
class MeshFrame:
    """What the numbers of a file are: so many `units`, and `up`: +z as in the world (surveys, robots, 3-D
    printing), or +y with -z to the world's +y (glTF's viewers, Blender's imports). ValueError for others."""

    units: str = "m"
    up: str = "z"

    def __post_init__(self):
        if self.units not in UNITS or self.up not in UPS:
            raise ValueError(
                f"units {self.units!r} and up {self.up!r}; there are {', '.join(UNITS)} and {', '.join(UPS)}"
            )

    @property
    def file_from_world(self) -> np.ndarray:
        """(4, 4)."""
        turn = np.eye(3) if self.up == "z" else np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        out = np.eye(4)
        out[:3, :3] = turn / UNITS[self.units]
        return out

    def to_file(self, mesh: Mesh) -> Mesh:
        """The mesh in the file's numbers. ValueError where those are too large."""
        return mesh if self == WORLD else mesh.moved(self.file_from_world)

    def to_world(self, mesh: Mesh) -> Mesh:
        """The inverse of `to_file`."""
        return mesh if self == WORLD else mesh.moved(np.linalg.inv(self.file_from_world))


WORLD = MeshFrame()
