"""From the Spec to the parts that a run and its prediction share."""

from __future__ import annotations

from .policies import make_policy
from .policies.base import Policy
from .spec import SchedulingSpec


def policy_of(spec: SchedulingSpec) -> Policy:
    """Return a fresh policy with the options that the Spec gives it."""
    options = {
        "priority": {"ageing_per_s": spec.ageing_per_s},
        "gang": {"quantum_s": spec.quantum_s},
    }
    return make_policy(spec.policy, **options.get(spec.policy, {}))
