"""The table of marching cubes, derived: which triangles part the corners of a cube that are inside from those
that are outside, for each of the 256 ways.

Corner k = 4 dx + 2 dy + dz of a cube; edge e runs from corner BASE[e] along axis AXIS[e]. A case is the sum
of 2^k over its inside corners.

A surface crosses each edge whose ends differ, once. On a face the crossings are joined so that each run of
inside corners is cut off by itself: where a face has two inside corners on a diagonal, they are apart. The
rule looks at nothing but the face, so the two cubes that share it agree, and no crack is left (the table of
Lorensen and Cline, 1987, has cracks there; Duerst, 1988). The pieces on the six faces of a cube close to
loops, and each loop is filled with triangles, none of which has an inner edge that lies in a face: such an
edge could be one of the neighbour's too, and would then have four triangles.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np

_BITS = (4, 2, 1)  # of the axes x, y, z in a corner's number
EDGES = tuple((corner, axis) for axis in range(3) for corner in range(8) if not corner & _BITS[axis])
BASE = np.array([corner for corner, _ in EDGES])
AXIS = np.array([axis for _, axis in EDGES])
TIP = np.array([corner | _BITS[axis] for corner, axis in EDGES])
# The corners around each face, counter-clockwise as seen from outside: axis by axis, low side then high.
FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_EDGE_OF = {frozenset((int(a), int(b))): e for e, (a, b) in enumerate(zip(BASE, TIP, strict=True))}


@lru_cache(maxsize=1)
def triangles() -> np.ndarray:
    """(256, most, 3) int64: the edges that the corners of each case's triangles lie on, -1 beyond the last;
    counter-clockwise as seen from outside."""
    lists = [[t for loop in loops(case) for t in _fill(loop)] for case in range(256)]
    table = np.full((256, max(map(len, lists)), 3), -1, dtype=np.int64)
    for case, found in enumerate(lists):
        table[case, : len(found)] = np.reshape(found, (-1, 3))
    return table


def loops(case: int) -> list[list[int]]:
    """The edges that the surface crosses, in the order in which it goes around."""
    follows: dict[int, int] = {}
    for face in FACES:
        inside = [bool(case >> corner & 1) for corner in face]
        edges = [_EDGE_OF[frozenset(pair)] for pair in pairwise((*face, face[0]))]
        for i in range(4):
            if inside[i] and not inside[i - 1]:  # a run of inside corners begins
                last = next(i + n for n in range(4) if not inside[(i + n + 1) % 4])
                follows[edges[i - 1]] = edges[last % 4]
    loops = []
    while follows:
        loop = [min(follows)]
        while (after := follows.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(loop)
    return loops


def _faces_of(edge: int) -> set[int]:
    ends = {int(BASE[edge]), int(TIP[edge])}
    return {number for number, face in enumerate(FACES) if ends <= set(face)}


def _fill(loop: list[int]) -> list[tuple[int, int, int]]:
    """The first way, in order, to fill a loop with triangles without inner edges in faces."""
    if len(loop) == 3:
        return [(loop[0], loop[1], loop[2])]
    found = _polygon(tuple(loop), closing_is_inner=False)
    assert found is not None, f"no filling of {loop}"
    return found


def _polygon(loop: tuple[int, ...], closing_is_inner: bool) -> list[tuple[int, int, int]] | None:
    """The edge from the last to the first of `loop` belongs to one triangle, whose third corner is tried in
    turn; the rest falls into two polygons."""
    if len(loop) < 3:
        return []
    if closing_is_inner and _faces_of(loop[0]) & _faces_of(loop[-1]):
        return None
    for apex in range(1, len(loop) - 1):
        left = _polygon(loop[: apex + 1], apex > 1) if apex > 1 else []
        right = _polygon(loop[apex:], len(loop) - apex > 2) if len(loop) - apex > 2 else []
        if left is not None and right is not None:
            return [(loop[0], loop[apex], loop[-1]), *left, *right]
    return None
