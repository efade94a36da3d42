"""LZF decompression, the compression of `DATA binary_compressed` in .pcd files (format of Marc Lehmann's
liblzf).

A control byte below 32 is followed by that many literal bytes plus one. Otherwise its top three bits are a
length (7: one more byte adds to it) and its low five bits, with one more byte, a distance back into the
output.
"""

import numba
import numpy as np

# Three bytes make at most 7 + 255 + 2 = 264 bytes of output.
MAX_EXPANSION = 88


@numba.njit(cache=True, nogil=True)
def decompress(data, out):
    """Fill `out` (uint8) from `data` (uint8). Returns -1, or the offset in `data` at which it is corrupt or
    ends.
    """
    read, written = 0, 0
    while read < len(data):
        start = read
        control = np.int64(data[read])
        read += 1
        if control < 32:
            length = control + 1
            if read + length > len(data) or written + length > len(out):
                return start
            for _ in range(length):
                out[written] = data[read]
                written += 1
                read += 1
            continue
        length = control >> 5
        if length == 7:
            if read >= len(data):
                return start
            length += np.int64(data[read])
            read += 1
        if read >= len(data):
            return start
        source = written - ((control & 31) << 8) - np.int64(data[read]) - 1
        read += 1
        length += 2
        if source < 0 or written + length > len(out):
            return start
        # Byte by byte: source and target may overlap, which is how runs are coded.
        for _ in range(length):
            out[written] = out[source]
            written += 1
            source += 1
    return -1 if written == len(out) else len(data)
