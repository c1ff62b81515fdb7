"""What may be asked of an experiment: the Spec, the only place where a field's range, unit, help and choices are written.

Controls, command-line options, papermill parameters and the messages for bad input are all made from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ControlError, SpecError, near
from .knobs import NODES, Kind, Knob
from .texts import language, tr

__all__ = ["Fields", "Knob", "Spec", "knob"]
KNOB = "aiinfra"


def knob(
    default: Any,
    help: str,
    *,
    label: str = "",
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    live: bool = False,
    log: bool = False,
    group: str = "",
    choices: Sequence[str] | None = None,
    step: float | None = None,
) -> Any:
    """Declare one field of a Spec.

    Args:
        default: Value when the field is not given.
        help: One sentence for tooltips, `--help` and reports.
        label: Short name for a control; made from the field's name if empty.
        unit: Of the stored number (SI base), or "".
        ge, le: Allowed range, inclusive. Every number has both: a stated limit is part of the interface.
        live: May change while the run goes on.
        log: A control should move logarithmically.
        group: Heading under which controls gather.
        choices: Allowed strings; checked, near matches are named.
        step: Increment of a slider, where it is not obvious.
    """
    extra: dict[str, Any] = {
        "label": label,
        "unit": unit,
        "live": live,
        "log": log,
        "group": group,
        "choices": list(choices) if choices else None,
        "step": step,
    }
    return Field(
        default=default, ge=ge, le=le, description=help, json_schema_extra={KNOB: extra}, validate_default=True
    )


class Fields(BaseModel):
    """Named values with ranges, such as a verb's arguments. Immutable; unknown names, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    noun: ClassVar[str] = "argument"

    @classmethod
    def knobs(cls) -> dict[str, Knob]:
        """Return every field as a Knob, in the order of declaration; label, help and group in the reader's language."""
        return cls._knobs(language())

    @classmethod
    @cache
    def _knobs(cls, _: str) -> dict[str, Knob]:
        return {name: _knob_of(name, info) for name, info in cls.model_fields.items()}

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Self:
        """Build one; strings are parsed by their field.

        Raises:
            SpecError: One line for each wrong field: name, value seen, what is allowed.
        """
        knobs = cls.knobs()
        problems, clean = [], {}
        for name, value in values.items():
            if name not in knobs:
                problems.append(f"{name}: no such {cls.noun}; {near(name, knobs)}")
                continue
            try:
                clean[name] = knobs[name].parse(value) if isinstance(value, str) else _plain(knobs[name], value)
            except SpecError as error:
                problems.append(str(error))
                continue
            if knobs[name].choices and clean[name] not in knobs[name].choices:
                problems.append(f"{name}: got {value!r}; {near(str(value), knobs[name].choices)}")
                del clean[name]
        try:
            made = cls(**clean)
        except ValidationError as error:
            problems += [_explain(knobs, e) for e in error.errors()]
        if problems:
            raise SpecError("\n".join(problems))
        return made


class Spec(Fields):
    """What is asked of an experiment.

    Attributes:
        coordinators: Ranks beyond `nodes` that decide for the others and do none of their work (a dispatcher, a scheduler).
    """

    noun: ClassVar[str] = "field"
    coordinators: ClassVar[int] = 0

    nodes: int = knob(
        1,
        "Number of MPI ranks that work; a rank is one node.",
        label="Nodes",
        ge=NODES.low,
        le=NODES.high,
        live=True,
        group="System",
    )
    seed: int = knob(
        0, "Seed of everything random; the same seed gives the same run.", label="Seed", ge=0, le=2**31 - 1, group="Run"
    )

    @property
    def ranks(self) -> int:
        """How many MPI ranks are at work: the nodes and who coordinates them."""
        return self.nodes + self.coordinators

    def changed(self, changes: Mapping[str, Any], *, live_only: bool = True) -> Self:
        """Return this Spec with `changes`.

        Raises:
            ControlError: A field may not change while the run goes on.
            SpecError: A value is not allowed.
        """
        knobs = self.knobs()
        fixed = [n for n in changes if n in knobs and not knobs[n].live]
        if live_only and fixed:
            live = ", ".join(n for n, k in knobs.items() if k.live)
            raise ControlError(
                f"{', '.join(fixed)} cannot change while the run goes on; live fields: {live}; start a new run instead"
            )
        return type(self).make({**self.model_dump(), **changes})

    def digest(self) -> str:
        """Return a short hash of the values: the key under which a prediction of this Spec is kept."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


def _knob_of(name: str, info: FieldInfo) -> Knob:
    declared: Any = info.json_schema_extra or {}
    extra: dict[str, Any] = declared.get(KNOB, {})
    low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
    kinds: dict[Any, Kind] = {int: "int", float: "float", bool: "bool"}
    kind: Kind = "choice" if extra.get("choices") else kinds.get(_base(info.annotation), "text")
    return Knob(
        name,
        tr(extra.get("label") or _label(name, extra.get("unit", ""))),
        kind,
        info.default,
        tr(info.description) if info.description else "",
        extra.get("unit", ""),
        low,
        high,
        tuple(extra.get("choices") or ()),
        extra.get("live", False),
        extra.get("log", False),
        tr(extra["group"]) if extra.get("group") else "",
        extra.get("step"),
    )


def _label(name: str, unit: str) -> str:
    """Return a field's name for people, without the suffix that states its unit; the value is shown with it."""
    suffix = {"s": "_s", "B": "_bytes", "B/s": "_bytes_per_s"}.get(unit, "")
    return name.removesuffix(suffix).replace("_", " ").capitalize()


def _base(annotation: Any) -> Any:
    if get_origin(annotation) is None:
        return annotation
    return next((a for a in get_args(annotation) if a is not type(None)), str)


def _plain(knob: Knob, value: Any) -> Any:
    """Accept what is the same number in another type (2.0 for 2, numpy scalars), and nothing else."""
    if hasattr(value, "item"):
        value = value.item()
    if knob.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if knob.kind == "int" and isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _explain(knobs: Mapping[str, Knob], error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "spec"
    if name not in knobs:
        return str(error["msg"]).removeprefix("Value error, ")
    return knobs[name].refusal(error["input"])
