"""Run the test suites one after the other, each under its budget, and say at the end what passed and what was skipped.

    python tests/suites.py [--all] [SUITE ...]

A test belongs to one suite, by its strongest marker: security before faults before browser before cluster before labs before plans
before mpi; unit is the rest.
Every process that a suite starts carries a mark in its environment, so what outlives the suite is found, ended and
reported as a failure: no test may leave a rank behind. A suite that mostly waits (for timers of Slurm) runs beside one that computes.
The others run alone: ranks that wait for each other keep their cores busy, and two such suites together took as long as one after
the other, with more tests that lost a race.

Suites that race real processes against kills and clicks may try a single failed test a second time. It is never hidden:
what failed first is printed in full, and the summary names it. Such a line is a bug to be found, in the lab or in the test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPO = Path(__file__).resolve().parent.parent
ARTIFACTS = REPO / "test-artifacts"
MARK = "AIINFRA_TEST_SUITE"
PROFILE = "AIINFRA_TEST_PROFILE"


@dataclass(frozen=True)
class Suite:
    """Tests that are run by one pytest, with the minutes they may take on two cores."""

    name: str
    what: str
    markers: str
    minutes: float
    parallel: str = ""  # how two pytest workers share its tests: whole files, or one test after the other
    second_tries: int = 0  # failed tests, at most, that are run once more
    calibrated: bool = False  # its tests predict, from a profile that is made once for all suites
    beside: str = ""  # the suite at whose side it runs, because its own tests mostly wait


#: The budgets are shared by everybody who adds tests; what does not fit is marked `slow` and runs in `make test-all`.
SUITES = (
    Suite(
        "unit",
        "models, records, command line, tree",
        "not (mpi or labs or browser or faults or security or cluster)",
        6,
        parallel="loadfile",
    ),
    Suite(
        "mpi",
        "real ranks",
        "mpi and not (plans or labs or browser or faults or security or cluster)",
        7,
        second_tries=1,
    ),
    Suite("plans", "every strategy of training on real ranks", "plans", 4, second_tries=1),
    Suite(
        "labs",
        "notebooks, headless",
        "labs and not (browser or faults or cluster)",
        4,
        parallel="worksteal",  # a notebook mostly waits for its run
        second_tries=1,
        calibrated=True,
    ),
    Suite(
        "cluster",
        "a real Slurm, several hosts",
        "cluster and not faults",
        6,
        second_tries=1,
        calibrated=True,
        beside="unit",
    ),
    Suite("browser", "JupyterLab in a real Chromium", "browser and not faults", 7, second_tries=1, calibrated=True),
    Suite("security", "what an attacker would try", "security", 3, second_tries=1),
    Suite("faults", "kills, full disks, bad input", "faults", 10, second_tries=1),
)


@dataclass
class Outcome:
    """What became of one suite."""

    suite: Suite
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    failed_once: list[str] = field(default_factory=list)


def marked(value: str) -> list[psutil.Process]:
    """Return the living processes whose environment carries our mark with `value`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or somebody else's
    return found


def end_survivors(value: str, wait_s: float) -> list[str]:
    """Give what carries the mark `wait_s` to go away by itself, kill the rest, and return its command lines."""
    until = time.monotonic() + wait_s
    while (left := marked(value)) and time.monotonic() < until:
        time.sleep(0.2)
    lines = []
    for process in left:
        try:
            lines.append(f"pid {process.pid}: {' '.join(process.cmdline())[:160]}")
            process.kill()
        except psutil.Error:
            continue
    return lines


def read_results(path: Path, outcome: Outcome) -> None:
    """Add the counts and the reasons for skipping from pytest's XML file; a missing file is a problem by itself."""
    if not path.exists():
        outcome.problems.append("pytest ended without a result file")
        return
    for case in ET.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        kind = next((k for k in ("failure", "error", "skipped") if k in kinds), "passed")
        outcome.counts[kind] += 1
        if kind == "skipped":
            outcome.skipped[case.find("skipped").get("message", "no reason given")] += 1  # type: ignore[union-attr]


def run_together(suites: list[Suite], everything: bool) -> list[Outcome]:
    """Run suites at the same time; what those behind the first one print is printed when it is over.

    Ctrl-C reaches every pytest by itself; each suite then ends what outlives it.
    """
    logs = [None, *(ARTIFACTS / f"{suite.name}.log" for suite in suites[1:])]
    with ThreadPoolExecutor(len(suites)) as at_once:
        outcomes = list(at_once.map(run_suite, suites, [everything] * len(suites), logs))
    for log in logs[1:]:
        print(log.read_text() if log else "", flush=True)
    return outcomes


