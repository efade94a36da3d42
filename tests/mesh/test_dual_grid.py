"""Dual grids: near the mesh both ways, sharp where it is sharp, open where it is open."""

import numpy as np
import pytest

from sparse3d.geometry import memory
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.meshes import read_mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.dual_grid import DualGrid, dual_grid_to_mesh, mesh_to_dual_grid
from tests.mesh.shapes import box, box_distance, hemisphere, icosphere, joined, turned

VOXEL = 0.04


def there_and_back(mesh, voxel_size=VOXEL, **settings):
    return dual_grid_to_mesh(mesh_to_dual_grid(mesh, voxel_size, **settings))


def hausdorff(one, other, count=50_000):
    """The largest distance of a point of either from the other."""

    def apart(a, b):
        face, weights = a.spread_points(count)
        inner = (weights[:, :, None] * a.vertices[a.faces[face]].astype(np.float64)).sum(1)
        return MeshDistance(b).unsigned(np.concatenate([a.vertices.astype(np.float64), inner])).max()

    return max(apart(one, other), apart(other, one))


def sharp_points(mesh, cosine=0.8, count=10):
    """Points on the edges where two faces meet at a larger angle."""
    ends = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    face = np.repeat(np.arange(len(mesh.faces)), 3)
    key = np.sort(ends, 1).astype(np.int64) @ [len(mesh.vertices), 1]
    order = np.argsort(key, kind="stable")
    pairs = face[order].reshape(-1, 2)  # of a closed mesh
    unit = mesh.face_normals / np.linalg.norm(mesh.face_normals, axis=1, keepdims=True)
    sharp = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1) < cosine
    a, b = mesh.vertices[ends[order][::2][sharp]].astype(np.float64).transpose(1, 0, 2)
    part = np.linspace(0, 1, count)[:, None, None]
    return (a + part * (b - a)).reshape(-1, 3)


def test_a_sphere_is_closed_and_within_a_tenth_of_a_voxel():
    mesh = icosphere(rounds=5)
    found = there_and_back(mesh, doubled="drop")
    assert found.is_closed and found.euler_number == 2 and found.volume > 0
    assert hausdorff(mesh, found) < 0.1 * VOXEL
    # With them the grid has a fin wherever the sphere pokes through an edge and back.
    ends, count = there_and_back(mesh, doubled="keep").edges
    assert len(ends) and 0 < (count != 2).sum() < 0.01 * len(count)
    assert np.abs(np.linalg.norm(found.vertices, axis=1) - 1).max() < 0.05 * VOXEL


def test_faces_keep_their_sense():
    found = there_and_back(turned(icosphere(rounds=3)))
    assert found.volume == pytest.approx(-4 / 3 * np.pi, rel=0.02)


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_edges_and_corners_of_a_box_stay_sharp(turn):
    """Marching cubes would cut them by up to half a voxel."""
    straight = box()
    c, s = np.cos(turn), np.sin(turn)
    about = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    mesh = Mesh(straight.vertices @ about.T, straight.faces)
    closed = there_and_back(mesh, doubled="drop")
    assert closed.is_closed and closed.euler_number == 2
    found = there_and_back(mesh)
    corners = MeshDistance(found).unsigned(mesh.vertices.astype(np.float64))
    assert corners.max() < 0.1 * VOXEL
    assert MeshDistance(found).unsigned(sharp_points(mesh)).max() < 0.1 * VOXEL
    assert np.abs(box_distance(found.vertices @ about)).max() < 0.1 * VOXEL


def test_without_plane_terms_edges_are_cut():
    """That the test above can fail: with a strong pull to the mean, vertices are those of surface nets."""
    found = there_and_back(box(), regularization=1e3)
    assert MeshDistance(found).unsigned(sharp_points(box())).max() > 0.15 * VOXEL


def test_an_open_hemisphere_stays_open_with_its_rim_in_place():
    mesh = hemisphere(rounds=5)
    found = there_and_back(mesh, doubled="drop")
    ends, count = found.edges
    rim = found.vertices[ends[count == 1]]
    assert found.euler_number == 1 and len(rim)
    assert np.abs(rim[..., 2]).max() < VOXEL and np.abs(np.linalg.norm(rim, axis=-1) - 1).max() < 0.1 * VOXEL
    assert hausdorff(mesh, found) < VOXEL


def test_borders_pull_the_rim():
    mesh = hemisphere(rounds=5)
    far = []
    for weight in (0.0, 0.2):
        found = there_and_back(mesh, boundary_weight=weight, doubled="drop")
        ends, count = found.edges
        far.append(np.abs(found.vertices[ends[count == 1]][..., 2]).mean())
    assert far[1] < 0.7 * far[0]


