"""KITTI frames made of a few numbers, for the evaluation tests."""

import numpy as np

from sparse3d.io.kitti import KittiObjects


def objects(*rows, **columns):
    """Rows (name, x, z) of 4 x 1.6 x 1.5 m boxes on the ground that face along x, each with an image box.

    The image box is 100 x 100 px at (200 row, 0); any column can be replaced by a keyword.
    """
    count = len(rows)
    lefts = 200.0 * np.arange(count)
    given = {
        "names": np.array([row[0] for row in rows], dtype=np.str_),
        "truncated": np.zeros(count),
        "occluded": np.zeros(count, dtype=np.int64),
        "alpha": np.zeros(count),
        "boxes_image": np.stack([lefts, 0 * lefts, lefts + 100, 0 * lefts + 100], axis=1),
        "dimensions": np.tile([1.5, 1.6, 4.0], (count, 1)),
        "locations": np.array([[row[1], 1.7, row[2]] for row in rows], dtype=np.float64).reshape(-1, 3),
        "rotation_y": np.zeros(count),
        "scores": np.ones(count),
    }
    return KittiObjects(**{**given, **{key: np.asarray(value) for key, value in columns.items()}})


def changed(frame, **columns):
    return KittiObjects(**{**vars(frame), **{key: np.asarray(value) for key, value in columns.items()}})


def random_frames(count, seed=0, per_frame=6):
    """Frames of cars, pedestrians, cyclists, vans and DontCare regions, of every difficulty."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        kinds = ["Car", "Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare"]
        names = rng.choice(kinds, per_frame)
        spots = [(name, 8.0 * i, rng.uniform(5, 50)) for i, name in enumerate(names)]
        frame = objects(
            *spots,
            truncated=rng.choice([0, 0.2, 0.4], per_frame, p=[0.8, 0.1, 0.1]),
            occluded=rng.choice([0, 1, 2], per_frame, p=[0.7, 0.2, 0.1]),
            alpha=rng.uniform(-np.pi, np.pi, per_frame),
            rotation_y=rng.uniform(-np.pi, np.pi, per_frame),
        )
        tops = np.array(frame.boxes_image)
        tops[:, 3] = rng.uniform(20, 100, per_frame)
        frames.append(changed(frame, boxes_image=tops))
    return frames


def detected(frames, seed=0, noise=0.0, missed=0.0):
    """The same objects as detections: distinct scores, boxes moved by `noise` metres, some left out."""
    rng = np.random.default_rng(seed)
    out = []
    for frame in frames:
        keep = np.array([rng.random() >= missed for _ in frame.names], dtype=bool)
        keep &= frame.names != "DontCare"
        out.append(
            changed(
                frame.select(keep),
                locations=frame.locations[keep] + noise * rng.normal(size=(keep.sum(), 3)),
                scores=rng.uniform(0.05, 1, keep.sum()),
            )
        )
    return out


def crowded(frames, seed=0):
    """Every object detected three times, moved, some with another class or small in the image, shuffled."""
    rng = np.random.default_rng(seed)
    out = []
    for frame in frames:
        rows = frame.select(rng.permutation(np.repeat(np.arange(len(frame)), 3)))
        count = len(rows)
        images = rows.boxes_image + rng.normal(0, 6, (count, 4))
        images[:, 3] = np.maximum(images[:, 3], images[:, 1] + 5)
        out.append(
            changed(
                rows,
                names=np.where(rng.random(count) < 0.2, rng.choice(["Car", "Pedestrian"], count), rows.names),
                alpha=rows.alpha + rng.normal(0, 0.5, count),
                boxes_image=images,
                locations=rows.locations + rng.normal(0, 0.15, (count, 3)),
                scores=rng.uniform(0, 1, count),
            )
        )
    return out
