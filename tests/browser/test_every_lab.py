"""Every lab as a person uses it, whichever lab it is: run all, commit, operate each control, reload, restart the kernel.

`make test` goes through one lab of each kind by its main controls, `make test-all` through all of them by every control. What only one
lab has is in the tests of that lab.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab_controls import controls, fields, kernel_state, shown
from lab_driver import JupyterLab, left_running
from lab_driver import chromium as window
from lab_page import SETTINGS
from lab_visit import Visit
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

REPO = Path(__file__).resolve().parents[2]
LABS = sorted(p.stem for p in (REPO / "labs").glob("[0-9][0-9]_*.ipynb"))
#: One of each kind: training, serving, scheduling, a planner and claims (without a run).
CORE = [n for n in LABS if n[:2] in {"01", "03"}]
#: Fields of a card that `make test` operates.
MAIN = 3
#: Parameters that make a lab's own measurements short, or its run long enough to be changed many times.
PARAMETERS: dict[str, dict[str, Any]] = {
    "03_scheduling": {"jobs": 300},
    "05_claims": {"seconds": 12.0},
    "06_model_parallel": {"global_batch": 4, "plans": ["nodes=1", "tp_size=2"], "plan_steps": 10},
    "07_pipeline": {"global_batch": 4, "depth": 2, "microbatches": [1, 4], "schedules": [], "plan_steps": 10},
    "08_sharded": {"global_batch": 4, "ways": ["compression=none"], "engines": ["engine=lab"], "plan_steps": 10},
    "09_workloads": {"workload": "digits-resnet", "share_of_steps": 20.0},
    "10_sweeps": {"nodes": [1, 2], "global_batch": [64, 256], "repeats": 1, "steps": 20},
    "11_failures": {"duration_s": 300.0, "mtbf_s": 2.0, "intervals": [0.2, 0.8], "sweep_s": 4.0},
}


@pytest.fixture(scope="module")
def desk(profile: Path) -> Iterator[JupyterLab]:
    """One JupyterLab for all labs, of somebody who has calibrated this machine; each visit has a kernel of its own."""
    home = Path(tempfile.mkdtemp(prefix="ab-"))  # short, for sockets lie in it
    (home / "lab" / "machines").mkdir(parents=True)
    shutil.copy(profile, home / "lab" / "machines")
    (home / "labs").mkdir()
    for name in LABS:
        notebook = load_notebook_node(str(REPO / "labs" / f"{name}.ipynb"))
        given = PARAMETERS.get(name)
        nbformat.write(parameterize_notebook(notebook, given) if given else notebook, home / "labs" / f"{name}.ipynb")
    try:
        with JupyterLab(home / "labs", home, config=REPO / SETTINGS) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def visit(desk: JupyterLab, chromium: str, artifacts: Path, lab: str) -> Iterator[Visit]:
    """A lab that is open and was run; afterwards its kernel is ended, and nothing that it started may be left."""
    with window(chromium, desk) as page:
        found = Visit(page, lab, artifacts)
        try:
            found.open()
            yield found
        finally:
            with suppress(Exception):  # a picture of where it stood is no reason to hide why it failed
                page.page.screenshot(path=artifacts / f"lab{lab[:2]}-last.png", timeout=20_000)
            for session in desk.api("sessions"):
                desk.api(f"sessions/{session['id']}", "DELETE")
            left = left_running(desk.home / "lab", 30)
            for process in left:
                process.kill()
    assert not left, f"the kernel has ended, and something is left: {left}"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("lab", CORE)
def test_the_main_controls(visit: Visit) -> None:
    visit.try_each(fields(visit.page, "1")[:MAIN])
    go_on(visit, everything=False)
    visit.clean()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lab", LABS)
def test_every_control(visit: Visit) -> None:
    visit.open_folds()
    visit.try_each(fields(visit.page, "1"))
    go_on(visit, everything=True)
    visit.clean()


def go_on(visit: Visit, *, everything: bool) -> None:
    """Go on by the kind of lab that the page shows."""
    if not visit.controls:
        visit.picture("all")
        visit.reload()
        visit.restart()
        return
    kinds = {"Run": run_lab, "It holds": claims_lab}
    kind = next((k for label, k in kinds.items() if visit.has(label)), answering_lab)
    kind(visit, everything)


def run_lab(visit: Visit, everything: bool) -> None:
    """A lab about a run: live fields, the history after a reload and a restart, and every button."""
    visit.commit()
    visit.press("Run")
    visit.until("the run", lambda: visit.chip("running"))
    visit.until("its first points", lambda: visit.first_tick() is not None)
    if everything:
        visit.open_folds()
    visit.try_each(fields(visit.page, "2")[: None if everything else MAIN], effect=True, answered=True)
    count, _ = visit.until("a segment for each change", lambda: (h := visit.history())[0] > 1 and h)
    visit.picture("running")
    visit.reload()
    visit.until("the history after a reload", lambda: (h := visit.history())[0] >= count and h[1])
    visit.restart()
    visit.until("the run, taken over", lambda: visit.chip("running"))
    visit.until("the history after a restart", lambda: (h := visit.history())[0] >= count and h[1])
    if everything:
        visit.press("Pause")
        visit.until("paused", lambda: visit.chip("paused"))
        visit.press("Resume")
        visit.until("running again", lambda: visit.chip("running"))
        visit.press("Checkpoint")
        every_verb(visit)
    visit.press("Stop")
    visit.until("the end", lambda: visit.chip("stopped") or visit.chip("done"))
    if everything:
        after_the_run(visit)


def every_verb(visit: Visit) -> None:
    """Open each verb's form and ask; each has an answer, be it a refusal with its reason."""
    p = visit.page.page
    picker = p.locator(".aiinfra-actions > .aiinfra-control select")
    if picker.count():
        names = picker.locator("option").all_inner_texts()
    else:
        names = [t.rstrip(" .\u2026") for t in p.locator(".aiinfra-verbs button").all_inner_texts()]
    for i, name in enumerate(names):
        if picker.count():
            picker.select_option(label=name)
        else:
            p.locator(".aiinfra-verbs button", has_text=name).first.click()
        form = p.locator(".aiinfra-actions .aiinfra-form").nth(i)
        visit.until(f"the form of {name}", lambda form=form: "aiinfra-hidden" not in form.get_attribute("class"))
        if form.locator("button").first.is_visible():
            form.locator("button").first.click()
        said = form.locator(".aiinfra-say-good, .aiinfra-say-bad")
        visit.until(f"an answer to {name}", said.count)
        visit.say(said.first.inner_text())


