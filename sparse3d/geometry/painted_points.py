"""Points of a surface with what is known of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PaintedPoints:
    """`positions` (P, 3) float32 world, metres; `colors` (P, 3) uint8 sRGB and unit `normals` (P, 3) float32,
    or None. ValueError for other shapes and positions that are not finite."""

    positions: np.ndarray
    colors: np.ndarray | None = None
    normals: np.ndarray | None = None

    def __post_init__(self):
        positions = np.ascontiguousarray(self.positions, dtype=np.float32)
        if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
            raise ValueError(f"positions are finite (P, 3), these are {positions.shape} or not finite")
        for name, dtype in (("colors", np.uint8), ("normals", np.float32)):
            values = getattr(self, name)
            if values is not None and (values.shape != positions.shape or values.dtype != dtype):
                raise ValueError(
                    f"{name} are (P, 3) {dtype.__name__}, these are {values.dtype} {values.shape}"
                )
        object.__setattr__(self, "positions", positions)

    def __len__(self) -> int:
        return len(self.positions)