def test_sheets_that_meet_in_one_edge_stay_together():
    """Three half planes along one line: no inside, no outside, three faces at an edge."""
    flaps = []
    for angle in (0.2, 2.4, 4.3):
        tip = np.array([0, np.cos(angle), np.sin(angle)])
        corners = np.array([[-1, 0, 0], [1, 0, 0], [1, 0, 0] + tip, [-1, 0, 0] + tip])
        flaps.append(Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]])))
    mesh = joined(*flaps)
    found = there_and_back(mesh)
    assert found.edges[1].max() >= 3 and hausdorff(mesh, found) < VOXEL
    line = np.stack([np.linspace(-0.9, 0.9, 50), np.zeros(50), np.zeros(50)], 1)
    assert MeshDistance(found).unsigned(line).max() < 0.3 * VOXEL


def test_a_plate_thinner_than_a_voxel_stays_as_one_sheet_or_goes():
    plate = box((-1, -1, 0), (1, 1, 0.3 * VOXEL))
    assert hausdorff(plate, there_and_back(plate)) < VOXEL
    through = joined(icosphere(rounds=4), icosphere(1, (0.7, 0.1, 0.2), 4))
    assert (there_and_back(through, doubled="drop").edges[1] % 2 == 0).all(), "no border"


def test_faces_in_planes_of_the_lattice_are_crossed_once():
    """Without a rule for what only touches, there would be cracks and fins along the box's edges."""
    found = there_and_back(box((0, 0, 0), (1, 0.5, 0.5)), 0.125, origin=np.zeros(3))
    assert found.is_closed and found.euler_number == 2
    assert found.volume == pytest.approx(0.25, rel=5e-3)  # edges are pulled in by 0.01 voxel


def test_colours_are_carried():
    mesh = icosphere(rounds=4)
    found = there_and_back(mesh.with_colors(((mesh.vertices + 1) / 2 * 255).astype(np.uint8)))
    assert found.colors is not None
    assert np.abs(found.colors - (found.vertices + 1) / 2 * 255).max() < 5


def test_a_lattice_far_from_the_world_origin_is_the_same():
    near = mesh_to_dual_grid(icosphere(), VOXEL, origin=np.array([-2.0, -2.0, -2.0]))
    moved = Mesh(icosphere().vertices + np.float32(1024), icosphere().faces)
    far = mesh_to_dual_grid(moved, VOXEL, origin=np.full(3, 1022.0))
    assert len(near.voxels) == pytest.approx(len(far.voxels), rel=0.01)
    assert hausdorff(dual_grid_to_mesh(far), moved) < 0.5 * VOXEL


@pytest.mark.parametrize("name", ["instant-ngp/bunny.obj", "instant-ngp/armadillo.obj", "fandisk.obj"])
def test_real_meshes_come_back_within_a_voxel(name, real_data):
    path = real_data / "meshes" / name
    if not path.is_file():
        pytest.skip(f"no mesh at {path}")
    mesh = read_mesh(path)
    voxel_size = float(np.ptp(mesh.vertices, axis=0).max()) / 256
    found = there_and_back(mesh, voxel_size)
    assert hausdorff(mesh, found) < voxel_size
    if name == "fandisk.obj":
        away = MeshDistance(found).unsigned(sharp_points(mesh)) / voxel_size
        assert away.mean() < 0.02 and away.max() < 0.25, "sharp edges are kept"


def test_what_has_no_grid_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="without triangles"):
        mesh_to_dual_grid(Mesh(np.zeros((0, 3)), np.zeros((0, 3), int)), VOXEL)
    for voxel_size in (0.0, float("nan")):
        with pytest.raises(ValueError, match="voxel_size is"):
            mesh_to_dual_grid(box(), voxel_size)
    with pytest.raises(ValueError, match="does not fit a lattice"):
        mesh_to_dual_grid(box((0, 0, 0), (1e30, 1, 1)), 1.0)
    with pytest.raises(ValueError, match="regularization above 0"):
        mesh_to_dual_grid(box(), VOXEL, regularization=0.0)
    flat = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))  # crosses nothing
    assert len(there_and_back(flat).faces) == 0
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ValueError, match=r"GiB are free; a voxel size of .* would fit"):
        mesh_to_dual_grid(box(), 0.001)


def test_a_grid_that_is_none_is_refused():
    voxels, place = np.zeros((1, 4), np.int32), np.zeros((1, 3), np.float32)
    flags = np.zeros((1, 3), np.int8)
    assert len(dual_grid_to_mesh(DualGrid(voxels, place, flags + 1, 1.0, np.zeros(3))).faces) == 0
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        DualGrid(voxels, place + 2, flags, 1.0, np.zeros(3))
    with pytest.raises(ValueError, match="crossed is"):
        DualGrid(voxels, place, flags + 2, 1.0, np.zeros(3))
    with pytest.raises(ValueError, match="vertices are"):
        DualGrid(voxels, place[:, :2], flags, 1.0, np.zeros(3))