def after_the_run(visit: Visit) -> None:
    """Explain, resume and stop, measure the other setups, start over."""
    words = visit.page.page.locator(".aiinfra-explain-text textarea")
    if words.count() and words.first.is_visible():
        words.first.fill("One node less waits for nobody.")
        visit.press("Keep")
        visit.until("the explanation in the ledger", lambda: visit.ledger("explanation"))
    if visit.chip("stopped"):
        visit.press("Resume run")
        visit.until("resumed", lambda: visit.chip("running"))
        visit.press("Stop")
        visit.until("stopped again", lambda: visit.chip("stopped"))
    number = 1
    while visit.to_widget(number):
        visit.page.page.wait_for_timeout(1000)
        for control in [c for c in controls(visit.page, "button") if c.label == "Measure these"]:
            control.at(visit.page).click()
            visit.until(f"setups measured in widget {number}", lambda c=control: c.at(visit.page).is_disabled())
            rows = visit.page.page.locator(f'.aiinfra-lab:has([data-control="{control.number}"]) td')
            visit.until("all of them", lambda rows=rows: not rows.filter(has_text="not measured yet").count())
        number += 1
    visit.to_widget()
    visit.press("Start over")
    visit.until("the setup again", lambda: visit.has("Commit"))


def claims_lab(visit: Visit, everything: bool) -> None:
    """Claims: each is read, some are judged and measured."""
    page = visit.page
    toggles = controls(page, "toggle")
    for toggle in [*toggles[1 : None if everything else 2], toggles[0]]:
        before = shown(page)
        toggle.at(page).click()
        visit.until(f"claim {toggle.label}", lambda before=before: shown(page) != before)
        if everything:
            visit.try_each(fields(page, "1"))
    visit.commit("It holds")
    visit.try_each(fields(page, "1"), effect=True)
    visit.press("Measure")
    visit.until(
        "the first measurement", lambda: visit.chip("judged") and any(s["value"] for s in page.points("points"))
    )
    if everything:
        toggles[1].at(page).click()
        visit.commit("It does not")
        visit.press("Measure all I have judged")
        visit.until("measuring", lambda: visit.chip("measuring"))
        visit.until("the others", lambda: visit.chip("judged"))
    comes_back(visit)


def answering_lab(visit: Visit, everything: bool) -> None:
    """A lab without a run: fields answer at once, the search finds, and all of it comes back."""
    if visit.has("Commit"):
        visit.commit()
    if everything:
        visit.open_folds()
    found = [c for c in fields(visit.page) if c.card != "1"]
    visit.try_each(found if everything else found[: MAIN + 1], effect=True)
    if visit.has("Search plans"):
        visit.press("Search plans")
        visit.until("what the search found", visit.page.page.locator(".aiinfra-choice").count)
        before = kernel_state(visit.page)
        visit.press("Use")
        visit.until("the plan is taken", lambda: kernel_state(visit.page) != before)
    comes_back(visit)


def comes_back(visit: Visit) -> None:
    """What is shown is the same after a reload; after a restart one begins anew, for there is no run to come back to."""
    visit.picture("answered")
    texts, figures = shown(visit.page)
    visit.reload()
    visit.until("the texts after a reload", lambda: shown(visit.page)[0] == texts)
    visit.until("the figures after a reload", lambda: (f := shown(visit.page)[1]) and f <= figures)
    visit.restart()
    visit.commit()
