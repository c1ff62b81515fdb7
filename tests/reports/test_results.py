from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from aiinfra_widgets.errors import ReportError, StorageError
from aiinfra_widgets.quantities import Value
from aiinfra_widgets.reports import results


def test_outside_a_report_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.delenv(results.ENV, raising=False)
    monkeypatch.chdir(tmp_path)
    assert results.save({"a": (1, 2)}) == {"a": [1, 2]}
    assert list(tmp_path.iterdir()) == []


def test_inside_a_report_strict_json_is_written(monkeypatch, tmp_path):
    target = tmp_path / "handed"
    monkeypatch.setenv(results.ENV, str(target))
    given = {
        "n": np.int64(3),
        "series": np.array([1.0, np.nan]),
        "inf": float("inf"),
        "step": Value("step_time_s", 0.02, method="measured", n=5),
        4: True,
    }
    returned = results.save(given)
    read = json.loads(target.read_text(), parse_constant=lambda word: pytest.fail(f"not JSON: {word}"))
    assert read == returned
    assert read["series"] == [1.0, None]
    assert (read["n"], read["inf"], read["4"]) == (3, None, True)
    assert read["step"]["value"] == 0.02
    assert results.load(target) == read
    assert [p.name for p in tmp_path.iterdir()] == ["handed"]


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(ReportError, match=r"results\.a\[1\]\.b: got object"):
        results.save({"a": [1, {"b": object()}]})
    with pytest.raises(ReportError, match="allowed: a mapping"):
        results.save([1])


def test_a_file_that_cannot_be_written_is_a_storage_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(results.ENV, str(tmp_path / "file" / "below"))
    with pytest.raises(StorageError, match="cannot be written"):
        results.save({})


def test_handing_over_results_loads_nothing_heavy():
    code = (
        "import sys, aiinfra_widgets.reports.results; "
        "print([m for m in ('papermill', 'nbconvert', 'torch', 'bokeh', 'numpy', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_versions_are_those_installed():
    found = results.versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_machine_is_described_without_naming_it():
    found = results.machine()
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert set(found) == {"cpu", "cores", "memory_bytes", "gpus", "system"}
