"""Point files: what was written comes back, what is broken says where, and no header makes us allocate."""

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparse3d.errors import DataError
from sparse3d.io import lzf
from sparse3d.io.points import drop_invalid, read_points, read_valid_points, write_points

CLOUD = np.array([[1, 2, 3, 0.5], [-4, 5.25, -6, 0], [0, 0, 0.125, 1]], dtype=np.float32)
HUGE = 10**12
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def saved(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pcd(encoding: str, data: bytes | str, points=3, fields="x y z intensity", **entries: str) -> bytes:
    count = len(fields.split())
    header = {
        "VERSION": ".7",
        "FIELDS": fields,
        "SIZE": " ".join(["4"] * count),
        "TYPE": " ".join(["F"] * count),
        "COUNT": " ".join(["1"] * count),
        "WIDTH": str(points),
        "HEIGHT": "1",
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": str(points),
    } | entries
    text = "# .PCD v.7\n" + "".join(f"{k} {v}\n" for k, v in header.items() if v) + f"DATA {encoding}\n"
    return text.encode() + (data.encode() if isinstance(data, str) else data)


def ply(encoding: str, data: bytes | str, points: int = 3, kind: str = "float", before: str = "") -> bytes:
    names = "".join(f"property {kind} {n}\n" for n in ("x", "y", "z", "reflectance"))
    text = f"ply\nformat {encoding} 1.0\ncomment by hand\n{before}element vertex {points}\n{names}"
    text += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    return text.encode() + (data.encode() if isinstance(data, str) else data)


def lzf_literals(data: bytes) -> bytes:
    """LZF without a single back reference."""
    pieces = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(p) - 1]) + p for p in pieces)


def compressed(fields: bytes) -> bytes:
    packed = lzf_literals(fields)
    return struct.pack("<II", len(packed), len(fields)) + packed


