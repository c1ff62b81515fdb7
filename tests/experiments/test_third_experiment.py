"""Gate of the design: an experiment of another package, in under 100 lines, works everywhere without a change to ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PING = Path(__file__).parent / "ping"
AIINFRA = Path(sys.executable).parent / "aiinfra"
LAB = """
import json
from aiinfra_widgets import Lab
lab = Lab("ping", rounds=150)
lab.commit(1e-5)
lab.run(["round=70 size_bytes=1048576"], room=2)
lab.wait(60)
lab.close()
print(json.dumps({"results": lab.results(), "figures": lab.figures, "titles": [lab.figure(n).title.text for n in lab.figures]}))
"""


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(PING), "AIINFRA_HEADLESS": "1"}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_small() -> None:
    lines = [n for f in ("ping.py", "ping_measure.py") for n in (PING / f).read_text().splitlines() if n.strip()]
    assert len(lines) < 100


@pytest.mark.mpi
def test_predicted_run_changed_and_compared_by_the_command(tmp_path: Path) -> None:
    argv = ("run", "ping", "--set", "rounds=120", "--change", "round=60 size_bytes=1048576", "--json")
    done = python(str(AIINFRA), *argv)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    small, large = (s["quantities"]["round_trip_s"] for s in found["segments"])
    assert found["status"] == "done"
    assert [s["spec"]["size_bytes"] for s in found["segments"]] == [1024, 2**20]
    assert large["predicted"] > 100 * small["predicted"]
    assert large["measured"] > small["measured"] > 0
    assert (small["method"], small["predicted_method"]) == ("measured", "assumed")


@pytest.mark.mpi
def test_it_has_a_lab_with_its_figures() -> None:
    done = python(sys.executable, "-c", LAB)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["results"]["guess"] == {"quantity": "round_trip_s", "value": 1e-5}
    assert [s["transient"] for s in found["results"]["segments"]] == [False, False]
    assert "round_trip_s" in found["figures"]
    assert any("over length of the message" in t.lower() or "size" in t.lower() for t in found["titles"]), found[
        "titles"
    ]


def test_its_bad_input_is_told_by_the_same_code() -> None:
    done = python(str(AIINFRA), "run", "ping", "--set", "size_byte=1", "--set", "nodes=1")
    assert done.returncode == 1
    assert "size_byte: no such field; did you mean 'size_bytes'?" in done.stderr
    assert "nodes: got 1" in done.stderr
