"""SOG, against pictures that are painted here by its specification; codebooks; archives that lie."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d.errors import DataError
from sparse3d.gaussians.formats import open_splats, read_splats, write_splats
from sparse3d.gaussians.formats.codebooks import nearest_number, number_codebook, row_codebook
from sparse3d.gaussians.formats.losses import losses
from sparse3d.gaussians.formats.order import in_order
from sparse3d.gaussians.repair import repair
from tests.gaussians.splat_files import some_cloud


def webp(pixels):
    out = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()


def dataset():
    """Three Gaussians of degree 1 in pictures of 2 x 2, the fourth pixel of no meaning."""

    def four(*rows):
        return webp(np.array([*rows, (9, 9, 9, 9)]).reshape(2, 2, 4))

    meta = {
        "version": 2,
        "count": 3,
        "means": {"mins": [-1.0, 0.0, -2.0], "maxs": [1.0, 0.0, 2.0], "files": ["a.webp", "b.webp"]},
        "scales": {"codebook": [-5.0 + n / 100 for n in range(256)], "files": ["s.webp"]},
        "quats": {"files": ["q.webp"]},
        "sh0": {"codebook": [n / 100 for n in range(256)], "files": ["c.webp"]},
        "shN": {
            "count": 70,
            "bands": 1,
            "codebook": [n - 128.0 for n in range(256)],
            "files": ["p.webp", "l.webp"],
        },
        "future": {"anything": 1},
    }
    centroids = np.zeros((2, 64 * 3, 4), np.uint8)
    centroids[1, 5 * 3 + 1, :3] = (128, 129, 130)  # entry 69, its second coefficient: red, green, blue
    files = {
        "a.webp": four((0, 0, 255, 0), (255, 0, 255, 0), (0, 0, 0, 0)),
        "b.webp": four((0, 0, 255, 0), (255, 0, 127, 0), (0, 0, 0, 0)),
        "s.webp": four((0, 1, 255, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
        "q.webp": four((255, 127, 128, 252), (255, 0, 128, 253), (128, 128, 128, 255)),
        "c.webp": four((0, 100, 255, 51), (1, 2, 3, 0), (1, 2, 3, 255)),
        "p.webp": webp(centroids),
        "l.webp": four((69, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    }
    return meta, files


def pack(path, meta, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("meta.json", json.dumps(meta) if isinstance(meta, dict) else meta)
        for name, data in files.items():
            archive.writestr(name, data)


def unpack(folder, meta, files):
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps(meta))
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("form", ["stored", "deflated", "folder", "meta"])
@pytest.mark.parametrize("exchanged", [False, True])
def test_by_its_specification(tmp_path, form, exchanged):
    meta, files = dataset()
    if exchanged:  # as earlier editions of the manual name them
        meta["shN"]["files"].reverse()
    path = tmp_path / ("a.sog" if form in ("stored", "deflated") else "a")
    if form in ("stored", "deflated"):
        pack(path, meta, files, compression=zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED)
    else:
        unpack(path, meta, files)
        path = path / "meta.json" if form == "meta" else path
    cloud = read_splats(path)
    assert len(cloud) == 3 and cloud.sh_degree == 1
    e = np.e
    steps = 4 * (127 * 256 + 255) / 65535 - 2
    expected = [[1 - e, 0, e**2 - 1], [e - 1, 0, np.sign(steps) * np.expm1(abs(steps))], [1 - e, 0, 1 - e**2]]
    torch.testing.assert_close(cloud.means, torch.tensor(expected).float())
    torch.testing.assert_close(cloud.scales[0], torch.tensor([-5, -4.99, -2.45]))
    torch.testing.assert_close(cloud.sh0[0, 0], torch.tensor([0, 1, 2.55]))
    assert cloud.opacities[0].item() == pytest.approx(np.log(0.2 / 0.8), rel=1e-5)
    assert cloud.opacities[1:].tolist() == [-float("inf"), float("inf")]
    assert repair(cloud)[1].infinite_opacities == 2
    assert cloud.shN[0].tolist() == [[-128] * 3, [0, 1, 2], [-128] * 3]
    small = 0.5**0.5 / 255
    w, x, y, z = cloud.quats[0].tolist()  # w is largest
    assert (x, y, z) == pytest.approx((0.5**0.5, -small, small), abs=1e-6) and w == pytest.approx(
        0.5**0.5, abs=1e-4
    )
    w, x, y, z = cloud.quats[1].tolist()  # x is largest; two others of sqrt(1/2) leave nothing for it
    assert (w, y) == pytest.approx((0.5**0.5, -(0.5**0.5)), abs=1e-4) and x == pytest.approx(0, abs=1e-4)
    assert cloud.quats[2, 3] > 0.999


@pytest.mark.parametrize("name", ["a.sog", "folder/meta.json"])
@pytest.mark.parametrize("degree", [0, 3])
def test_loses_no_more_than_its_steps(tmp_path, name, degree):
    cloud = some_cloud(700, degree)
    write_splats(tmp_path / name, cloud)
    cloud = in_order(cloud)
    again = read_splats(tmp_path / name)
    lost = {loss.name: loss for loss in losses([cloud], [again])}
    folded = cloud.means.sign() * cloud.means.abs().log1p()
    step = ((folded.amax(0) - folded.amin(0)) / 65535).max().item()
    assert lost["position"].most <= step / 2 * (1 + cloud.means.abs().max().item()) * 1.1 + 1e-6
    assert lost["opacity"].most <= 0.5 / 255 + 1e-6
    assert lost["rotation"].most < np.rad2deg(4 * 2**0.5 / 255)
    assert lost["scale"].rms < 1.5 and lost["colour"].rms < 0.005
    if degree:  # as many entries as Gaussians: what is lost is what 256 numbers lose
        assert lost["harmonics"].rms < 0.003
    written = [p for p in (tmp_path / name).parent.iterdir()]
    assert len(written) == (1 if name == "a.sog" else 6 if not degree else 8), "nothing temporary is left"
    if name == "a.sog":
        before = (tmp_path / name).read_bytes()
        write_splats(tmp_path / name, cloud)
        assert (tmp_path / name).read_bytes() == before, "equal clouds make equal files"


def test_colours_of_what_is_transparent_are_kept(tmp_path):
    cloud = some_cloud(50, 0)
    cloud.opacities[:] = -20
    write_splats(tmp_path / "a.sog", cloud)
    again = read_splats(tmp_path / "a.sog")
    assert (again.opacities == -torch.inf).all()
    torch.testing.assert_close(again.sh0, in_order(cloud).sh0)


def changed(meta, *keys, to):
    *path, last = keys
    for key in path:
        meta = meta[key]
    meta[last] = to


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (("count",), 10**12, "has 4 pixels for 1000000000000 Gaussians"),
        (("count",), 5, r"means.files.0 has 4 pixels for 5 Gaussians"),
        (("count",), 0, "holds 0 Gaussians"),
        (("count",), "3", "no int at count"),
        (("count",), True, "expected a whole number"),
        (("version",), 1, "SOG version 1, expected 2"),
        (("means", "files", 0), "../../etc/passwd", "'../../etc/passwd' is no name of a file"),
        (("means", "files", 0), "/etc/passwd", "is no name of a file"),
        (("means", "files", 0), "..", "is no name of a file"),
        (("means", "files", 0), "c:\\x", "is no name of a file"),
        (("means", "files", 0), "none.webp", "none.webp"),
        (("means", "files"), [], "no means.files.0"),
        (("means", "files", 0), "meta.json", "not a picture"),
        (("means", "mins"), [0, 0], "means.mins has 2 numbers, expected 3"),
        (("means", "maxs"), [0, 0, float("nan")], "no finite number"),
        (("scales", "codebook"), [0.0] * 9, "scales has row 255 of a codebook of 9"),
        (("sh0", "codebook"), ["a"] * 256, "no finite number"),
        (("quats", "files", 0), "c.webp", "the quaternion of Gaussian 0 has alpha 51"),
        (("shN", "bands"), 4, "4 bands"),
        (("shN", "count"), 129, "129 entries, its picture has 128"),
        (("shN", "count"), 60, "label 69 of a palette of 60"),
        (("shN", "bands"), 2, "no picture of shN is 512 pixels wide"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_what_is_wrong_is_told(tmp_path, keys, to, message, form):
    meta, files = dataset()
    changed(meta, *keys, to=to)
    path = tmp_path / ("a.sog" if form == "archive" else "a")
    (pack if form == "archive" else unpack)(path, meta, files)
    with pytest.raises(DataError, match=message):
        open_splats(path)


def test_archives_that_lie(tmp_path):
    meta, files = dataset()
    path = tmp_path / "a.sog"
    pack(path, meta, {**files, "a.webp": bytes(1 << 27)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="a.webp would be 134217728 bytes, expected at most"):
        open_splats(path)
    pack(path, meta, files, compression=zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="compressed in a way that is not supported"):
        open_splats(path)
    pack(path, "{" * 100000, files)
    with pytest.raises(DataError, match="meta.json is damaged"):
        open_splats(path)
    pack(path, meta, files)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="not a whole .zip archive"):
            open_splats(path)
    place = whole.index(files["a.webp"]) + 20
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    with pytest.raises(DataError, match="Bad CRC-32|damaged"):
        open_splats(path)
    with pytest.raises(DataError, match="no such file"):
        open_splats(tmp_path / "none" / "meta.json")


# Codebooks.


@pytest.mark.parametrize("draw", ["normal", "uniform", "spikes", "few", "one"])
def test_a_codebook_of_numbers_is_no_worse_than_an_even_one(draw):
    rng = np.random.default_rng(0)
    values = {
        "normal": lambda: rng.normal(size=30000) * 3 - 7,
        "uniform": lambda: rng.uniform(-1, 1, 30000),
        "spikes": lambda: np.concatenate([rng.normal(size=2000) * 1e-6, [1e6, -1e6]]),
        "few": lambda: rng.integers(0, 256, 5000) / 7,
        "one": lambda: np.full(10, 2.5),
    }[draw]()
    book = number_codebook(values)
    assert book.shape == (256,) and (np.diff(book) >= 0).all()
    found = book[nearest_number(book, values)]
    error = np.abs(found - values)
    assert np.array_equal(error, np.abs(book[:, None] - values[:3000]).min(0)) or len(values) > 3000
    if draw in ("few", "one"):
        assert np.allclose(found, values, atol=1e-6)
    even = np.linspace(values.min(), values.max(), 256)
    assert (error**2).mean() <= (np.abs(even[:, None] - values).min(0) ** 2).mean() * 1.02 + 1e-12
    if draw == "spikes":  # no entry is lost to the empty space between
        assert (error[:2000] ** 2).mean() ** 0.5 < 1e-6 / 20
    if draw == "normal":  # the least that 256 levels leave of a normal density: pi sqrt(3) / 2 / 256^2
        assert (error**2).mean() < 1.1 * 9 * np.pi * 3**0.5 / 2 / 256**2


def test_ties_go_to_the_lower_entry():
    assert nearest_number(np.array([0, 2, 4], np.float32), np.array([1, 3, 5, -9])).tolist() == [0, 1, 2, 0]


def test_a_codebook_of_rows(tmp_path):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(6000, 9, generator=draw)
    entries, labels = row_codebook(lambda: [rows], len(rows), 256, tmp_path)
    assert (
        len(entries) <= 256 and labels.shape == (6000,) and 0 <= labels.min() and labels.max() < len(entries)
    )
    error = (entries[labels] - rows).square().mean()
    by_chance = torch.cdist(rows, rows[:256]).amin(1).square().mean() / 9
    assert error < 0.92 * by_chance, "better than entries that are drawn"
    # Each entry is the mean of those that it stands for, or one of them.
    assert (rows - entries[labels]).mean(0).abs().max() < 0.05
    again = row_codebook(lambda: rows.split(1700), len(rows), 256, tmp_path)
    assert torch.equal(again[0], entries) and torch.equal(again[1], labels), "in pieces too"
    assert not any(tmp_path.iterdir())


def test_few_different_rows_are_kept_as_they_are(tmp_path):
    draw = torch.Generator().manual_seed(0)
    few = torch.randn(100, 24, generator=draw)
    rows = few[torch.randint(100, (5000,), generator=draw)]
    entries, labels = row_codebook(lambda: rows.split(900), len(rows), 128, tmp_path)
    assert len(entries) == 100 and torch.equal(entries[labels], rows)
