"""Damaged files of Gaussians: small valid ones with bytes, numbers and lengths changed, inside and outside of
what packs them.

python -m tests.gaussians.fuzzing [SECONDS]      reads as many as fit; prints what is neither read nor refused
"""

import gzip
import io
import json
import random
import re
import struct
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats import open_splats, write_splats
from sparse3d.gaussians.repair import repair
from tests.gaussians.splat_files import some_cloud

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    65535,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
NUMBERS += (1 << 40, 10**12, (1 << 63) - 1, 10**30)
VALUES = (None, True, "", "x", "..", "/", [], {}, [[]], 0.5, -1e300, float("nan"), float("inf"), *NUMBERS)
# A reader may take this much and this many times the size of the file.
MEMORY, MEMORY_A_BYTE = 32 << 20, 2000


def bytes_changed(data: bytes, draw: random.Random) -> bytes:
    """A few bytes set, cut out, doubled, put in; integers overwritten; or the end cut off."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(out) + 1)
        span = draw.choice((1, 2, 4, 8, 64, 1000))
        match draw.randrange(6):
            case 0 if at < len(out):
                out[at] = draw.randrange(256)
            case 1:
                del out[at : at + span]
            case 2:
                out[at:at] = out[at : at + span]
            case 3:
                out[at:at] = draw.randbytes(span)
            case 4:
                kind, most = draw.choice((("<H", 1 << 16), ("<I", 1 << 32), ("<Q", 1 << 64)))
                number = struct.pack(kind, draw.choice(NUMBERS) % most)
                out[at : at + len(number)] = number
            case 5 if draw.random() < 0.3:
                del out[at:]
    return bytes(out)


def text_changed(data: bytes, draw: random.Random) -> bytes:
    """A .ply's header with another number or word, or a line less or twice."""
    end = data.find(b"end_header\n")
    head, rest = data[: max(end, 0)], data[max(end, 0) :]
    if draw.random() < 0.5:
        words = re.split(rb"(\s+)", head)
        at = draw.randrange(len(words))
        words[at] = draw.choice([str(draw.choice(NUMBERS)).encode(), draw.choice(words), b""])
        return b"".join(words) + rest
    lines = head.split(b"\n")
    at = draw.randrange(len(lines))
    lines[at : at + 1] = draw.choice([[], [lines[at]] * 2, [draw.choice(lines)]])
    return b"\n".join(lines) + rest


def tree_changed(data: bytes, draw: random.Random) -> bytes:
    """JSON with one value, somewhere, replaced or gone."""
    tree = json.loads(data)
    places: list[tuple] = []

    def walk(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = draw.choice(places)
    if draw.random() < 0.2:
        del node[key]
    else:
        node[key] = draw.choice([draw.choice(VALUES), draw.choice(places)[0]])
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):  # it holds itself
        return data


def spz_changed(data: bytes, draw: random.Random) -> bytes:
    import zstandard

    if data[:2] == b"\x1f\x8b":
        return gzip.compress(bytes_changed(gzip.decompress(data), draw), 1, mtime=0)
    head, table, arrays, at = data[:32], [], [], 32 + 16 * data[15]
    for number in range(data[15]):
        packed, size = struct.unpack_from("<QQ", data, 32 + 16 * number)
        arrays.append(zstandard.decompress(data[at : at + packed]))
        table.append(size)
        at += packed
    place = draw.randrange(len(arrays))
    arrays[place] = bytes_changed(arrays[place], draw)
    if draw.random() < 0.5:
        head = bytes_changed(head[:20], draw)[:20].ljust(32, b"\0")
    packed = [zstandard.compress(array) for array in arrays]
    sizes = [size if draw.random() < 0.5 else len(a) for size, a in zip(table, arrays, strict=True)]
    return (
        head
        + b"".join(struct.pack("<QQ", len(p), s) for p, s in zip(packed, sizes, strict=True))
        + b"".join(packed)
    )


