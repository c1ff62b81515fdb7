"""The articles' formulas, put to the test: kept as printed, worked out with units, measured here, beside the model that is right.

Nothing is measured before somebody asks. `claims()` has them in the order of the articles.
"""

from __future__ import annotations

from functools import cache

from .claim import Claim, Curve, Evidence, Example, Input, Measurement
from .verdicts import Verdict, judge

__all__ = ["Claim", "Curve", "Evidence", "Example", "Input", "Measurement", "Verdict", "claims", "judge"]


@cache
def claims() -> dict[str, Claim]:
    """Return all claims by id, in the order of the articles."""
    from .about_distance import EDGE, TRANSFER
    from .about_load import PERFORMANCE, RESOURCES, RESPONSE, UTILISATION
    from .about_time import DATA_PARALLEL, EFFICIENCY, HYBRID, MODEL_PARALLEL, TRAIN

    order = (
        RESPONSE, TRAIN, UTILISATION, TRANSFER, EDGE, PERFORMANCE, RESOURCES, DATA_PARALLEL, MODEL_PARALLEL, HYBRID, EFFICIENCY,
    )  # fmt: skip
    return {claim.id: claim for claim in order}
