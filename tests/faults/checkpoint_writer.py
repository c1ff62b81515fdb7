"""Writes checkpoints until it is killed; each holds its tick in every number. Started by test_faults_disk.py."""

import sys

import numpy as np

from aiinfra_widgets.ranks.checkpoint import save
from aiinfra_widgets.runs.layout import RunDir

run, tick = RunDir(__import__("pathlib").Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
while True:
    # Every third tick twice, as when a person asks for a checkpoint while the run is paused.
    for _ in range(1 + (tick % 3 == 0)):
        save(run, tick, {"nodes": 1}, 0, {"state": np.full(250_000, tick, np.float32)})
    tick += 1
