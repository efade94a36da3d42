"""Whole photos behind a pinhole."""

from dataclasses import replace

import numpy as np
import pytest

from sparse3d.data.photos import Photo, open_photos
from sparse3d.data.three_spheres import ThreeSpheresConfig, write_three_spheres
from sparse3d.data.whole_photos import WholePhotoLoader, undistorted
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.geometry.rays import pixel_centres


def picture(camera: Camera) -> np.ndarray:
    """What a camera sees of a world whose colour is a smooth function of the direction."""
    x, y, z = camera.unproject(pixel_centres(camera.width, camera.height)).T
    image = np.stack([np.sin(3 * x / z), np.cos(2 * y / z), x * y / z**2], 1) * 0.4 + 0.5
    return image.reshape(camera.height, camera.width, 3).astype(np.float32)


@pytest.mark.parametrize("lens", [Lens((0.1, -0.05, 0.002, -0.001)), Lens((0.05, -0.01), fisheye=True)])
def test_an_undistorted_photo_is_what_a_pinhole_sees(lens):
    camera = Camera(80, 82, 50, 38, 100, 80, lens=lens)
    photo = Photo(picture(camera), None, None, None)
    straight, pinhole = undistorted(photo, camera)
    want = picture(replace(camera, lens=Lens()))
    assert pinhole.lens == Lens() and straight.mask.mean() > 0.8
    # Half a pixel at the edge cannot be mixed; elsewhere linear mixing is off by the curvature of a pixel.
    error = np.abs(straight.rgb - want)[straight.mask]
    assert np.quantile(error, 0.98) < 1e-3 and np.abs(photo.rgb - want).max() > 0.01


def test_a_pinhole_is_left_alone():
    camera = Camera(80, 82, 50, 38, 100, 80)
    photo = Photo(picture(camera), None, None, None)
    assert undistorted(photo, camera)[0] is photo


def test_masks_and_unknown_depths_follow_the_lens():
    camera = Camera(80, 80, 50, 40, 100, 80, lens=Lens((0.3,)))
    mask = np.zeros((80, 100), dtype=bool)
    mask[:, :50] = True
    depth = np.full((80, 100), 2.0, dtype=np.float32)
    straight, _ = undistorted(Photo(picture(camera), None, mask, depth), camera)
    assert not straight.mask[:, 52:].any() and straight.mask[30:50, 20:48].all()
    # A pinhole sees farther out than this lens does not reach: there nothing is known.
    assert np.isnan(straight.depth[0, 0]) and straight.depth[40, 50] == 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_three_spheres(folder, ThreeSpheresConfig(views=5, held_out=1, size=16))
    return open_photos(folder, split="train")


def test_each_pass_shows_each_photo_once_and_passes_differ(photos):
    loader = WholePhotoLoader(photos, (1.0, 1.0, 1.0), seed=3, least=12)
    assert len(loader) == 15
    rows = [batch.row for batch in loader]
    passes = [rows[k : k + 5] for k in (0, 5, 10)]
    assert all(sorted(some) == list(range(5)) for some in passes) and passes[0] != passes[1] != passes[2]


def test_a_loader_goes_on_where_its_state_was_taken(photos):
    whole = WholePhotoLoader(photos, (1.0, 1.0, 1.0))
    rows = [batch.row for _ in range(2) for batch in whole]
    begun = WholePhotoLoader(photos, (1.0, 1.0, 1.0))
    first = [batch.row for batch, _ in zip(begun, range(3), strict=False)]
    other = WholePhotoLoader(photos, (1.0, 1.0, 1.0), seed=9)
    other.load_state_dict({**begun.state_dict(), "position": 3})
    assert first + [batch.row for _ in range(2) for batch in other] == rows[: 3 + 7]
    with pytest.raises(ValueError, match="of 4 photos"):
        other.load_state_dict({**begun.state_dict(), "photos": 4})


def test_memory_is_bounded_and_nothing_changes_by_it(photos):
    roomy = WholePhotoLoader(photos, (0.0, 0.0, 0.0))
    tight = WholePhotoLoader(photos, (0.0, 0.0, 0.0), megabytes=0.003)
    for a, b in zip(roomy, tight, strict=True):
        assert a.row == b.row and np.array_equal(a.rgb, b.rgb)
        assert tight._bytes <= 3000


def test_transparent_photos_stand_before_the_background(photos):
    white = next(iter(WholePhotoLoader(photos, (1.0, 1.0, 1.0))))
    black = next(iter(WholePhotoLoader(photos, (0.0, 0.0, 0.0))))
    assert white.alpha is not None and black.alpha is not None
    np.testing.assert_allclose(
        white.rgb - black.rgb, (1 - white.alpha)[..., None].expand(-1, -1, 3), atol=1e-6
    )
