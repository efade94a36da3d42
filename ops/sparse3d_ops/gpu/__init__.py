"""Triton bodies of the ops, one file an op. They are imported inside of an op's CUDA kernel, never before."""
