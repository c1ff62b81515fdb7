"""`ScaleOut()`: one training job on 8, 512, 16 384 or 100 000 accelerators, on one screen or in a script.

In a notebook the cell shows the screen. Headless (AIINFRA_HEADLESS=1, or no notebook at all) there is no widget: `commit`,
`set`, `search` do the same, and what is displayed are tables and offline figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, near
from ..texts import told, tr
from .figures import still
from .notebook import headless, show, show_figure, show_html
from .scale_out_figures import CHARTS, CHOSEN, columns
from .scale_out_search import Found, choices_html, fields_of, find, found_html
from .scale_out_state import BARS, QUESTION, ScaleOutState
from .scale_out_table import assumed_html, counts_html, notes_html, record_html, reveal_html

PARTS = ("table", "record", "search", *CHARTS)


class ScaleOut:
    """The scale-out lab.

    Args:
        values: Fields of `ScaleOutFields` that are not as by default: model, node, accelerators, tp_size, ...
        published: Table of published runs; None is the one that ships.

    Raises:
        SpecError: No such field, or a value that is not allowed.
    """

    def __init__(self, *, published: Path | None = None, **values: Any) -> None:
        self.headless = headless()
        self.state = ScaleOutState(values, published)
        self.found: Found | None = None
        self._screen: Any = None

    # --- what a person or a script does -------------------------------------------------------------------------
    def commit(self, value: float) -> None:
        """Commit to a guess of the share of a step that is communication, 0 to 1; it is kept in the ledger."""
        self.state.commit(value)
        self._redraw()

    def set(self, **changes: Any) -> None:
        """Move the knobs: `lab.set(accelerators=512, tp_size=4)`. What cannot be is told in `problem`.

        Raises:
            SpecError: No such field, or a value that is not allowed.
        """
        self.state.change(changes)
        self._redraw()

    def search(self) -> Found:
        """Try every plan on the chosen accelerators, and return the quickest that fit.

        Raises:
            ModelInputError: No plan is valid there.
        """
        self.found = find(self.state.fields)
        self._redraw()
        return self.found

    def use(self, index: int = 0) -> None:
        """Set the knobs to a plan that the search found, 0 for the quickest."""
        if self.found is None or not 0 <= index < len(self.found.choices):
            count = len(self.found.choices) if self.found else 0
            raise UnknownNameError(f"no plan {index}; {f'0 to {count - 1}' if count else 'call search() first'}")
        self.set(**fields_of(self.found.choices[index]))

    # --- what it knows ------------------------------------------------------------------------------------------
    @property
    def problem(self) -> str:
        """Why the knobs as they are have no answer, or ""."""
        return self.state.problem

    def results(self) -> dict[str, Any]:
        """Return the answer as plain JSON types: the fields, every quantity for every count, the guess, the record."""
        p = self.state.picture
        found: dict[str, Any] = {
            "status": "failed" if self.problem else "done",
            "message": self.problem,
            "fields": self.state.fields.model_dump(),
            "guess": {"quantity": QUESTION, "value": self.state.guess},
            "counts": [],
        }
        if p is None:
            return found
        for i, count in enumerate(p.bars.accelerators):
            numbers = {
                n: {"value": float(v.value[i]), "method": v.method, "how": v.how} for n, v in p.bars.values.items()
            }
            found["counts"].append(
                {"accelerators": int(count), "used": int(p.bars.used[i]), "chosen": i == CHOSEN, "quantities": numbers,
                 "reason": p.bars.reasons.get(i, "")}
            )  # fmt: skip
        found |= {"notes": list(p.bars.notes), "assumed": dict(p.assumed), "published": [_row(r) for r in p.record]}
        if self.found is not None:
            found["search"] = {
                "plans": self.found.num_plans, "feasible": self.found.num_feasible, "says": list(self.found.says),
                "best": [fields_of(c) | {"step_time_s": c.step_time_s, "mfu": c.mfu} for c in self.found.choices],
            }  # fmt: skip
        return found

    def figure(self, name: str) -> Any:
        """Return one figure of the answer as it is now: a Bokeh figure that does not move.

        Raises:
            UnknownNameError: No such figure, or no answer to draw.
        """
        if name not in CHARTS:
            raise UnknownNameError(f"no figure {name!r}; {near(name, CHARTS)}")
        if self.state.picture is None:
            raise UnknownNameError(f"nothing to draw: {self.problem}")
        return still(CHARTS[name](columns(self.state.picture)[name]))

    # --- display ------------------------------------------------------------------------------------------------
    def show(self, what: str) -> None:
        """Display a part by itself, as it is now: "table", "record", "search", or the name of a figure."""
        from .scale_out_screen import says

        p = self.state.picture
        if what not in PARTS:
            raise UnknownNameError(f"no part {what!r}; {near(what, PARTS)}")
        if what == "search":
            if self.found is not None:
                show_html(found_html(self.found) + choices_html(self.found))
        elif p is not None:
            if what == "table":
                show_html(counts_html(p) + notes_html(p) + assumed_html(p.assumed))
            elif what == "record":
                show_figure(self.figure("record"), says("record", self.state))
                show_html(record_html(p.record, self.state.no_record))
            else:
                show_figure(self.figure(what), says(what, self.state))

    def _ipython_display_(self) -> None:
        if not self.headless:
            show(self._the_screen().root)
            return
        p = self.state.picture
        if self.problem:
            print(f"{tr('Scaling out')}: {told(self.problem)}")
        if p is not None:
            show_html(reveal_html(self.state.revealed or p, self.state.guess))
            for name in (*(c for c in CHARTS if c != "record"), "table"):
                self.show(name)

    def __repr__(self) -> str:
        f = self.state.fields
        return f"ScaleOut({f.model!r} on {f.accelerators} of {f.node}): {self.problem or 'answered'}"

    # --- the screen ---------------------------------------------------------------------------------------------
    def _the_screen(self) -> Any:
        if self._screen is None:
            from .scale_out_screen import Screen

            self._screen = Screen(
                self.state, {"commit": self._commit, "again": self.state.start_over, "search": self._search}
            )
        return self._screen

    def _commit(self) -> None:
        self.commit(self._the_screen().read_guess())

    def _search(self) -> None:
        self.search()

    def _redraw(self) -> None:
        if self._screen is not None:
            self._screen.show_fields()
            self._screen.draw()
            self._screen.draw_search(self.found, self._use_button)

    def _use_button(self, index: int) -> None:
        self.use(index)


def _row(run: Any) -> Mapping[str, Any]:
    return {n: getattr(run, n) for n in run.__slots__}


__all__ = ["BARS", "ScaleOut"]
