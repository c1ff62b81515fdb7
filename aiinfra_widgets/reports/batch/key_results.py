"""The few numbers for which a report is read: the main compared quantities, predicted beside measured, from `results.json`.

No code per lab. Wherever a lab hands over a list of things with `quantities` (segments of a run, setups, counts of accelerators), each
thing gives its main ones; a list of things with a `verdict` gives those words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import LabError
from ...experiment import experiment
from ...quantities import QUANTITIES, Quantity, quantity

#: Main quantities of each thing.
MOST = 3
#: The unit that a name's end tells.
SUFFIXES = {
    "_bytes_per_s": "B/s",
    "_s": "s",
    "_bytes": "B",
    "_frac": "frac",
    "_j": "J",
    "_w": "W",
    "_usd": "USD",
    "_gco2e": "gCO2e",
}
#: What a thing is called, in the order in which these names are looked for.
NAMES = ("setup", "id", "name", "label")


def key_results(results: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return rows of plain JSON types, most important first.

    Args:
        results: What the lab handed over (`results` of `results.json`), None where it did not come to that.

    Returns:
        Each row has `key` (the same in every batch), `at` (of what), `label`, `quantity`, `unit`, `predicted`, `measured`, `low` and
        `high` (quartiles, or the 95 % interval, of what was measured), `relative_error`, `method`, and `word` (of a verdict). Units
        are SI. None is "not known".
    """
    if not results:
        return []
    found: list[tuple[int, dict[str, Any]]] = []
    for name, items in results.items():
        if not isinstance(items, list):
            continue
        things = [i for i in items if isinstance(i, Mapping)]
        chosen = [i for i in things if i.get("chosen")] or things
        for number, thing in enumerate(chosen):
            at = _called(thing, chosen[number - 1] if number else None, name)
            at = at if len(chosen) == 1 or "setup" in thing or "id" in thing else f"{number + 1}: {at}"
            found += _numbers(results, thing, f"{name}/{at}", at)
            if isinstance(thing.get("verdict"), str):
                found.append((0, _row(f"{name}/{at}", at, "Verdict", word=thing["verdict"])))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _numbers(
    results: Mapping[str, Any], thing: Mapping[str, Any], key: str, at: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    quantities = thing.get("quantities")
    if not isinstance(quantities, Mapping) or thing.get("transient"):
        return
    for rank, name in enumerate(_main(results, quantities)):
        q = quantities[name]
        if "value" in q:  # of a thing that was not run: predicted only
            q = {"predicted": q["value"], "predicted_method": q.get("method")}
        if q.get("predicted") is None and q.get("measured") is None:
            continue
        spread = q.get("measured_interval_95") or q.get("measured_quartiles") or (None, None)
        known = _known(name)
        yield (
            rank,
            _row(
                f"{key}/{name}",
                at,
                known.label,
                quantity=name,
                unit=known.unit,
                predicted=q.get("predicted"),
                measured=q.get("measured"),
                low=spread[0],
                high=spread[1],
                relative_error=q.get("relative_error"),
                method=q.get("method") or q.get("predicted_method"),
            ),
        )


def _row(key: str, at: str, label: str, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        ("quantity", "unit", "predicted", "measured", "low", "high", "relative_error", "method", "word")
    )
    return {"key": key, "at": at, "label": label, **empty, **values}


def _main(results: Mapping[str, Any], quantities: Mapping[str, Any]) -> list[str]:
    """Return the names that matter most: what was asked first, then what the experiment compares, then the order they have."""
    guess = results.get("guess")
    asked = [str(guess.get("quantity"))] if isinstance(guess, Mapping) else []
    try:
        compared = experiment(str(results.get("experiment", ""))).compared
    except LabError:
        compared = ()
    wanted = dict.fromkeys([*compared[:1], *asked, *compared, *quantities])
    return [n for n in wanted if n in quantities and isinstance(quantities[n], Mapping)][:MOST]


def _known(name: str) -> Quantity:
    """Return what a quantity is; of one that no vocabulary here has, as much as its name tells."""
    if name not in QUANTITIES:
        from ...planning import scale  # noqa: F401  # registers what only jobs of any size have

    if name in QUANTITIES:
        return quantity(name)
    stem, unit = next(((name.removesuffix(s), u) for s, u in SUFFIXES.items() if name.endswith(s)), (name, "1"))
    return Quantity(name, stem.replace("_", " ").strip().capitalize(), unit, "")


def _called(thing: Mapping[str, Any], before: Mapping[str, Any] | None, list_name: str) -> str:
    """Return what a thing is called: its name, or its nodes and what changed in its settings."""
    for name in NAMES:
        if isinstance(thing.get(name), str) and thing[name]:
            return str(thing[name])
    if "accelerators" in thing:
        return f"{thing['accelerators']:,} accelerators".replace(",", " ")
    spec = thing.get("spec")
    if isinstance(spec, Mapping):
        old = before.get("spec") if before else None
        changed = [k for k in spec if isinstance(old, Mapping) and k in old and old[k] != spec[k] and k != "nodes"]
        words = [_nodes(thing.get("nodes", spec.get("nodes"))), *(f"{k}={spec[k]}" for k in changed[:2])]
        return ", ".join(w for w in words if w)
    return list_name


def _nodes(count: Any) -> str:
    return "" if count is None else f"{count} node" + ("s" if count != 1 else "")