ASCII = "".join(" ".join(str(float(v)) for v in row) + "\n" for row in CLOUD)
FILES = {
    "raw.bin": CLOUD.tobytes(),
    "ascii.pcd": pcd("ascii", ASCII),
    "binary.pcd": pcd("binary", CLOUD.tobytes()),
    "packed.pcd": pcd("binary_compressed", compressed(CLOUD.T.tobytes())),
    "ascii.ply": ply("ascii", ASCII + "3 0 1 2\n"),
    "little.ply": ply("binary_little_endian", CLOUD.tobytes()),
    "big.ply": ply("binary_big_endian", CLOUD.astype(">f4").tobytes()),
    "double.ply": ply("binary_big_endian", CLOUD.astype(">f8").tobytes(), kind="double"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_encoding_of_a_cloud_reads_as_the_same_array(tmp_path, name):
    got = read_points(saved(tmp_path, name, FILES[name]))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, CLOUD)


@pytest.mark.parametrize("suffix", [".bin", ".ply", ".npy"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_written_clouds_come_back_bit_for_bit(tmp_path, suffix, rows):
    path = tmp_path / f"cloud{suffix}"
    write_points(path, CLOUD[:rows])
    got = read_points(path)
    assert got.shape == (rows, 4)
    np.testing.assert_array_equal(got, CLOUD[:rows])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("columns", [3, 4, 5, 6])
def test_bin_columns_beyond_the_fourth_are_skipped_and_a_missing_one_is_zero(tmp_path, columns):
    table = np.arange(4 * columns, dtype=np.float32).reshape(4, columns)
    expected = np.zeros((4, 4), dtype=np.float32)
    expected[:, : min(columns, 4)] = table[:, :4]
    np.testing.assert_array_equal(read_points(saved(tmp_path, "a.bin", table.tobytes()), columns), expected)


def test_fields_are_found_by_name_in_any_order_and_type(tmp_path):
    row = struct.pack("<H", 65535) + struct.pack("<3d", 1, 2, 3) + struct.pack("<3f", 7, 8, 9)
    data = pcd(
        "binary",
        row,
        1,
        fields="intensity z y x normal",
        SIZE="2 8 8 8 4",
        TYPE="U F F F F",
        COUNT="1 1 1 1 3",
    )
    assert read_points(saved(tmp_path, "a.pcd", data)).tolist() == [[3, 2, 1, 1]]


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
def test_ply_elements_before_the_vertices_are_skipped(tmp_path, encoding):
    before = "element camera 2\nproperty int id\nproperty uchar kind\n"
    data = "1 2\n3 4\n" + ASCII if encoding == "ascii" else struct.pack("<iBiB", 1, 2, 3, 4) + CLOUD.tobytes()
    np.testing.assert_array_equal(
        read_points(saved(tmp_path, "a.ply", ply(encoding, data, before=before))), CLOUD
    )


def test_npy_may_be_structured_or_plain(tmp_path):
    table = np.zeros(2, dtype=[("intensity", "u1"), ("x", "f8"), ("y", "f4"), ("z", "i2")])
    table[1] = (255, 1.5, 2.5, -3)
    np.save(tmp_path / "named.npy", table)
    np.save(tmp_path / "plain.npy", np.asfortranarray(CLOUD[:, :3].astype(np.float64)))
    assert read_points(tmp_path / "named.npy").tolist() == [[0, 0, 0, 0], [1.5, 2.5, -3, 1]]
    np.testing.assert_array_equal(read_points(tmp_path / "plain.npy")[:, :3], CLOUD[:, :3])


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


BROKEN = {
    "odd.bin": (CLOUD.tobytes()[:-13], "35 bytes .* 3 bytes are left over at offset 32"),
    "cut.pcd": (FILES["binary.pcd"][:-1], "promises 3 points .48 bytes., 47 bytes"),
    "huge.pcd": (pcd("binary", CLOUD.tobytes(), HUGE), f"promises {HUGE} points"),
    "huge_ascii.pcd": (pcd("ascii", ASCII, HUGE), f"promises {HUGE} points"),
    "huge_packed.pcd": (pcd("binary_compressed", compressed(CLOUD.T.tobytes()), HUGE), f"{HUGE} points"),
    "bomb.pcd": (
        pcd("binary_compressed", struct.pack("<II", 4, 4 * 4 * 10**8) + b"\x00a\x00b", 10**8),
        "4 compressed bytes cannot hold",
    ),
    "cut_packed.pcd": (FILES["packed.pcd"][:-1], "compressed bytes promised"),
    "no_size.pcd": (pcd("binary_compressed", b"\x01\x02"), "inside of the sizes"),
    "reference.pcd": (
        pcd("binary_compressed", struct.pack("<II", 2, 48) + b"\x20\x05"),
        "corrupt compressed data at offset",
    ),
    "word.pcd": (pcd("ascii", ASCII.replace("5.25", "five")), r"word.pcd:13: not a number: b'five'"),
    "short_row.pcd": (pcd("ascii", ASCII.replace(" 5.25", "")), r"short_row.pcd:13: 3 values, expected 4"),
    "few_rows.pcd": (pcd("ascii", ASCII, 4), "few_rows.pcd:15: 0 values|3 points, the header promises 4"),
    "fields.pcd": (pcd("ascii", ASCII, SIZE="4 4 4"), "4 FIELDS, 3 SIZE"),
    "type.pcd": (pcd("ascii", ASCII, TYPE="F F F Q"), "no type 'Q'"),
    "number.pcd": (pcd("ascii", ASCII, POINTS="many"), "POINTS many: expected whole numbers"),
    "negative.pcd": (pcd("ascii", ASCII, POINTS="-3"), "POINTS -3: negative"),
    "no_y.pcd": (pcd("ascii", ASCII, fields="x q z i"), "no field y among x, q, z, i"),
    "encoding.pcd": (pcd("zip", ASCII), "DATA 'zip'; expected ascii"),
    "no_data.pcd": (b"VERSION .7\nFIELDS x y z\n", "ends before its DATA line"),
    "noise.pcd": (bytes(range(256)) * 40, "not a .pcd header"),
    "cut.ply": (FILES["little.ply"][:-1], "promises 3 vertices .48 bytes., 47 bytes"),
    "huge.ply": (ply("binary_little_endian", CLOUD.tobytes(), HUGE), f"promises {HUGE} vertices"),
    "huge_ascii.ply": (ply("ascii", ASCII, HUGE), f"promises {HUGE} points"),
    "word.ply": (ply("ascii", ASCII.replace("5.25", "five")), r"word.ply:13: not a number"),
    "property.ply": (ply("ascii", ASCII, kind="quux"), "property.ply:5: not a .ply header line"),
    "count.ply": (
        ply("ascii", ASCII).replace(b"vertex 3", b"vertex -3"),
        "count.ply:4: element vertex",
    ),
    "no_vertex.ply": (b"ply\nformat ascii 1.0\nend_header\n", "no element 'vertex'"),
    "no_format.ply": (b"ply\nelement vertex 0\nend_header\n", "no format line"),
    "no_end.ply": (b"ply\nformat ascii 1.0\n", "no_end.ply:3: the header ends"),
    "other.ply": (b"not a ply", "does not begin with 'ply'"),
    "huge.npy": (npy_header(f"({HUGE}, 4)") + CLOUD.tobytes(), "16000000000000 bytes., the file holds 48"),
    "cut.npy": (npy_header("(3, 4)") + CLOUD.tobytes()[:-1], "the file holds 47"),
    "negative.npy": (npy_header("(-1, -12)") + CLOUD.tobytes(), "header says shape"),
    "header.npy": (b"\x93NUMPY\x01\x00\x04\x00{{{{", "bad npy header"),
    "noise.npy": (b"nothing of the kind", "bad npy header"),
    "flat.npy": (npy_header("(12,)") + CLOUD.tobytes(), r"expected numbers \(N, >= 3\)"),
    "cloud.xyz": (b"1 2 3", "unknown point cloud suffix '.xyz'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, name):
    data, message = BROKEN[name]
    path = saved(tmp_path, name, data)
    with pytest.raises(DataError, match=message) as caught:
        read_points(path)
    assert str(caught.value).startswith(str(path))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([[object()] * 4], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        read_points(tmp_path / "evil.npy")


def test_missing_files_and_folders_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_points(tmp_path / "none.bin")
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(DataError, match="folder.bin"):
        read_points(tmp_path / "folder.bin")


def test_empty_bin_is_an_empty_cloud(tmp_path):
    assert read_points(saved(tmp_path, "empty.bin", b"")).shape == (0, 4)


def test_invalid_rows_are_dropped_counted_and_reported_once(tmp_path, caplog):
    points = CLOUD.copy()
    points[0, 2], points[1, 3] = np.nan, np.inf
    kept, dropped = drop_invalid(points)
    assert dropped == 2
    np.testing.assert_array_equal(kept, CLOUD[2:])
    path = saved(tmp_path, "nan.bin", points.tobytes())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_array_equal(read_valid_points(path), CLOUD[2:])
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{path}: dropped 2 points with nan or infinite values"]


def test_valid_clouds_pass_untouched():
    assert drop_invalid(CLOUD)[0] is CLOUD


def test_writing_refuses_other_shapes_and_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        write_points(tmp_path / "a.bin", CLOUD[:, :3])
    with pytest.raises(ValueError, match="cannot write '.pcd'"):
        write_points(tmp_path / "a.pcd", CLOUD)
    assert not list(tmp_path.iterdir())


def test_lzf_by_hand():
    """Two literals, a reference that overlaps what it writes, and one with an extra length byte."""
    stream = bytes([1]) + b"ab" + bytes([(2 << 5), 1]) + bytes([(7 << 5), 1, 0])
    # Two back, 2 + 2 bytes: "abab"; then one back, 7 + 1 + 2 bytes of "b".
    expected = b"ab" + b"abab" + b"b" * 10
    out = np.empty(len(expected), dtype=np.uint8)
    assert lzf.decompress(np.frombuffer(stream, dtype=np.uint8), out) == -1
    assert out.tobytes() == expected


@pytest.mark.parametrize(
    "stream, size, offset",
    [
        (b"\x00a\x20\x01", 4, 2),  # three bytes from before the begin
        (b"\x00a\x20\x00", 3, 2),  # more than fits
        (b"\x01a", 2, 0),  # literals that are not there
        (b"\x00a\x20", 4, 2),  # no distance
        (b"\x00a\xe0", 4, 2),  # no extra length
        (b"\x00a", 2, 2),  # ends too early
    ],
)
def test_lzf_refuses_what_leaves_its_buffers(stream, size, offset):
    out = np.zeros(size, dtype=np.uint8)
    assert lzf.decompress(np.frombuffer(stream, dtype=np.uint8), out) == offset


def lzf_compress(data: bytes) -> bytes:
    """A slow LZF compressor: the longest match among all that went before, else one literal."""
    out, i = b"", 0
    while i < len(data):
        best, distance = 0, 0
        for start in range(max(0, i - 8192), i):
            n = 0
            while n < 264 and i + n < len(data) and data[start + n] == data[i + n]:
                n += 1
            if n > best:
                best, distance = n, i - start - 1
        if best < 3:
            out += bytes([0, data[i]])
            i += 1
        else:
            code = best - 2
            head = [(code << 5) | (distance >> 8)] if code < 7 else [(7 << 5) | (distance >> 8), code - 7]
            out += bytes([*head, distance & 255])
            i += best
    return out


@SETTINGS
@given(st.lists(st.sampled_from([b"a", b"bc", b"abcabc", bytes(40), b"\xff"]), max_size=30).map(b"".join))
def test_lzf_inverts_a_compressor(data):
    out = np.empty(len(data), dtype=np.uint8)
    assert lzf.decompress(np.frombuffer(lzf_compress(data), dtype=np.uint8), out) == -1
    assert out.tobytes() == data


@SETTINGS
@given(st.binary(max_size=80), st.integers(0, 100))
def test_lzf_of_noise_ends_within_its_buffers(data, size):
    out = np.full(size + 8, 7, dtype=np.uint8)
    status = lzf.decompress(np.frombuffer(data, dtype=np.uint8), out[:size])
    assert -1 <= status <= len(data)
    assert (out[size:] == 7).all()


@SETTINGS
@given(
    name=st.sampled_from([n for n in FILES if not n.endswith(".bin")]),
    position=st.integers(0, 400),
    byte=st.integers(0, 255),
    cut=st.integers(0, 60),
)
def test_damaged_files_give_a_cloud_or_a_data_error(tmp_path, name, position, byte, cut):
    data = bytearray(FILES[name])
    data[position % len(data)] = byte
    path = saved(tmp_path, name, bytes(data[: len(data) - cut]))
    try:
        assert read_points(path).shape[1] == 4
    except DataError as error:
        assert str(error).startswith(str(path))
