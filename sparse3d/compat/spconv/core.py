"""Names of spconv's algorithms. They are accepted everywhere and change nothing: there is one algorithm
here."""

from enum import Enum

from sparse3d.compat.spconv import constants as constants


class ConvAlgo(Enum):
    Native = 0
    MaskImplicitGemm = 1
    MaskSplitImplicitGemm = 2


class AlgoHint(Enum):
    """What a kernel is looked up for; `Fowrard` is spelled so in spconv."""

    NoHint = 0b000
    Fowrard = 0b001
    BackwardInput = 0b010
    BackwardWeight = 0b100
