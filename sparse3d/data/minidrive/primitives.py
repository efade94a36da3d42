"""Solids that a ray can meet: ellipsoids, cylinders and frusta, built in a local frame and placed by yaw.

Round solids are affine images p = A u + c of the unit ball (ellipsoid) or of the unit can u_x^2 + u_y^2 <= 1,
|u_z| <= 1 (cylinder). A frustum has an axis-aligned rectangle at its bottom and one at its top, so all its
faces are planes. A solid with `density` > 0 (1/m) is a medium such as leaves or spokes: a ray gets through
with probability exp(-density * path).
"""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Kind(IntEnum):
    ELLIPSOID = 0
    CYLINDER = 1
    CONVEX = 2


class Material(IntEnum):
    """Surfaces, rows of `REFLECTIVITY` and `LOSS`."""

    ASPHALT = 0
    MARKING = 1
    CONCRETE = 2
    GRASS = 3
    WALL = 4
    PAINT = 5
    GLASS = 6
    RUBBER = 7
    RETRO = 8
    CLOTH = 9
    SKIN = 10
    LEAF = 11
    BARK = 12
    METAL = 13


# Share of light sent back at normal incidence (905 nm; orders of magnitude from material tables, tuned to the
# histogram of KITTI's intensities), and the share of rays that never come back (light passes or mirrors
# away).
REFLECTIVITY = np.array([0.45, 0.90, 0.58, 0.62, 0.50, 0.50, 0.12, 0.08, 0.98, 0.48, 0.50, 0.50, 0.40, 0.42])
LOSS = np.array([0, 0, 0, 0, 0, 0.02, 0.55, 0.05, 0, 0, 0, 0.02, 0, 0.02])


class Semantic(IntEnum):
    """Class ids of SemanticKITTI, as its .label files hold them."""

    CAR = 10
    VAN = 20  # other-vehicle
    PEDESTRIAN = 30
    CYCLIST = 31
    ROAD = 40
    SIDEWALK = 48
    BUILDING = 50
    FENCE = 51
    VEGETATION = 70
    TRUNK = 71
    TERRAIN = 72
    POLE = 80
    SIGN = 81
    OBJECT = 99


class Primitives(NamedTuple):
    """P solids in the world frame, Q planes, as the ray caster takes them.

    `kind`, `owner` (0: background), `semantic`, `density`, `albedo` (factor on the reflectivity): (P,).
    `inverse` (P, 12): rows of A^-1 and -A^-1 c of round solids. `planes` (Q, 4): n . p <= d, rows
    `plane_start[i] : plane_start[i + 1]` belong to solid i. `material` (P,) of round solids, `plane_material`
    (Q,). `bound` (P, 5): x, y, radius of the enclosing upright cylinder, lowest and highest z.
    """

    kind: np.ndarray
    owner: np.ndarray
    semantic: np.ndarray
    density: np.ndarray
    albedo: np.ndarray
    material: np.ndarray
    inverse: np.ndarray
    plane_start: np.ndarray
    planes: np.ndarray
    plane_material: np.ndarray
    bound: np.ndarray


