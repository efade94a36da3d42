"""Radiance fields from posed photos; `reconstruct` reads first.

`config` is the schema, `batches` and `guides` are what a step sees, `model` is what it minimises (with
`priors`, which `preset` decides on), `bounds` and `poses` say where things are, `judge` and `pictures` show
what was found. `distill` has a trained field in the place of the photos, `lessons` what a step then sees.
"""
