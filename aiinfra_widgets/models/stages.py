"""Where a pipeline cuts a net: contiguous stages whose dearest one is as cheap as possible. The runner and the prediction share it."""

from __future__ import annotations

from collections.abc import Sequence


def stages(costs: Sequence[float], count: int) -> list[slice]:
    """Cut a row of costs into `count` contiguous stages, none empty, so that the dearest stage is as cheap as possible.

    Raises:
        ValueError: More stages than parts.
    """
    n = len(costs)
    if not 1 <= count <= n:
        raise ValueError(f"{count} stages of {n} parts")
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    # best[k][j]: the least dearest stage when the first j parts make k stages.
    best = [[0.0 if j == 0 else float("inf") for j in range(n + 1)]]
    cut: list[list[int]] = [[0] * (n + 1)]
    for k in range(1, count + 1):
        row, where = [float("inf")] * (n + 1), [0] * (n + 1)
        for j in range(k, n - (count - k) + 1):
            for i in range(k - 1, j):
                dearest = max(best[k - 1][i], total[j] - total[i])
                if dearest < row[j]:
                    row[j], where[j] = dearest, i
        best.append(row)
        cut.append(where)
    found: list[slice] = []
    end = n
    for k in range(count, 0, -1):
        begin = cut[k][end]
        found.append(slice(begin, end))
        end = begin
    return found[::-1]
