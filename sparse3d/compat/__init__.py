"""Other libraries' interfaces on sparse3d: networks that were written for spconv run here unchanged.

import sparse3d.compat
sparse3d.compat.install()           # before anything imports spconv
import spconv.pytorch as spconv     # sparse3d's, from here on
"""

from sparse3d.compat.installing import install as install
from sparse3d.compat.installing import uninstall as uninstall
