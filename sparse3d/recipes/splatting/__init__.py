"""Gaussian splatting from posed photos; `reconstruct` reads first.

`config` is the schema, `start` says where the first Gaussians are, `model` is what a step minimises, `hooks`
let the cloud grow, `preset` decides what few photos ask for. Judging is that of `recipes.radiance`;
`recipes.scenes` and `recipes.pictures` show what was found, of fields and clouds alike.
"""
