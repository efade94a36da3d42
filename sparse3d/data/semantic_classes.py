"""The classes of SemanticKITTI: which ids in .label files mean what, and which are learned.

28 ids occur in the files; the single-scan benchmark learns 19 classes, for which moving objects count as
resting ones, lane markings as road, and buses and trains as other vehicles (Behley et al., arXiv 1904.01416,
and the benchmark's configuration). The others are not asked for.
"""

from collections.abc import Sequence

import numpy as np

from sparse3d.errors import ConfigError
from sparse3d.frames import IGNORE

# Learned class -> ids in the files; the first id is the one that results are written with.
SEMANTICKITTI_IDS: dict[str, tuple[int, ...]] = {
    "car": (10, 252),
    "bicycle": (11,),
    "motorcycle": (15,),
    "truck": (18, 258),
    "other-vehicle": (20, 13, 16, 256, 257, 259),
    "person": (30, 254),
    "bicyclist": (31, 253),
    "motorcyclist": (32, 255),
    "road": (40, 60),
    "parking": (44,),
    "sidewalk": (48,),
    "other-ground": (49,),
    "building": (50,),
    "fence": (51,),
    "vegetation": (70,),
    "trunk": (71,),
    "terrain": (72,),
    "pole": (80,),
    "traffic-sign": (81,),
}
SEMANTICKITTI_CLASSES = tuple(SEMANTICKITTI_IDS)
# Unlabelled, outlier, other structure, other object.
UNASKED_IDS = (0, 1, 52, 99)
# Classes of countable objects; the others are "stuff" to the panoptic measure.
THINGS = frozenset(SEMANTICKITTI_CLASSES[:8])

_UNKNOWN = -2


class LabelMap:
    """Ids of .label files to labels (positions in `classes`) and back.

    `classes` is a choice of the 19; ids of the others, and those that nobody asks for, become IGNORE.
    """

    def __init__(self, classes: Sequence[str]):
        unknown = [name for name in classes if name not in SEMANTICKITTI_IDS]
        if unknown or not classes or len(set(classes)) != len(classes):
            raise ConfigError(
                f"classes are {list(classes)}; expected each once, of: {', '.join(SEMANTICKITTI_CLASSES)}"
            )
        self.classes = tuple(classes)
        self._label = np.full(1 << 16, _UNKNOWN, dtype=np.int64)
        self._label[list(UNASKED_IDS)] = IGNORE
        for name, ids in SEMANTICKITTI_IDS.items():
            self._label[list(ids)] = self.classes.index(name) if name in self.classes else IGNORE
        # IGNORE = -1 reaches the last entry: unlabelled.
        self._raw = np.array([*(SEMANTICKITTI_IDS[name][0] for name in self.classes), 0], dtype=np.int64)

    def to_labels(self, raw: np.ndarray) -> np.ndarray:
        """(N,) ids in [0, 65536) -> (N,) int64 labels. ValueError for an id that SemanticKITTI has not."""
        labels = self._label[raw]
        if (labels == _UNKNOWN).any():
            row = int(np.flatnonzero(labels == _UNKNOWN)[0])
            raise ValueError(f"label {row} has the class id {int(raw[row])}, which SemanticKITTI has not")
        return labels

    def to_raw(self, labels: np.ndarray) -> np.ndarray:
        """(N,) labels -> (N,) int64 ids as results are written; IGNORE becomes 0."""
        return self._raw[labels]
