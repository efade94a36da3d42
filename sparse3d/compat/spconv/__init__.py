"""A stand-in for spconv 2.3 on sparse3d: its names, arguments, weights and numbers, on any device.

`import sparse3d.compat.spconv.pytorch as spconv`, or `sparse3d.compat.install()` for code that imports spconv
itself.
"""

from sparse3d.compat.spconv import constants as constants
from sparse3d.compat.spconv import pytorch as pytorch
from sparse3d.compat.spconv import utils as utils
from sparse3d.compat.spconv.core import AlgoHint as AlgoHint
from sparse3d.compat.spconv.core import ConvAlgo as ConvAlgo

# The version whose interface this is: public code reads it to tell version 1 from 2.
__version__ = "2.3.8"
SPCONV_VERSION_NUMBERS = [2, 3, 8]
