"""What a lab's page lets a person operate, read from the page itself; and how a person operates it.

Nothing here knows a lab: a control is found by what it is, its knob by its class, and its effect by what the kernel holds.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab_driver import Page

#: Every control that is visible in the labs of the page, folds first closed; each gets a number to be found by again.
CONTROLS = """() => { const kinds = { slider: '.noUi-handle', choice: 'select', check: 'input[type=checkbox]',
      text: 'input[type=text], input[type=number], textarea', toggle: '.widget-toggle-button', fold: '.jupyter-widget-Collapse-header',
      button: 'button.jupyter-button:not(.widget-toggle-button)' };
    let next = window.__aiinfra_controls ?? 0; const found = [];
    for (const lab of document.querySelectorAll('.jp-Notebook .aiinfra-lab'))
      for (const [kind, which] of Object.entries(kinds)) for (const el of lab.querySelectorAll(which)) {
        if (!el.offsetParent || el.closest('.aiinfra-lab') !== lab) continue;
        el.dataset.control ??= String(next++);
        const field = el.closest('[class*=aiinfra-knob-]'), card = el.closest('[class*=aiinfra-card-]');
        const box = el.closest('.widget-inline-hbox, .widget-checkbox') ?? el;
        const label = el.getAttribute('aria-label') || box.querySelector('.widget-label, .widget-label-basic')?.innerText || el.innerText;
        found.push({ kind, number: el.dataset.control, label: (label ?? '').trim(),
          knob: field ? [...field.classList].find(c => c.startsWith('aiinfra-knob-')).slice(13) : '',
          card: card ? [...card.classList].find(c => c.startsWith('aiinfra-card-')).slice(13) : '',
          field: !el.closest('.aiinfra-form') && !!(field || (card?.matches('.aiinfra-card-1') && el.closest('.aiinfra-control'))),
          guess: !!el.closest('.aiinfra-guess'),
          off: el.disabled || el.closest('.noUi-target')?.hasAttribute('disabled') || false }) }
    window.__aiinfra_controls = next;
    return found }"""
#: Refusals in sight, each with its reason.
REFUSALS = """() => [...document.querySelectorAll('.aiinfra-say-bad, .aiinfra-problem')].filter(e => e.offsetParent)
    .map(e => e.innerText.trim()).filter(t => t)"""
#: What the lab shows: every text that the kernel writes on its first screen, and the data of every figure.
SHOWN = """() => { const texts = [...(document.querySelector('.aiinfra-lab')?.querySelectorAll('.widget-html') ?? [])]
      .filter(e => e.offsetParent).map(e => e.innerText);
    const figures = (window.Bokeh?.documents ?? []).flatMap(d => [...d._all_models.values()])
      .filter(m => m.type === 'ColumnDataSource').map(m => JSON.stringify(Object.values(m.data).map(v => Array.from(v))));
    return [texts, figures] }"""
ASK = """async ([code, expression]) => { const k = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const request = k.requestExecute({ code, silent: true, store_history: false, user_expressions: { v: expression } });
    return (await request.done).content }"""
#: Read in the kernel: what a lab is set to, by whatever kind of lab; of an unknown kind, the values of its widgets.
PROBE = """
def _aiinfra_probe():
    import json
    from ipywidgets.widgets.widget import _instances
    lab = globals().get("lab")
    state = getattr(lab, "state", None)
    if hasattr(state, "look"):
        found = state.look().spec.model_dump()
    elif hasattr(state, "fields"):
        found = state.fields.model_dump()
    elif hasattr(lab, "trials"):
        found = {name: dict(lab.trials.inputs(name)) for name in lab.trials.claims}
    else:
        found = {k: w.value for k, w in list(_instances.items()) if hasattr(w, "value") and type(w).__name__ != "HTML"}
    return json.dumps(found, default=str)
