"""An exhibit as one file: a page that needs no server and no network, for any browser with WebGL 2.

The file holds the viewer (`page/`), a head in JSON and the arrays, zlib-compressed in base64; textures are
JPEGs. Its content
security policy forbids every request, and every script but ours, whatever titles say.

Gaussians take 32 bytes: mean 3 x float32 | colour and opacity 4 x uint8 | natural logarithms of the
deviations 3 x float16 | unused 2 bytes | quaternion w x y z 4 x int16, fractions of 32767; and for harmonics
beyond the first 16, 32 or 48 bytes: coefficient k of channel c in byte 3 k + c, 128 + 127 times its share of
the degree's `ranges`. Surfels are Gaussians of no thickness.
"""

import base64
import hashlib
import html
import io
import json
import re
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.quantizing import colors_of, opacity_bytes, to_bytes
from sparse3d.gaussians.repair import LEAST_LOG_SCALE, normalized
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import write_text
from sparse3d.viewers.exhibit import Exhibit
from sparse3d.viewers.still import AMBIENT, PLAIN, is_shaded

# Browsers hold the base64 text as one string, of at most 2^29 characters; four stand for three bytes.
MOST_BYTES = 3 << 27
MOST_SPLATS = 1 << 23  # two texels each, in a texture of 4096 x 4096, which every browser has
_SH_DEGREE = 3
# This part of a degree's coefficients is kept as it is; what is larger is cut, or it would take all steps.
_KEPT = 0.9995


def write_html(path: str | Path, exhibit: Exhibit) -> int:
    """Write the page of an exhibit atomically; its size in bytes. ValueError for more than browsers take."""
    text = page_of(exhibit)
    write_text(path, text)
    return len(text.encode())


def page_of(exhibit: Exhibit) -> str:
    """The page's text."""
    arrays, head = _Arrays(), _head(exhibit)
    for mesh in exhibit.meshes:
        head["parts"].append(_mesh(mesh, arrays, head["origin"]))
    if exhibit.splats is not None:
        head["parts"].append(_splats(exhibit.splats, arrays, head["origin"]))
    if (points := exhibit.points) is not None and len(points.places):
        part = {"kind": "points", "count": len(points.places), "size": points.size}
        part["positions"] = arrays.add(points.places - head["origin"], "<f4")
        head["parts"].append(part | {"colors": arrays.add(_opaque(points.colors), "u1")})
    if (lines := exhibit.lines) is not None and len(lines.ends):
        part = {"kind": "lines", "count": len(lines.ends)}
        part["ends"] = arrays.add(lines.ends.reshape(-1, 6) - np.tile(head["origin"], 2), "<f4")
        head["parts"].append(part | {"colors": arrays.add(_opaque(lines.colors), "u1")})
    if arrays.length > MOST_BYTES:
        raise ValueError(
            f"{arrays.length / 2**20:.0f} MiB of {exhibit.contents} are more than a page of its own takes "
            f"({MOST_BYTES >> 20} MiB): simplify or thin it out first, or leave --html out and serve it"
        )
    folder = resources.files("sparse3d.viewers") / "page"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.js"))
    policy = f"default-src 'none'; img-src data: blob:; style-src {_hash(style)}; script-src {_hash(script)}"
    packed = zlib.compress(b"".join(arrays.parts), 6)
    fields = {
        "policy": policy,
        "title": html.escape(exhibit.title),
        "style": style,
        # "<" would end the element that holds it.
        "head": json.dumps(head, allow_nan=False).replace("<", "\\u003c"),
        "data": base64.b64encode(packed).decode("ascii"),
        "script": script,
    }
    template = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: fields[found[1]], template)


class _Arrays:
    """Bytes one array after the other, each from a multiple of four on."""

    def __init__(self):
        self.parts: list[bytes] = []
        self.length = 0

    def add(self, array: np.ndarray, kind: str) -> int:
        """The offset at which an array of this dtype begins."""
        data = np.ascontiguousarray(array, dtype=kind).tobytes()
        data += b"\0" * (-len(data) % 4)
        self.parts.append(data)
        self.length += len(data)
        return self.length - len(data)


