"""The strongest splats of each pixel under the law suite."""

from sparse3d_ops import contributors
from tests.ops.cases_surfels import BLENDS
from tests.ops.laws import OpLaw
from tests.oracles import surfels as oracle


def _of(name, count):
    def case(dtype, device):
        means2d, slopes, depths, opacities, _, _, *rest = BLENDS[name](dtype, device)
        return means2d, slopes, depths, opacities, *rest, count

    return case


CASES = {
    "empty": _of("empty", 2),
    "single": _of("single", 1),
    "some": _of("some", 3),
    "opaque": _of("opaque", 4),
    "duplicates": _of("duplicates", 2),
    "more_than_there_are": _of("through_the_camera", 5),
    "orthographic": _of("orthographic", 3),
}
LAWS = [OpLaw(contributors.strongest, oracle.strongest, CASES)]
