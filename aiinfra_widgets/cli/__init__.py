"""`aiinfra`: the lab from a terminal. Results go to standard output; progress and messages to standard error.

Exit codes: 0 done, 1 bad input, 2 failed run or report, 3 interrupted.
"""

from __future__ import annotations

import sys

DONE, BAD_INPUT, FAILED, INTERRUPTED = 0, 1, 2, 3


def main() -> None:
    """Run one command; turn the lab's errors into one message and an exit code."""
    from ..errors import LabError, LaunchError, ReportError
    from .early import refuse

    try:
        refuse(sys.argv[1:])
    except LabError as error:
        print(f"aiinfra: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)

    import typer

    from .app import app

    usage_error = typer.BadParameter.__mro__[2]  # typer's own ClickException, wherever this release keeps it
    try:
        code = app(_joined(sys.argv[1:]), prog_name="aiinfra", standalone_mode=False)
    except typer.Exit as end:
        code = end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except LabError as error:
        print(f"aiinfra: {error}", file=sys.stderr)
        code = FAILED if isinstance(error, LaunchError | ReportError) else BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()
        code = DONE
    except Exception as error:
        if not isinstance(error, usage_error):
            raise
        error.show(sys.stderr)  # type: ignore[attr-defined]
        code = BAD_INPUT
    sys.exit(code if isinstance(code, int) else DONE)


def _joined(words: list[str]) -> list[str]:
    """Write papermill's `-p NAME VALUE` as `-p NAME=VALUE`."""
    out = list(words)
    for i in range(len(out) - 3, -1, -1):
        if out[i] in {"-p", "--parameter"} and "=" not in out[i + 1]:
            out[i + 1 : i + 3] = [f"{out[i + 1]}={out[i + 2]}"]
    return out
