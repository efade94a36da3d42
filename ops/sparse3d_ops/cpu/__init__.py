# CPU bodies: numba functions over arrays. No torch, no shape logic, no defaults.
