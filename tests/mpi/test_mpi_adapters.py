"""Adapters on a net that an earlier run trained: they begin where it ended, under any plan."""

from __future__ import annotations

import pytest

from aiinfra_widgets.errors import SpecError

BASE = {"workload": "gpt-char-1m", "global_batch": 8, "steps": 25, "learning_rate": 0.0}
TUNED = {"workload": "gpt-char-lora", "global_batch": 4, "steps": 3, "learning_rate": 0.0}


@pytest.fixture(scope="module")
def base(warm):
    """A run that trained the base for a moment."""
    found = warm.done(**BASE)
    warm.tidy()
    return found


def test_adapters_begin_where_the_base_ended(lab, curve, base):
    on_base = curve(lab.done(base_run=base.run.id, **TUNED))
    drawn = curve(lab.done(**TUNED))
    assert on_base[0] < drawn[0] - 0.5
    shared = curve(lab.done(base_run=base.run.id, nodes=2, tp_size=2, **TUNED))
    assert shared == pytest.approx(on_base, rel=2e-3)
    staged = curve(lab.done(base_run=base.run.id, nodes=2, pp_size=2, num_microbatches=2, **TUNED))
    assert staged == pytest.approx(on_base, rel=2e-3)


def test_a_base_that_cannot_be_is_refused(lab, base):
    missing = lab.start(base_run="nowhere", **TUNED)
    assert "base_run" in lab.end(missing).message
    other = lab.done(workload="digits-perceptron")
    wrong = lab.start(base_run=other.run.id, **TUNED)
    assert "it trained digits-perceptron; use the id of a run that trained gpt-char-1m" in lab.end(wrong).message
    with pytest.raises(SpecError, match="digits-cnn trains all of its net"):
        lab.start(workload="digits-cnn", base_run=base.run.id)
