"""Objects from labelled points: points of one thing class that stand close together, seen from above.

The plain way from semantic to panoptic labels: Euclidean clustering (Rusu 2009) in x and y, since objects on
a street do not stand on each other. Objects closer together than the class's distance become one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

# Largest gap within an object, metres: occlusion tears vehicles apart, people walk side by side.
GAPS: dict[str, float] = {
    "car": 0.7,
    "bicycle": 0.4,
    "motorcycle": 0.4,
    "truck": 1.2,
    "other-vehicle": 1.2,
    "person": 0.35,
    "bicyclist": 0.5,
    "motorcyclist": 0.5,
}
_CELL_SHARE = 4  # points of one cell of gap / 4 are joined without asking


def cluster_instances(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], gaps: Mapping[str, float] = GAPS
) -> np.ndarray:
    """(N, >=3) points, (N,) labels -> (N,) int64: 0 for points of classes without a gap, else the object's
    number from 1 on, in the order of classes and, within one, of each object's first point."""
    instances = np.zeros(len(points), dtype=np.int64)
    number = 0
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels == label)
        if name in gaps and len(rows):
            objects = _connected(points[rows, :2].astype(np.float64), gaps[name])
            instances[rows] = objects + number + 1
            number += int(objects.max()) + 1
    return instances


def _connected(xy: np.ndarray, gap: float) -> np.ndarray:
    """(N, 2) -> (N,) component of each point, in the order of first points; gaps are measured between the
    mean points of cells, so to within half a cell."""
    cell = np.floor(xy / (gap / _CELL_SHARE)).astype(np.int64)
    _, row, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    row = row.reshape(-1)
    centres = np.stack([np.bincount(row, weights=xy[:, axis]) / count for axis in (0, 1)], axis=1)
    pairs = KDTree(centres).query_pairs(gap, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(count),) * 2)
    component = connected_components(graph, directed=False)[1][row]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
