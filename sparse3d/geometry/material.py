"""What a surface is made of: one colour or a texture, metallic or not, rough or smooth.

The model is glTF's "metallic-roughness". Colours are sRGB, as photos have them; light adds up in linear
fractions (`srgb_to_linear`).
"""

from dataclasses import dataclass

import numpy as np

_NUMBERS = ("metallic", "roughness")


@dataclass(frozen=True, eq=False)
class Material:
    """`color` RGB in [0, 1], sRGB, of what has no texture and no colours of its own; `texture` (H, W, 3)
    uint8 sRGB, first row on top. `metallic` and `roughness` in [0, 1]. `unlit`: the colours hold the light
    already, as those of photos do, and viewers show them as they are. ValueError for others."""

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: np.ndarray | None = None
    metallic: float = 0.0
    roughness: float = 1.0
    unlit: bool = True

    def __post_init__(self):
        for name, values in (("color", self.color), *((n, (getattr(self, n),)) for n in _NUMBERS)):
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.texture is not None:
            texture = np.ascontiguousarray(self.texture)
            if texture.ndim != 3 or texture.shape[2] != 3 or texture.dtype != np.uint8 or not texture.size:
                raise ValueError(f"a texture is (H, W, 3) uint8, this is {texture.dtype} {texture.shape}")
            object.__setattr__(self, "texture", texture)

    def at(self, uv: np.ndarray) -> np.ndarray:
        """(N, 2) texture coordinates -> (N, 3) in [0, 1], sRGB: between the four texels around, beyond the
        picture's edge from its other side. The plain `color` where there is no texture."""
        if self.texture is None:
            return np.broadcast_to(np.array(self.color), (len(uv), 3)).copy()
        height, width = self.texture.shape[:2]
        place = uv.astype(np.float64) * (width, height) - 0.5
        corner = np.floor(place).astype(np.int64)
        part = place - corner
        out = np.zeros((len(uv), 3))
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            texel = self.texture[(corner[:, 1] + dy) % height, (corner[:, 0] + dx) % width]
            out += weight[:, None] * (texel / 255.0)
        return out


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Fractions as photos hold them -> fractions of light (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_to_linear`."""
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
