"""Numba body of the windows: the keys that are sorted."""

import numba


@numba.njit(parallel=True, cache=True, nogil=True)
def window_keys(coordinates, geometry, along_y, along_x, place):
    """along_y, along_x (N,) int64 and place (N, 3) int32 are outputs. geometry: counts, window
    and shift, (x, y, z) each."""
    counts, window, shift = geometry
    volume = window[0] * window[1] * window[2]
    for row in numba.prange(len(coordinates)):
        x, y, z = (
            coordinates[row, 1] + shift[0],
            coordinates[row, 2] + shift[1],
            coordinates[row, 3] + shift[2],
        )
        here = coordinates[row, 0] * counts[0] + x // window[0]
        here = ((here * counts[1] + y // window[1]) * counts[2] + z // window[2]) * volume
        x, y, z = x % window[0], y % window[1], z % window[2]
        along_y[row] = here + (y * window[0] + x) * window[2] + z
        along_x[row] = here + (x * window[1] + y) * window[2] + z
        place[row, 0], place[row, 1], place[row, 2] = x, y, z
