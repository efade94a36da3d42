"""What a mesh says about its shape."""

import numpy as np
import pytest

from sparse3d.geometry.mesh import Mesh

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def tetrahedron(scale=1.0, shift=0.0, inside_out=False):
    return Mesh(CORNERS * scale + shift, FACES[:, ::-1] if inside_out else FACES)


def joined(*meshes):
    begins = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + begin for mesh, begin in zip(meshes, begins, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def test_a_tetrahedron():
    mesh = tetrahedron(2.0, shift=100.0)
    assert mesh.is_closed and mesh.euler_number == 2 and mesh.components[0] == 1
    assert mesh.volume == pytest.approx(8 / 6, rel=1e-4)  # float32 at 100
    assert mesh.area == pytest.approx(4 * (1.5 + 3**0.5 / 2), rel=1e-4)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mesh.face_normals[3], [4, 4, 4], rtol=1e-4)
    assert tetrahedron(inside_out=True).volume < 0


def test_a_face_that_is_missing_turned_or_doubled_is_seen():
    assert not tetrahedron().select(np.array([1, 1, 1, 0], bool)).is_closed
    turned = FACES.copy()
    turned[3] = turned[3, ::-1]
    assert not Mesh(CORNERS, turned).is_closed
    assert not Mesh(CORNERS, np.concatenate([FACES, FACES[:1]])).is_closed


def test_small_pieces_go_and_the_largest_stays():
    six = Mesh(
        np.concatenate([CORNERS, [[1, 1, 1]]]).astype(np.float32) + 5,
        np.concatenate([FACES[:3], [[1, 2, 4], [2, 3, 4], [3, 1, 4]]]),
    )
    both = joined(tetrahedron(), six)
    assert both.components[0] == 2 and both.is_closed and both.euler_number == 4
    assert len(both.without_small_pieces(4).faces) == 10
    left = both.without_small_pieces(5)
    assert len(left.faces) == 6 and len(left.vertices) == 5 and left.vertices.min() >= 5
    assert len(both.without_small_pieces(1000).faces) == 6


def test_hollows_go_and_what_is_open_stays():
    hollow = joined(tetrahedron(4.0, 50.0), tetrahedron(0.5, 50.5, inside_out=True))
    assert hollow.volume == pytest.approx((64 - 0.125) / 6, rel=1e-3)
    filled = hollow.without_cavities()
    assert len(filled.faces) == 4 and filled.volume == pytest.approx(64 / 6, rel=1e-3)
    sheet = tetrahedron(inside_out=True).select(np.array([1, 1, 1, 0], bool))
    assert sheet.without_cavities() is sheet


@pytest.mark.parametrize(
    ("vertices", "faces", "colors", "words"),
    [
        (CORNERS[:, :2], FACES, None, "vertices"),
        (CORNERS * np.nan, FACES, None, "not finite"),
        (CORNERS, FACES[:, :2], None, "faces"),
        (CORNERS, FACES + 1, None, "there are 4"),
        (CORNERS, FACES - 1, None, "-1"),
        (CORNERS, FACES, np.zeros((4, 3)), "uint8"),
    ],
)
def test_arrays_that_are_no_mesh_are_refused(vertices, faces, colors, words):
    with pytest.raises(ValueError, match=words):
        Mesh(vertices, faces, colors)


def test_a_mesh_of_nothing_is_one():
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=int))
    assert empty.is_closed and empty.euler_number == 0 and empty.components[0] == 0 and empty.area == 0
    assert empty.without_small_pieces(3) is empty and empty.without_cavities() is empty