class Shape:
    """Solids in a local frame (x forward, y left, z up, z = 0 the ground), collected part by part."""

    def __init__(self, semantic: Semantic, albedo: float = 1.0):
        self.semantic = semantic
        self.albedo = albedo
        self.kinds: list[Kind] = []
        self.materials: list[Material] = []
        self.densities: list[float] = []
        self.semantics: list[Semantic] = []
        self.affine: list[np.ndarray] = []  # (3, 4): A | c; zeros for convex solids
        self.planes: list[list[tuple[float, float, float, float]]] = []
        self.plane_materials: list[list[Material]] = []
        self.corners: list[list[tuple[float, float, float]]] = []

    def _add(
        self, kind, material, density, semantic, affine, planes=(), plane_materials=(), corners=()
    ) -> None:
        self.kinds.append(kind)
        self.materials.append(material)
        self.densities.append(density)
        self.semantics.append(self.semantic if semantic is None else semantic)
        self.affine.append(affine)
        self.planes.append(list(planes))
        self.plane_materials.append(list(plane_materials))
        self.corners.append(list(corners))

    def ellipsoid(
        self,
        centre,
        half_axes,
        material: Material,
        *,
        density=0.0,
        pitch=0.0,
        semantic: Semantic | None = None,
    ) -> None:
        """An ellipsoid; `pitch` tips its z axis forward (towards +x)."""
        a, b, c = half_axes
        cos, sin = math.cos(pitch), math.sin(pitch)
        affine = np.array(
            [
                [a * cos, 0, c * sin, centre[0]],
                [0, b, 0, centre[1]],
                [-a * sin, 0, c * cos, centre[2]],
            ]
        )
        self._add(Kind.ELLIPSOID, material, density, semantic, affine)

    def rod(
        self, start, end, radius, material: Material, *, density=0.0, semantic: Semantic | None = None
    ) -> None:
        """A round cylinder between two points."""
        x, y, z = (end[0] - start[0]) / 2, (end[1] - start[1]) / 2, (end[2] - start[2]) / 2
        half = math.sqrt(x * x + y * y + z * z)
        # Any two unit vectors across the axis: cross it with the axis that it is farthest from.
        if abs(z) < 0.9 * half:
            norm = math.hypot(x, y)
            ux, uy, uz = -y / norm, x / norm, 0.0
        else:
            norm = math.hypot(y, z)
            ux, uy, uz = 0.0, -z / norm, y / norm
        vx, vy, vz = (y * uz - z * uy) / half, (z * ux - x * uz) / half, (x * uy - y * ux) / half
        affine = np.array(
            [
                [radius * ux, radius * vx, x, start[0] + x],
                [radius * uy, radius * vy, y, start[1] + y],
                [radius * uz, radius * vz, z, start[2] + z],
            ]
        )
        self._add(Kind.CYLINDER, material, density, semantic, affine)

    def frustum(
        self,
        bottom,
        top,
        z,
        material: Material,
        *,
        sides: Material | None = None,
        density=0.0,
        semantic: Semantic | None = None,
    ) -> None:
        """Rectangles `bottom` and `top` (x0, x1, y0, y1) at heights `z` (z0, z1); `sides`: their material."""
        (bx0, bx1, by0, by1), (tx0, tx1, ty0, ty1), (z0, z1) = bottom, top, z
        h = z1 - z0
        planes = [(0.0, 0.0, 1.0, z1), (0.0, 0.0, -1.0, -z0)]
        # The side +x contains (bx1, z0) and (tx1, z1), so its outward normal is (h, 0, bx1 - tx1); the others
        # likewise.
        for nx, ny, run, at in (
            (1, 0, bx1 - tx1, bx1),
            (-1, 0, tx0 - bx0, -bx0),
            (0, 1, by1 - ty1, by1),
            (0, -1, ty0 - by0, -by0),
        ):
            norm = math.hypot(h, run)
            planes.append((nx * h / norm, ny * h / norm, run / norm, (h * at + run * z0) / norm))
        corners = [(x, y, z0) for x in (bx0, bx1) for y in (by0, by1)]
        corners += [(x, y, z1) for x in (tx0, tx1) for y in (ty0, ty1)]
        materials = [material, material] + [material if sides is None else sides] * 4
        self._add(Kind.CONVEX, material, density, semantic, np.zeros((3, 4)), planes, materials, corners)

    def box(self, lower, upper, material: Material, *, density=0.0, semantic: Semantic | None = None) -> None:
        """An axis-aligned box between two corners."""
        rectangle = (lower[0], upper[0], lower[1], upper[1])
        self.frustum(rectangle, rectangle, (lower[2], upper[2]), material, density=density, semantic=semantic)

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner (3,), (3,) of the tight axis-aligned box around all solids."""
        lower, upper = np.full(3, np.inf), np.full(3, -np.inf)
        for kind, affine, corners in zip(self.kinds, self.affine, self.corners, strict=True):
            if kind is Kind.CONVEX:
                low, high = np.min(corners, axis=0), np.max(corners, axis=0)
            else:
                half = half_extents(affine[None, :, :3], np.array([kind]))[0]
                low, high = affine[:, 3] - half, affine[:, 3] + half
            lower, upper = np.minimum(lower, low), np.maximum(upper, high)
        return lower, upper


def half_extents(axes: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Half sizes (P, 3) of the axis-aligned boxes around round solids with axes A (P, 3, 3)."""
    squares = axes * axes
    ball = np.sqrt(squares.sum(axis=2))
    can = np.sqrt(squares[:, :, 0] + squares[:, :, 1]) + np.abs(axes[:, :, 2])
    return np.where((kind == Kind.ELLIPSOID)[:, None], ball, can)


