"""The texts of the launcher cards and the sidebar, in the reader's language: the page asks for them once."""

from __future__ import annotations

from ..texts import tr


def words() -> dict[str, str]:
    """Return the translation of every text that `labextension/` shows, by its English form; `{name}` stands for a value."""
    return {
        "AI infrastructure lab": tr("AI infrastructure lab"),
        "Runs": tr("Runs"),
        "Labs": tr("Labs"),
        "Running": tr("Running"),
        "Ended": tr("Ended"),
        "Nodes": tr("Nodes"),
        "One node more": tr("One node more"),
        "One node less": tr("One node less"),
        "Pause": tr("Pause"),
        "Continue": tr("Continue"),
        "Stop": tr("Stop"),
        "Open folder": tr("Open folder"),
        "Asked ...": tr("Asked ..."),
        "Done at {tick} {at}.": tr("Done at {tick} {at}."),
        "Refused: {reason}": tr("Refused: {reason}"),
        "Asked, not decided yet.": tr("Asked, not decided yet."),
        "Nothing runs.": tr("Nothing runs."),
        "Open a lab and press Run, or start a run in a terminal: aiinfra run training --nodes 2": tr(
            "Open a lab and press Run, or start a run in a terminal: aiinfra run training --nodes 2"
        ),
        "so far": tr("so far"),
        "Ends in {time} at the administrator's limit.": tr("Ends in {time} at the administrator's limit."),
        "At most {most} nodes: {why}": tr("At most {most} nodes: {why}"),
        "The server does not answer: {reason}": tr("The server does not answer: {reason}"),
        "Your copy of the lab is open.": tr("Your copy of the lab is open."),
        "Start over with a fresh copy": tr("Start over with a fresh copy"),
        "Fresh copy of a lab": tr("Fresh copy of a lab"),
        "A fresh copy: {path}": tr("A fresh copy: {path}"),
        "A fresh copy of {title}; yours stays as it is": tr("A fresh copy of {title}; yours stays as it is"),
        "Copied to {path}": tr("Copied to {path}"),
        "The folder is {folder}": tr("The folder is {folder}"),
        "about {minutes}": tr("about {minutes}"),
        "new": tr("new"),
        "starting": tr("starting"),
        "running": tr("running"),
        "paused": tr("paused"),
        "stalled": tr("stalled"),
        "degraded": tr("degraded"),
        "done": tr("done"),
        "stopped": tr("stopped"),
        "failed": tr("failed"),
        "interrupted": tr("interrupted"),
    }
