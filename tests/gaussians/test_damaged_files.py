"""Whatever is changed in a file, it is read as Gaussians or refused with a ValueError that names it."""

import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gaussians import fuzzing

KINDS = ("ply", "surfels", "ascii", "compressed", "splat", "spz2", "spz3", "spz4", "sog", "glb")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return fuzzing.seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_read(seeds, kind, folder):
    assert set(seeds) == set(KINDS)
    path = folder / f"whole{seeds[kind][0]}"
    path.write_bytes(seeds[kind][1])
    assert fuzzing.read_or_refuse(path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_is_refused_or_read(seeds, kind, folder):
    ending, data, _ = seeds[kind]
    path = folder / f"cut{ending}"
    for length in [*range(0, 40), *range(40, len(data), max(1, len(data) // 40)), len(data) - 1]:
        path.write_bytes(data[:length])
        read = fuzzing.read_or_refuse(path)
        assert not read or kind in ("splat", "ascii"), f"{length} of {len(data)} bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_or_read(seeds, kind, folder):
    path = folder / f"damaged{seeds[kind][0]}"

    @settings(max_examples=25, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, 1 << 32))
    def check(number):
        path.write_bytes(fuzzing.damaged(seeds[kind], random.Random(number)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fuzzing.read_or_refuse(path)

    check()
