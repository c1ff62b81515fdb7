"""A plan of a sweep as a file:

    experiment: training
    over:
      nodes: [1, 2]
      learning_rate: 0.001..0.1     # a range, for a space-filling design
    set:
      steps: 200
    repeats: 3
    design: grid                    # or one-at-a-time, latin-hypercube, sobol (with points: 16)
    seed: 0

Read as data only: no tags, no aliases (ten of them make a billion entries), no more than a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError, near

MOST_BYTES = 256 * 1024
#: Key in the file, and the argument of `plan_sweep` with the type that it takes.
KEYS: dict[str, tuple[str, tuple[type, ...]]] = {
    "experiment": ("experiment", (str,)),
    "over": ("over", (dict,)),
    "set": ("fixed", (dict,)),
    "repeats": ("repeats", (int,)),
    "design": ("design", (str,)),
    "points": ("num_points", (int,)),
    "seed": ("seed", (int,)),
    "shuffle": ("shuffle", (bool,)),
    "new_seeds": ("new_seeds", (bool,)),
    "limit_s": ("limit_s", (int, float)),
}


def read(path: Path) -> dict[str, Any]:
    """Return the arguments of `plan_sweep`, with `experiment`, `over` and `fixed`.

    Raises:
        DataError: Not there, too large, not YAML, a key that does not exist, or a value of another type.
    """
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise DataError(
                f"{path}: more than {MOST_BYTES // 1024} KiB; a plan names fields and values, and is far shorter"
            )
        text = data.decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise DataError(f"{path}: aliases (*name) are not allowed in a plan; write the values out")
        found = yaml.safe_load(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    return _checked(path, found)


def _checked(path: Path, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or not isinstance(found.get("experiment"), str):
        raise DataError(
            f"{path}: holds no plan; it begins with 'experiment: training', then 'over:' with fields and values"
        )
    plan: dict[str, Any] = {"over": {}, "fixed": {}}
    for key, value in found.items():
        if key not in KEYS:
            raise DataError(f"{path}: {key}: no such key; {near(str(key), KEYS)}")
        name, types = KEYS[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join(
                {"dict": "fields with values", "int": "a whole number", "str": "text"}.get(t.__name__, t.__name__)
                for t in types
            )
            raise DataError(f"{path}: {key}: got {value!r}; allowed: {wanted}")
        plan[name] = value
    for field, values in plan["over"].items():
        plain = values if isinstance(values, list) else [values]
        if any(isinstance(v, list | dict) or v is None for v in plain):
            raise DataError(
                f"{path}: over: {field}: got {values!r}; allowed: a list of plain values, or text such as 0.001..0.1"
            )
        plan["over"][field] = values if isinstance(values, list | str) else [values]
    return plan
