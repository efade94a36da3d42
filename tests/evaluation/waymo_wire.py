"""Reads the example files of Waymo's metrics tool: protocol buffers of `Objects`, without the package.

The numbers of the fields are those of the public label.proto and metrics.proto.
"""

import struct

import numpy as np

from sparse3d.evaluation.frame_boxes import FrameBoxes


def fields(data):
    """Yield (number, value) of one message: int, float64, float32 or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 1:
            yield key >> 3, struct.unpack_from("<d", data, at)[0]
            at += 8
        elif kind == 5:
            yield key >> 3, struct.unpack_from("<f", data, at)[0]
            at += 4
        else:
            size = varint()
            yield key >> 3, data[at : at + size]
            at += size


def read_objects(path):
    """Frame key -> list of (box, type, score, points, difficulty)."""
    frames = {}
    for number, data in fields(path.read_bytes()):
        if number != 1:
            continue
        thing = dict(fields(data))
        label = dict(fields(thing[1]))
        box = dict(fields(label[1]))
        row = [box.get(n, 0.0) for n in (1, 2, 3, 5, 4, 6, 7)]
        key = (thing.get(4), thing.get(6), thing.get(5))
        found = (row, label.get(3, 0), thing.get(2, 1.0), label.get(7, 0), label.get(5, 0))
        frames.setdefault(key, []).append(found)
    return frames


def as_frame(rows, labels_of_types, with_scores):
    rows = [row for row in rows if row[1] in labels_of_types]
    boxes = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 7)
    labels, points, difficulty = (
        np.array([value(row) for row in rows], dtype=np.int64)
        for value in (lambda r: labels_of_types[r[1]], lambda r: r[3], lambda r: r[4])
    )
    if with_scores:
        return FrameBoxes(boxes, labels, np.array([row[2] for row in rows], dtype=np.float64))
    return FrameBoxes(boxes, labels, num_points=points, difficulty=difficulty)
