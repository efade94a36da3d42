"""Videos that any player shows: H.264 in .mp4, through PyAV, which brings FFmpeg along (extra `video`)."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from sparse3d.errors import require_extra
from sparse3d.io.files import atomic_path


def write_video(path: str | Path, frames: Sequence[str | Path], rate: float) -> None:
    """Image files of one size -> .mp4 of `rate` frames a second; one frame is in memory at a time. An odd row
    or column at the end is left out: the format has none. ValueError for another ending, no frames, or
    frames of different sizes."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: a video is written as .mp4")
    if not frames:
        raise ValueError("a video needs at least one frame")
    require_extra("av", "video")
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream, size = None, (0, 0)
        for name in frames:
            with Image.open(name) as image:
                pixels = np.asarray(image.convert("RGB"))
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            if stream is None:
                if min(height, width) < 2:
                    raise ValueError(f"{name} is too small for a video")
                stream, size = container.add_stream("libx264", rate=Fraction(rate)), (width, height)
                stream.width, stream.height = size
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            if (width, height) != size:
                raise ValueError(f"{name} is {width} x {height}, the first frame was {size[0]} x {size[1]}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())  # pyright: ignore[reportOptionalMemberAccess]
