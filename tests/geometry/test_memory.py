"""How much memory there is, as systems tell it."""

import pytest

from sparse3d.geometry import memory
from sparse3d.geometry.memory import available_bytes, check_room


def test_what_is_free_and_what_a_group_allows(tmp_path):
    listing = tmp_path / "meminfo"
    listing.write_text("MemTotal:  16384 kB\nMemAvailable:   2048 kB\n")
    assert available_bytes(listing=listing, group=tmp_path) == 2 << 20
    (tmp_path / "memory.max").write_text("1500000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert available_bytes(listing=listing, group=tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(listing=listing, group=tmp_path) == 2 << 20


@pytest.mark.parametrize("text", ["", "MemTotal: 1 kB", "MemAvailable:", "MemAvailable: many kB"])
def test_a_system_that_tells_less_has_half_of_its_memory_or_none(text, tmp_path):
    listing = tmp_path / "meminfo"
    listing.write_text(text)
    free = available_bytes(listing=listing, group=tmp_path)
    assert free is None or free > 1 << 24


def test_what_does_not_fit_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 30)
    check_room(1 << 30, "a grid", lambda part: "")
    with pytest.raises(ValueError, match=r"a grid would need about 4 GiB, 1 GiB are free; take 0.25 of it"):
        check_room(4 << 30, "a grid", lambda part: f"take {part} of it")
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    check_room(1 << 60, "a grid", lambda part: "")