def run_suite(suite: Suite, everything: bool, log: Path | None) -> Outcome:
    """Run one suite and judge it; what it prints goes to `log` where there is one."""
    outcome, value, xml = Outcome(suite), uuid.uuid4().hex, ARTIFACTS / f"{suite.name}.xml"
    budget = "no budget" if everything else f"budget {suite.minutes:g} min"
    print(f"\n== {suite.name}: {suite.what} ({budget})", flush=True)
    xml.unlink(missing_ok=True)
    markers = suite.markers if everything else f"({suite.markers}) and not slow"
    argv = [sys.executable, "-m", "pytest", "-m", markers, f"--junitxml={xml}", "--durations=5", "--durations-min=2"]
    if suite.parallel and (os.cpu_count() or 1) > 1:
        argv += ["-n", "2", "--dist", suite.parallel]
    # Twice the budget is where waiting stops: a busy machine may take longer, a hang may not take forever.
    limit_s = 3 * 3600.0 if everything else 120 * suite.minutes
    start = time.monotonic()
    with log.open("w") if log else contextlib.nullcontext() as out:
        process = subprocess.Popen(argv, cwd=REPO, env={**os.environ, MARK: value}, stdout=out, stderr=out)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
        outcome.problems.append(f"stopped after {limit_s / 60:g} min")
        end_survivors(value, 0)
        process.wait()
    outcome.seconds = time.monotonic() - start
    read_results(xml, outcome)
    if code == 5:
        outcome.problems.append("no test was found, and an empty suite shows nothing")
    elif code and not tried_again(outcome, value, limit_s):
        outcome.problems.append(f"pytest ended with code {code}")
    outcome.problems += [f"left running: {line}" for line in end_survivors(value, 5)]
    return outcome


def tried_again(outcome: Outcome, value: str, limit_s: float) -> bool:
    """Run the failed tests once more where the suite allows it and they are few; whether they passed then."""
    names = sorted(
        {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            for case in ET.parse(ARTIFACTS / f"{outcome.suite.name}.xml").iter("testcase")
            if {child.tag for child in case} & {"failure", "error"}
        }
    )  # one that fails and then leaves something behind is one test
    if not 0 < len(names) <= outcome.suite.second_tries or outcome.problems:
        return False
    print(f"\n== {outcome.suite.name}: {len(names)} failed; a second try, and the summary says so", flush=True)
    end_survivors(value, 5)
    again = [sys.executable, "-m", "pytest", *names]
    if subprocess.run(again, cwd=REPO, env={**os.environ, MARK: value}, timeout=limit_s, check=False).returncode:
        return False
    outcome.failed_once = names
    outcome.counts["passed"] += len(names)
    outcome.counts["failure"] = outcome.counts["error"] = 0
    return True


def calibrate(home: Path) -> None:
    """Measure this machine shortly, and name the profile to the tests; where that fails, they do it themselves and say why."""
    print("\n== measuring this machine, once for all suites", flush=True)
    argv = [str(Path(sys.executable).parent / "aiinfra"), "calibrate", "--seconds", "25"]
    done = subprocess.run(argv, env={**os.environ, "AIINFRA_HOME": str(home)}, capture_output=True, check=False)
    found = sorted((home / "machines").glob("*.json"))
    if done.returncode == 0 and found:
        os.environ[PROFILE] = str(found[-1])


def summarise(outcomes: list[Outcome], everything: bool) -> bool:
    """Print the table, then what was skipped and why, then the problems; return whether all is well."""
    print("\n== summary\nsuite     passed  failed  skipped   minutes  budget")
    for o in outcomes:
        failed = o.counts["failure"] + o.counts["error"]
        over = "" if everything or o.seconds <= 60 * o.suite.minutes else "  over its budget: mark something slow"
        print(
            f"{o.suite.name:9} {o.counts['passed']:6d}  {failed:6d}  {o.counts['skipped']:7d}"
            f"  {o.seconds / 60:8.1f}  {o.suite.minutes:6g}{over}"
        )
    if any(o.skipped for o in outcomes):
        print("\nskipped, and why:")
        for o in outcomes:
            for reason, count in o.skipped.most_common():
                print(f"  {o.suite.name}: {count} x {reason}")
    if any(o.failed_once for o in outcomes):
        print("\nfailed once, and passed when run again (to be looked into):")
        print("\n".join(f"  {o.suite.name}: {name}" for o in outcomes for name in o.failed_once))
    problems = [f"  {o.suite.name}: {p}" for o in outcomes for p in o.problems]
    print("\nFAILED:\n" + "\n".join(problems) if problems else "\nall suites passed", flush=True)
    return not problems


def main() -> int:
    """Return 0 when every suite that was asked for passed."""
    names = [s.name for s in SUITES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also what is marked slow, without budgets")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="of " + ", ".join(names) + "; default: all of them")
    args = parser.parse_args()
    if unknown := set(args.suites) - set(names):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    ARTIFACTS.mkdir(exist_ok=True)
    asked = [s for s in SUITES if not args.suites or s.name in args.suites]
    with tempfile.TemporaryDirectory(prefix="aiinfra-test-") as home:
        if any(s.calibrated for s in asked) and PROFILE not in os.environ:
            calibrate(Path(home))
        beside = {s.name: [] if args.all else [o for o in asked if o.beside == s.name] for s in asked}
        behind = [o for others in beside.values() for o in others]
        outcomes = [o for s in asked if s not in behind for o in run_together([s, *beside[s.name]], args.all)]
    return 0 if summarise(outcomes, args.all) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(3)
