"""One tree of errors. Each is also a builtin, and each says what failed, the value seen, what is allowed, the next step.

All arguments are positional strings, so that an error survives pickling between ranks.
"""

from __future__ import annotations

from collections.abc import Iterable


class LabError(Exception):
    """Root of every error that the lab raises on purpose; its text is meant for the person, not for a log."""


class UnknownNameError(LabError, LookupError):
    """A name that is not in a registry, a catalog or a choice; the message lists the near matches."""


class ModelInputError(LabError, ValueError):
    """An input outside a model's domain."""


class SpecError(LabError, ValueError):
    """A Spec that does not validate; one line for each field that is wrong."""


class CatalogError(LabError, ValueError):
    """A catalog row that lacks a unit, a source or a date, or does not parse; carries file:line."""


class DataError(LabError, ValueError):
    """A data file that cannot be read, is truncated, or does not hold what was declared."""


class RunFormatError(LabError, ValueError):
    """A run directory that is not one, or of a format version that this release does not read."""


class StorageError(LabError, OSError):
    """A folder that cannot be written: full, read-only, or not there."""


class ControlError(LabError, ValueError):
    """A request to a run that cannot be honoured: the field is not live, the verb unknown, the run over."""


class StateLostError(LabError):
    """The state that dead nodes held is nowhere among the living, or too few live to go on with it."""


class LaunchError(LabError, RuntimeError):
    """Ranks that could not be started, or ended before they should.

    Args are (what, command, exit code or None, tail of the output, hint).
    """

    def __init__(self, what: str, argv: list[str], rc: int | None = None, tail: str = "", hint: str = "") -> None:
        super().__init__(what, argv, rc, tail, hint)

    def __str__(self) -> str:
        what, argv, rc, tail, hint = self.args
        lines = [what if rc is None else f"{what} (exit code {rc})"]
        if argv:
            lines.append("command: " + " ".join(argv))
        if tail:
            lines.append("last output:\n" + tail)
        if hint:
            lines.append("try: " + hint)
        return "\n".join(lines)


class AdmissionError(LabError, ValueError):
    """More ranks than this machine's stated limit; raised before anything is started."""


class BusyError(AdmissionError):
    """Ranks that this machine takes, but not now: others have what they need. Waiting helps."""


class ProbeError(LabError, RuntimeError):
    """A counter or a driver that cannot be read: not there, no permission, not supported."""


class ReportError(LabError, RuntimeError):
    """A report whose parameters are wrong or whose notebook failed."""


#: A match that is less like the word by this much than the best one is not worth a mention.
MUCH_LESS_LIKE = 0.25


def near(name: str, known: Iterable[str]) -> str:
    """Return the sentence that helps after a misspelt name: the near matches, else everything there is.

    Args:
        name: What was asked for.
        known: What there is.
    """
    import difflib  # only when somebody misspelt something

    names = sorted(str(k) for k in known)
    folded = {n.casefold(): n for n in names}  # "H100-SXM5-80G" is near "h100-sxm5-80gb", whatever its case
    asked = str(name).casefold()
    close = difflib.get_close_matches(asked, folded, n=3, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, c, asked).ratio() for c in close]  # best first
    close = [c for c, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - MUCH_LESS_LIKE]
    if close:
        these = " or ".join(repr(folded[c]) for c in close)
        return f"did you mean {these}?"
    return "known: " + (", ".join(names) if names else "none")