def sog_changed(data: bytes, draw: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([*files, *["meta.json"] * 6])
    files[name] = (tree_changed if name == "meta.json" else bytes_changed)(files[name], draw)
    if draw.random() < 0.1:
        files.pop(draw.choice(list(files)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def glb_changed(data: bytes, draw: random.Random) -> bytes:
    (size,) = struct.unpack_from("<I", data, 12)
    text, rest = tree_changed(data[20 : 20 + size], draw), data[20 + size :]
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


Change = Callable[[bytes, random.Random], bytes]


def seeds(folder: Path) -> dict[str, tuple[str, bytes, tuple[Change, ...]]]:
    """A small valid file of each kind: its ending, its bytes, and what may be changed inside of it."""
    cloud, flat = some_cloud(20, 1), some_cloud(5, 0, surfels=True)
    kinds = {
        "ply": (".ply", cloud, {}, (text_changed,)),
        "surfels": (".ply", flat, {"normals": False}, (text_changed,)),
        "compressed": (".compressed.ply", cloud, {}, (text_changed,)),
        "splat": (".splat", cloud, {}, ()),
        "spz2": (".spz", cloud, {"version": 2}, (spz_changed,)),
        "spz3": (".spz", cloud, {"version": 3}, (spz_changed,)),
        "spz4": (".spz", cloud, {"version": 4}, (spz_changed,)),
        "sog": (".sog", cloud, {}, (sog_changed,)),
        "glb": (".glb", cloud, {}, (glb_changed,)),
    }
    out = {}
    for name, (ending, content, options, changes) in kinds.items():
        path = folder / f"seed_{name}{ending}"
        write_splats(path, content, **options)
        out[name] = (ending, path.read_bytes(), changes)
    ascii_rows = "\n".join(" ".join(map(str, range(14))) for _ in range(3))
    names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
    head = "".join(f"property float {n}\n" for n in names)
    text = f"ply\nformat ascii 1.0\nelement vertex 3\n{head}end_header\n{ascii_rows}\n"
    out["ascii"] = (".ply", text.encode(), (text_changed,))
    return out


def damaged(seed: tuple[str, bytes, tuple[Change, ...]], draw: random.Random) -> bytes:
    """Changed inside or outside."""
    _, data, changes = seed
    if changes and draw.random() < 0.6:
        return draw.choice(changes)(data, draw)
    return bytes_changed(data, draw)


def read_or_refuse(path: Path) -> bool:
    """Whether a file is read, as Gaussians that can be drawn when they are mended; False where it is refused.
    Anything but a ValueError comes through."""
    try:
        cloud = open_splats(path).cloud()
    except ValueError as error:
        assert str(path) in str(error), "the error names the file"
        return False
    assert isinstance(cloud, GaussianCloud) and len(cloud)
    mended, _ = repair(cloud)
    for tensor in mended.parameters().values():
        assert tensor.dtype == torch.float32 and tensor.isfinite().all()
    return True


def main(seconds: float) -> int:
    """How many findings."""
    counts: dict[str, list[int]] = {}
    found = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = seeds(folder)
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            kind = list(kinds)[number % len(kinds)]
            data = damaged(kinds[kind], random.Random(number))
            path = folder / f"damaged{kinds[kind][0]}"
            path.write_bytes(data)
            counts.setdefault(kind, [0, 0])
            tracemalloc.start()
            try:
                counts[kind][read_or_refuse(path)] += 1
                peak = tracemalloc.get_traced_memory()[1]
                assert peak < MEMORY + MEMORY_A_BYTE * len(data), f"{peak} bytes for a file of {len(data)}"
            except (Exception, MemoryError) as error:
                found += 1
                print(f"{kind} {number}: {type(error).__name__} {error}", flush=True)
            finally:
                tracemalloc.stop()
            number += 1
    for kind, (refused, read) in counts.items():
        print(f"{kind}: {refused} refused, {read} read")
    print(f"{number} files, {found} findings")
    return found


if __name__ == "__main__":
    sys.exit(bool(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)))
