"""A real run of lab 1's experiment, and what its learner predicted."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's import mode leaves it out

from course_submissions import WORDS

from aiinfra_widgets.course import ledger

#: A learner's session, in a process as a notebook's kernel is one: predict, run, change, explain, hand in.
SESSION = """
import json, sys
from aiinfra_widgets import Lab
from aiinfra_widgets.course.evidence import record_of
lab = Lab("training", workload="digits-cnn", nodes=1, global_batch=256, steps=240, seed=0)
lab.commit(0.02)
lab.run(["step=60 nodes=2", "step=120 global_batch=32"])
lab.wait(timeout=240)
lab.explain(sys.argv[2])
open(sys.argv[1], "w").write(json.dumps(record_of(lab)))
lab.close()
"""


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one learner measured and predicted, on real ranks."""
    folder = tmp_path_factory.mktemp("learner")
    env = {**os.environ, "AIINFRA_HOME": str(folder), "AIINFRA_HEADLESS": "1"}
    made = folder / "record.json"
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(made), WORDS],
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert ledger.read(folder / "ledger.jsonl")[0]["explanation"] == WORDS
    return json.loads(made.read_text())


@pytest.fixture
def own(record: dict[str, Any]) -> dict[str, Any]:
    """A copy of the record, to be spoilt."""
    return copy.deepcopy(record)
