"""Metrics, in numpy and numba: no TensorFlow, no CUDA."""
