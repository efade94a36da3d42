"""Gaussian splatting from posed photos; `reconstruct` reads first.

`config` is the schema, `start` says where the first Gaussians are, `model` is what a step minimises, `hooks`
let the cloud grow, `judge` and `pictures` show what was found.
"""
