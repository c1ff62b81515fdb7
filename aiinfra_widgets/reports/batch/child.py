"""The process that makes one report of a batch: `python -m aiinfra_widgets.reports.batch.child JOB.json`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ...errors import LabError
from ..pdf import to_pdf
from ..run import report
from .folder import MARK, end_marked

DONE, CANNOT, FAILED = 0, 1, 2


def main(path: Path) -> int:
    """Make the report that `path` describes, in the folder of that file; return 0 done, 1 not made, 2 failed."""
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        done = report(
            Path(job["notebook"]),
            job["given"],
            path.parent,
            timeout_s=job["cell_s"],
            wall_s=job["wall_s"],
            progress=_say,
        )
        if job["pdf"]:
            to_pdf(done.html)
    except LabError as error:
        print(f"{type(error).__name__}: {str(error).replace(chr(10), '; ')}", file=sys.stderr)
        return CANNOT
    finally:
        end_marked(os.environ.get(MARK, ""))
    if done.error:
        print(done.error, file=sys.stderr)
    return DONE if done.ok else FAILED


def _say(done: int, total: int, what: str) -> None:
    print(f"{done} of {total} cells: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