class Collection:
    """Shapes placed in the world, on their way to `Primitives`."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = []
        self._poses: list[tuple[float, float, float, float]] = []
        self._owners: list[int] = []

    def place(self, shape: Shape, x: float, y: float, z: float, yaw: float, owner: int = 0) -> None:
        """Put the local origin of `shape` at (x, y, z), turned by `yaw`. `owner` 0 is the background."""
        self._shapes.append(shape)
        self._poses.append((x, y, z, yaw))
        self._owners.append(owner)

    def __len__(self) -> int:
        return len(self._shapes)

    def shift(self, index: int, dx: float, dy: float, dz: float) -> None:
        """Move the shape that was placed as number `index`."""
        x, y, z, yaw = self._poses[index]
        self._poses[index] = (x + dx, y + dy, z + dz, yaw)

    def primitives(self) -> Primitives:
        """All solids in the world frame."""
        shapes = self._shapes
        sizes = np.array([len(shape.kinds) for shape in shapes], dtype=np.int64)
        kind = np.array([k for shape in shapes for k in shape.kinds], dtype=np.int8)
        plane_count = np.array([len(p) for shape in shapes for p in shape.planes], dtype=np.int64)
        planes = np.array([p for s in shapes for ps in s.planes for p in ps], dtype=np.float64).reshape(-1, 4)
        corners = np.array([p for s in shapes for ps in s.corners for p in ps], dtype=np.float64).reshape(
            -1, 3
        )
        affine = np.array([a for shape in shapes for a in shape.affine], dtype=np.float64).reshape(-1, 3, 4)
        pose = np.repeat(np.array(self._poses, dtype=np.float64).reshape(-1, 4), sizes, axis=0)
        rotation = np.zeros((len(pose), 3, 3))
        rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(pose[:, 3])
        rotation[:, 1, 0] = np.sin(pose[:, 3])
        rotation[:, 0, 1] = -rotation[:, 1, 0]
        rotation[:, 2, 2] = 1

        of_plane = np.repeat(np.arange(len(kind)), plane_count)
        normals = np.einsum("qij,qj->qi", rotation[of_plane], planes[:, :3])
        offsets = planes[:, 3] + (normals * pose[of_plane, :3]).sum(axis=1)
        bound = np.zeros((len(kind), 5))
        inverse = np.zeros((len(kind), 12))

        convex = np.flatnonzero(kind == Kind.CONVEX)
        of_corner = np.repeat(convex, 8)
        world = np.einsum("cij,cj->ci", rotation[of_corner], corners) + pose[of_corner, :3]
        world = world.reshape(-1, 8, 3)
        centre = world.mean(axis=1)
        bound[convex, :2] = centre[:, :2]
        reach = np.linalg.norm(world[:, :, :2] - centre[:, None, :2], axis=2)
        bound[convex, 2] = reach.max(axis=1, initial=0)
        bound[convex, 3] = world[:, :, 2].min(axis=1, initial=np.inf)
        bound[convex, 4] = world[:, :, 2].max(axis=1, initial=-np.inf)

        round_ = np.flatnonzero(kind != Kind.CONVEX)
        axes = rotation[round_] @ affine[round_, :, :3]
        centre = np.einsum("pij,pj->pi", rotation[round_], affine[round_, :, 3]) + pose[round_, :3]
        half = half_extents(axes, kind[round_])
        inverse[round_, :9] = np.linalg.inv(axes).reshape(-1, 9)
        inverse[round_, 9:] = -np.einsum("pij,pj->pi", inverse[round_, :9].reshape(-1, 3, 3), centre)
        bound[round_] = np.column_stack(
            [
                centre[:, :2],
                np.hypot(half[:, 0], half[:, 1]),
                centre[:, 2] - half[:, 2],
                centre[:, 2] + half[:, 2],
            ]
        )
        return Primitives(
            kind=kind,
            owner=np.repeat(np.array(self._owners, dtype=np.int32), sizes),
            semantic=np.array([s for shape in shapes for s in shape.semantics], dtype=np.int16),
            density=np.array([d for shape in shapes for d in shape.densities], dtype=np.float64),
            albedo=np.repeat(np.array([shape.albedo for shape in shapes], dtype=np.float64), sizes),
            material=np.array([m for shape in shapes for m in shape.materials], dtype=np.int8),
            inverse=inverse,
            plane_start=np.concatenate([[0], np.cumsum(plane_count)]).astype(np.int64),
            planes=np.column_stack([normals, offsets]),
            plane_material=np.array(
                [m for s in shapes for ms in s.plane_materials for m in ms], dtype=np.int8
            ),
            bound=bound,
        )
