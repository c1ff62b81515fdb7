"""The words at the top of a lab: what state it is in, and what to do next. Pure HTML and text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..experiment import Experiment
from ..quantities import Prediction, show
from ..texts import N_, told, tr
from .state import Look

#: By state: (class, sign). The sign says it without colour.
CHIPS = {
    "setup": ("calm", "\u25cb"), "ready": ("calm", "\u25cf"), N_("new"): ("calm", "\u25cb"), N_("starting"): ("busy", "\u25d4"),
    N_("running"): ("good", "\u25b6"), N_("paused"): ("calm", "\u2016"), N_("stalled"): ("warn", "!"), N_("degraded"): ("warn", "!"),
    N_("done"): ("good", "\u2713"), N_("stopped"): ("calm", "\u25a0"), N_("failed"): ("bad", "\u2715"), N_("interrupted"): ("warn", "!"),
}  # fmt: skip
#: What the status of a run says whose folder is no longer there.
GONE = "was deleted or moved"


def state_word(look: Look) -> str:
    """Return one word for what is going on."""
    if look.status is None or look.phase in {"setup", "committed"}:  # an earlier run is still there after Start over
        return "ready" if look.phase == "committed" else "setup"
    return look.status.state


def next_step(exp: Experiment, look: Look, first: Sequence[str] = ()) -> str:
    """Return what a person should do now, in one sentence; `first` are the live fields in sight."""
    word = state_word(look)
    if word == "running":
        knobs = exp.spec.knobs()
        live = [knobs[n].label for n in first or [n for n, k in knobs.items() if k.live]][:2]
        either = tr(" or ").join(live)
        return tr("Change {fields} while it runs, and watch where the time goes.", fields=either)
    said = {
        "setup": N_("Choose a setup, write down what you expect, and commit."),
        "ready": N_("Press Run."),
        "new": N_("The run is being handed to the ranks."),
        "starting": N_("The ranks are coming up; the first time takes some seconds."),
        "paused": N_("Every node waits. Press Resume to go on."),
        "done": N_("Compare below. Start over to try another setup."),
        "stopped": N_("Compare below. Press Resume run to go on, or start over with another setup.")
        if look.can_resume
        else N_("Compare below. It has no checkpoint to go on from: start over with another setup."),
        "stalled": N_("Wait, or press Stop."),
        "degraded": N_("It goes on with fewer nodes; add some, or press Stop."),
    }.get(word)
    if said:
        return tr(said)
    if look.status is not None and GONE in look.status.message:
        return tr("If you deleted it, Runs() puts it back from the trash; else start over.")
    if look.can_resume:
        return tr("Press Resume run to go on from the last checkpoint.")
    read = N_("Read below what the node said, then start over with another setup.")
    return tr(read if look.traceback else N_("It has no checkpoint to go on from: start over."))


def header_html(exp: Experiment, look: Look, problem: str = "", first: Sequence[str] = ()) -> str:
    """Return title, chip, message, next step, and a problem if there is one."""
    word = state_word(look)
    kind, sign = CHIPS.get(word, ("calm", "\u25cb"))
    name = tr({"setup": N_("not started"), "ready": N_("ready to run")}.get(word, word))
    message = told(look.status.message) if look.status else ""
    if look.status and look.status.state == "failed" and look.traceback:
        message = tr("a node failed")
    note = f'<p class="aiinfra-note">{escape(told(look.note))}</p>' if look.note else ""
    bad = f'<div class="aiinfra-problem" role="alert">{escape(told(problem))}</div>' if problem else ""
    return (
        f'<div class="aiinfra-title"><h2>{escape(tr(exp.title))}</h2>'
        f'<span class="aiinfra-chip aiinfra-chip-{kind}" role="status">{sign} {escape(name)}</span>'
        f'<span class="aiinfra-says">{escape(message)}</span></div>'
        f'<p class="aiinfra-next"><b>{escape(tr("Next"))}</b> {escape(next_step(exp, look, first))}</p>{note}{bad}'
    )


def failure_html(look: Look) -> str:
    """Return the message and the traceback of the node that failed, or ""."""
    if not look.traceback or look.status is None:
        return ""
    lines = [f"<p><b>{escape(told(look.status.message))}</b></p>", f"<pre>{escape(look.traceback)}</pre>"]
    return f'<div class="aiinfra-failure" role="alert">{"".join(lines)}</div>'


def reveal_html(exp: Experiment, guess: float | None, prediction: Prediction | None, refused: str) -> str:
    """Return the learner's number beside the model's, with its band and provenance, or why the model says nothing."""
    name = exp.compared[0]
    own = (
        f'<div class="aiinfra-big"><span>{escape(tr("You"))}</span><b>{escape(show(name, guess))}</b></div>'
        if guess
        else ""
    )
    if prediction is None:
        none = f'<b class="aiinfra-none">{escape(tr("no prediction"))}</b>'
        return f'{own}<div class="aiinfra-big"><span>{escape(tr("Model"))}</span>{none}</div>{refusal_html(refused)}'
    value = prediction.values[name]
    band = ""
    if value.low is not None and value.high is not None:
        band = f"<small>{escape(tr('{low} to {high}', low=show(name, value.low), high=show(name, value.high)))}</small>"
    notes = "".join(f'<p class="aiinfra-note">{escape(told(n))}</p>' for n in prediction.notes)
    tag = f'<span class="aiinfra-tag" title="{escape(told(value.how))}">{escape(tr(value.method))}</span>'
    model = f"<span>{escape(tr('Model'))}</span><b>{escape(show(name, value.value))}</b>{band}{tag}"
    return f'{own}<div class="aiinfra-big">{model}</div>{notes}'


def refusal_html(refused: str) -> str:
    """Return why there is no prediction and what to do, calmly: the run itself needs none."""
    if "calibrate" in refused:
        what = tr(
            "This machine was not measured yet. Type <code>aiinfra calibrate</code> in a terminal (one minute), then start over."
        )
    else:
        what = escape(told(refused))
    return (
        f'<p class="aiinfra-note">{what} {escape(tr("You can run without it: the measurement does not need it."))}</p>'
    )
