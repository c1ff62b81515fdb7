"""One field as interfaces see it, and the range of the field that every Spec has: the number of nodes.

Light, so that a command can refuse a slip of the keyboard by the Spec's own rule before it loads what a Spec is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .errors import SpecError
from .texts import N_

Kind = Literal["int", "float", "bool", "choice", "text"]


@dataclass(frozen=True, slots=True)
class Knob:
    """A Spec field as interfaces see it: everything needed to draw a control, to read what was typed, or to explain an error."""

    name: str
    label: str = ""
    kind: Kind = "text"
    default: Any = None
    help: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    log: bool = False
    group: str = ""
    step: float | None = None

    @property
    def allowed(self) -> str:
        """What may be given, in English words, as in messages; `told` says them in the reader's language."""
        if self.choices:
            choices = ", ".join(self.choices)
            return N_(f"one of {choices}")
        if self.kind == "bool":
            return N_("true or false")
        if self.low is None and self.high is None:
            return {"int": N_("a whole number"), "float": N_("a number")}.get(self.kind, N_("text"))
        ends = N_(f"from {self.low:g} to {self.high:g}") + (f" {self.unit}" if self.unit else "")
        return N_(f"a whole number {ends}") if self.kind == "int" else N_(f"a number {ends}")

    def refusal(self, seen: Any) -> str:
        """Return what is said of a value that is not allowed."""
        return f"{self.name}: got {seen!r}; allowed: {self.allowed}"

    def inside(self, number: float) -> bool:
        """Whether a number is in the range; a bound that is not there bounds nothing, and NaN is in no range."""
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def parse(self, text: str) -> Any:
        """Turn what a person typed ("10 Gbit/s", "64 MiB", "true", "1e-3") into the stored type.

        Raises:
            SpecError: When it is neither the stored type nor a quantity of the right dimension.
        """
        text = text.strip()
        if self.kind in {"choice", "text"}:
            return text
        if self.kind == "bool":
            words = {
                "true": True,
                "yes": True,
                "on": True,
                "1": True,
                "false": False,
                "no": False,
                "off": False,
                "0": False,
            }
            if text.lower() in words:
                return words[text.lower()]
            raise SpecError(f"{self.name}: got {text!r}; allowed: true or false")
        try:
            return int(text) if self.kind == "int" else float(text)
        except ValueError:
            return self._with_unit(text)

    def _with_unit(self, text: str) -> float | int:
        try:
            bare = _number(text)
            if bare is not None or not self.unit:
                number = float(text)  # "1e6" of a field in bytes: pint would take it for bits
            else:
                import pint  # 0.6 s to import, so only when somebody typed a unit

                asked: Any = pint.Quantity(
                    text.replace("Gbit", "gigabit").replace("Mbit", "megabit").replace("kbit", "kilobit")
                )
                number = float(asked.to(self.unit.replace("B", "byte")).magnitude)
        except Exception as error:
            raise SpecError(f"{self.name}: cannot read {text!r}; allowed: {self.allowed}") from error
        if self.kind == "int":
            if not number.is_integer():
                raise SpecError(f"{self.name}: got {text!r}; allowed: {self.allowed}")
            return int(number)
        return number


#: How many nodes a run may be asked for, whatever the experiment; how many a machine takes is another question.
NODES = Knob("nodes", kind="int", low=1, high=512)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
