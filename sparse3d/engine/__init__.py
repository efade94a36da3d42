"""Training: `loop` (Trainer), `hooks` (what happens beside it), `schedule`, `optim`, `ema`, `checkpoint`,
`state` (what a checkpoint of a run holds), `diverged` (where a NaN came from), `seed`, `distributed`,
`meeting`, `parallel` (several processes, one model), `profile`, `memory`. Import from these modules.
"""