def _head(exhibit: Exhibit) -> dict[str, Any]:
    view = exhibit.viewpoint
    return {
        "title": exhibit.title,
        # Numbers far from 0 lose their digits in float32: all of it lies around the target.
        "origin": list(view.target),
        "view": {"eye": view.eye, "up": view.up, "fieldOfView": view.field_of_view},
        "reach": exhibit.reach,
        "background": exhibit.background,
        "legend": [row._asdict() for row in exhibit.legend],
        "parts": [],
        "ambient": AMBIENT,
        "blur": exhibit.drawing.blur,
        "near": exhibit.drawing.near,
        # A surfel's own width keeps it visible from the side, not what the blur takes from it.
        "antialiased": exhibit.drawing.mode == "antialiased"
        and not (exhibit.splats is not None and exhibit.splats.surfels),
    }


def _mesh(mesh: Mesh, arrays: _Arrays, origin: list[float]) -> dict[str, Any]:
    texture = mesh.material.texture if mesh.has_texture and mesh.material is not None else None
    normals = np.zeros((len(mesh.vertices), 4), np.int8)
    normals[:, :3] = np.rint(127 * mesh.vertex_normals)
    part: dict[str, Any] = {"kind": "mesh", "shaded": is_shaded(mesh), "paint": PLAIN}
    if mesh.material is not None:
        part["paint"] = [round(255 * value) for value in mesh.material.color]
    rows = mesh.faces.ravel() if texture is not None else np.arange(len(mesh.vertices))
    faces = np.arange(mesh.faces.size) if texture is not None else mesh.faces
    part |= {"vertices": len(rows), "indices": mesh.faces.size}
    part["positions"] = arrays.add(mesh.vertices[rows] - np.array(origin), "<f4")
    part["normals"] = arrays.add(normals[rows], "i1")
    part["faces"] = arrays.add(faces, "<u4")
    if texture is not None:
        assert mesh.uv is not None
        part["uv"] = arrays.add(mesh.uv.reshape(-1, 2), "<f4")
        picture = _picture(texture)
        part |= {"picture": arrays.add(np.frombuffer(picture, np.uint8), "u1"), "length": len(picture)}
    elif mesh.colors is not None:
        part["colors"] = arrays.add(_opaque(mesh.colors), "u1")
    return part


def _picture(texture: np.ndarray) -> bytes:
    """A texture as a JPEG without losses that one sees."""
    file = io.BytesIO()
    Image.fromarray(texture).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _splats(cloud: GaussianCloud, arrays: _Arrays, origin: list[float]) -> dict[str, Any]:
    if len(cloud) > MOST_SPLATS:
        raise ValueError(f"{len(cloud)} Gaussians are more than a page of its own takes ({MOST_SPLATS})")
    cloud = type(cloud).of({name: part.detach().cpu() for name, part in cloud.parameters().items()})
    layout = [("mean", "<f4", 3), ("color", "u1", 4), ("scale", "<f2", 4), ("quat", "<i2", 4)]
    rows = np.zeros(len(cloud), np.dtype(layout))
    rows["mean"] = cloud.means.double().numpy() - np.array(origin)
    rows["color"][:, :3] = to_bytes(255 * colors_of(cloud.sh0))
    rows["color"][:, 3] = opacity_bytes(cloud.opacities)
    rows["scale"] = LEAST_LOG_SCALE
    rows["scale"][:, : cloud.scales.shape[1]] = cloud.scales.numpy().clip(-60000, 60000)
    rows["quat"] = np.rint(32767 * normalized(cloud.quats)[0].numpy())
    part = {"kind": "splats", "count": len(cloud), "texels": arrays.add(rows.view(np.uint8), "u1")}
    degree = min(cloud.sh_degree, _SH_DEGREE)
    if degree == 0:
        return part
    coefficients = cloud.shN.numpy()[:, : (degree + 1) ** 2 - 1]
    stored = np.full((len(cloud), -(-coefficients[0].size // 16) * 16), 128, np.uint8)
    ranges = []
    for l in range(1, degree + 1):
        band = coefficients[:, l * l - 1 : (l + 1) ** 2 - 1].reshape(len(cloud), -1)
        ranges.append(max(float(np.quantile(np.abs(band), _KEPT)), 1e-6))
        steps = np.rint(128 + 127 * np.clip(band / ranges[-1], -1, 1))
        stored[:, 3 * (l * l - 1) : 3 * ((l + 1) ** 2 - 1)] = steps
    return part | {"degree": degree, "ranges": ranges, "harmonics": arrays.add(stored, "u1")}


def _opaque(colors: np.ndarray) -> np.ndarray:
    return np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], 1)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