"""
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Control:
    """One thing to operate.

    Attributes:
        kind: slider, choice, check, text, toggle, fold or button.
        number: Finds it again in the page.
        knob: The field that it sets; "" where it sets none.
        card: Number of the card that it is on.
        field: It sets something of the lab; `guess`: it takes the prediction; `off`: it cannot be operated now.
    """

    kind: str
    number: str
    label: str
    knob: str
    card: str
    field: bool
    guess: bool
    off: bool

    def at(self, page: Page) -> Any:
        """Return its element."""
        return page.page.locator(f'[data-control="{self.number}"]')


def fields(page: Page, card: str = "") -> list[Control]:
    """Return what sets something of the lab and can be operated now."""
    return [c for c in controls(page, card=card) if c.field]


def controls(page: Page, *kinds: str, card: str = "", on: bool = True) -> list[Control]:
    """Return the controls that are in sight, in the order of the page.

    Args:
        kinds: Only these; all if none is given.
        card: Only on this one.
        on: Only those that can be operated.
    """
    found = [Control(**c) for c in page.page.evaluate(CONTROLS)]
    return [c for c in found if (not kinds or c.kind in kinds) and card in ("", c.card) and not (on and c.off)]


def button(page: Page, *labels: str) -> Control | None:
    """Return the first button in sight that has one of these words and can be pressed."""
    return next((c for c in controls(page, "button") if c.label.rstrip(" .\u2026") in labels), None)


def kernel_state(page: Page) -> dict[str, Any]:
    """Return what the kernel has the lab set to."""
    reply = page.page.evaluate(ASK, [PROBE, "_aiinfra_probe()"])
    assert reply["status"] == "ok", reply
    told = reply["user_expressions"]["v"]
    assert told["status"] == "ok", told
    found: dict[str, Any] = json.loads(ast.literal_eval(told["data"]["text/plain"]))
    return found


#: Where a slider stands: its value for a screen reader is rounded, its place is not.
SLID = "e => [e.getAttribute('aria-valuenow'), e.getAttribute('aria-valuetext'), (e.closest('.noUi-origin') || e).style.transform].join()"


def refusals(page: Page) -> list[str]:
    """Return the reasons that are in sight for what was refused."""
    return list(page.page.evaluate(REFUSALS))


def shown(page: Page) -> tuple[list[str], set[str]]:
    """Return all that the labs show, texts and the data of figures, for comparing."""
    texts, figures = page.page.evaluate(SHOWN)
    return texts, set(figures)


def other(text: str) -> str:
    """Return another text that may stand in a field: a number twice as large in the same unit, or one that was not there."""
    number = NUMBER.search(text)
    if number is None:
        return "1"
    value = float(number[0])
    return text.replace(number[0], f"{2 * value if value else 1:.12g}", 1)


def operate(page: Page, control: Control) -> Callable[[], None]:
    """Move a control as a person does, by keyboard where it has one; return what puts it back."""
    at = control.at(page)
    if control.kind == "slider":
        before = at.evaluate(SLID)
        # A page that is drawing a run's first figures may miss a key; a person presses it again.
        for there, back in (("ArrowRight", "ArrowLeft"), ("ArrowLeft", "ArrowRight")) * 3:
            at.focus()
            at.press(there)
            for _ in range(20):
                if at.evaluate(SLID) != before:
                    return lambda back=back: at.press(back)  # type: ignore[misc]
                page.page.wait_for_timeout(50)
        raise AssertionError(f"the slider {control.label} moves neither way")
    if control.kind == "choice":
        value, count = int(at.evaluate("e => e.selectedIndex")), int(at.evaluate("e => e.options.length"))
        at.select_option(index=(value + 1) % count)
        return lambda: at.select_option(index=value)
    if control.kind == "check":
        at.click()
        return lambda: at.click()
    assert control.kind == "text", control
    text = at.input_value()

    def put(new: str) -> None:
        at.fill(new)
        at.press("Enter")

    put(other(text))
    return lambda: put(text)


def open_folds(page: Page) -> int:
    """Open every fold that is closed; return how many."""
    closed = [
        c
        for c in controls(page, "fold")
        if "jupyter-widget-Collapse-open" not in (c.at(page).locator("..").get_attribute("class"))
    ]
    for fold in closed:
        fold.at(page).click()
    return len(closed)
