"""Switches of spconv that public code reads or sets. Setting them changes nothing here."""

ALL_WEIGHT_IS_KRSC = True  # weights are (out, *kernel, in) for every algorithm
FILTER_HWIO = False
SPCONV_ALLOW_TF32 = False
SPCONV_FX_TRACE_MODE = False
SPCONV_DO_SORT = True
NDIM_DONT_CARE = 3
