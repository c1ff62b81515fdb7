"""Files from elsewhere: pickles where data is expected, YAML that unfolds, archives that lead out, cells that are formulas."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from attacks import PWNED, as_user

from aiinfra_widgets.course.grading import Result
from aiinfra_widgets.course.sheet import csv_text
from aiinfra_widgets.errors import DataError, LabError, SpecError
from aiinfra_widgets.launch.session import spec_of
from aiinfra_widgets.machine.devices import found
from aiinfra_widgets.machine.profile import Machine, newest
from aiinfra_widgets.ranks import checkpoint
from aiinfra_widgets.reports.batch.plan import plan
from aiinfra_widgets.research import archive, table
from aiinfra_widgets.runs.layout import RunDir
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.runs.status import status
from aiinfra_widgets.workloads import archives


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> Any:
        return (Path.touch, (self.at,))


@pytest.fixture
def pwned(tmp_path: Path) -> Iterator[Path]:
    """What a planted pickle makes when it is read; nothing may have made it."""
    mark = tmp_path / PWNED
    yield mark
    assert not mark.exists(), "a planted pickle was read, and ran"


def payloads(mark: Path) -> dict[str, bytes]:
    """A pickle as it is, as torch and numpy would store it, and as a zip that torch takes for its own."""
    plain = pickle.dumps(Bomb(mark))
    numpy, torch = io.BytesIO(), io.BytesIO()
    np.save(numpy, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(torch, "w") as opened:
        opened.writestr("archive/data.pkl", plain)
        opened.writestr("archive/version", "3\n")
    return {"pickle": plain, "npy": numpy.getvalue(), "pt": torch.getvalue()}


def test_the_bomb_goes_off(tmp_path: Path) -> None:
    """Without this, the tests below could not fail."""
    pickle.loads(payloads(tmp_path / "x")["pickle"])
    assert (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["pickle", "npy", "pt"])
def test_a_pickle_in_the_place_of_a_checkpoint(run: RunDir, pwned: Path, kind: str) -> None:
    for name in ("state-00000-of-00001.safetensors", "meta.json", "LATEST", "state.pkl", ".metadata"):
        checkpoint.save(run, 1, {"nodes": 1}, 0, {"state": np.zeros(8, np.float32)})
        folder = run.checkpoints / (run.checkpoints / "LATEST").read_text()
        target = run.checkpoints / name if name == "LATEST" else folder / name
        target.write_bytes(payloads(pwned)[kind])
        if name in {"state.pkl", ".metadata"}:
            assert checkpoint.load(run) is not None, "what is nobody's is not read"
        else:
            with pytest.raises(LabError, match="is damaged"):
                checkpoint.load(run)
        for file in sorted(run.checkpoints.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()


@pytest.mark.parametrize("kind", ["pickle", "npy", "pt"])
def test_a_pickle_in_the_place_of_a_calibration_or_of_data(runs: Path, pwned: Path, kind: str, tmp_path: Path) -> None:

    machines = tmp_path / "machines"
    machines.mkdir()
    for name in ("here-20260101-000000.json", "here-20260102-000000.pkl"):
        (machines / name).write_bytes(payloads(pwned)[kind])
    assert newest(machines, "here") is None
    with pytest.raises((LabError, ValueError, KeyError, TypeError)):
        Machine.from_json({"id": payloads(pwned)[kind].hex(), "probes": "x"})
    (tmp_path / "train.npz").write_bytes(payloads(pwned)[kind])
    with pytest.raises(DataError):
        archives.read(tmp_path / "train.npz", 1, 1)
    np.savez(tmp_path / "train.npz", x=np.array([Bomb(pwned)], dtype=object), y=np.zeros(1), allow_pickle=True)
    with pytest.raises(DataError, match="unreadable"):
        archives.read(tmp_path / "train.npz", 1, 1)


@pytest.mark.parametrize("kind", ["pickle", "npy", "pt"])
def test_a_pickle_in_every_file_of_a_run(runs: Path, run: RunDir, pwned: Path, kind: str) -> None:
    bomb = payloads(pwned)[kind]
    places = [
        run.manifest, run.machine, run.prediction("x"), run.samples(0, 0), run.events(0, 0), run.records(0, 0, "jobs"),
        run.heartbeat(0, 0), run.log(0, 0), run.outcome(0), run.inbox / "1.json", run.work / "journal.pkl", run.taken / "1.json",
    ]  # fmt: skip
    for place in places:
        before = place.read_bytes() if place.exists() else None
        place.write_bytes(bomb)
        try:
            reader = RunReader(run)
            reader.poll()
            status(reader)
            reader.segments()
        except (LabError, ValueError, KeyError):
            pass  # said in words; what must not happen is that it runs
        place.unlink() if before is None else place.write_bytes(before)
    assert RunReader(run).asked == spec_of("training", {})


# --- YAML ------------------------------------------------------------------------------------------------------------
BOMBS = {
    "a constructor": ("reports: !!python/object/apply:os.system ['touch pwned']", "tag"),
    "another constructor": ("!!python/object/new:type {args: [x, !!python/tuple [], {}]}", "tag"),
    "laughs": ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nreports: [*b,*b,*b,*b]", "anchors and aliases"),
    "merged": ("x: &x {a: 1}\nreports:\n - <<: *x", "anchors and aliases"),
    "itself": ("reports: &a [*a]", "anchors and aliases"),
    "deep": ("reports: " + "[" * 20_000, "nested deeper"),
    "deep names": ("\n".join(" " * i + "a:" for i in range(400)), "nested deeper"),
    "large": ("reports:\n" + "# " + "x" * 1_100_000, "at most 1048576"),
    "binary": ("reports: !!binary aGVsbG8=", "tag"),
    "twice": ("reports: []\nreports: []", "second time"),
    "no text": ("\x00\x01", "not YAML"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_yaml_bomb_is_refused_with_its_line(runs: Path, kind: str, tmp_path: Path) -> None:
    text, says = BOMBS[kind]
    path = tmp_path / "batch.yml"
    path.write_text(text)
    with pytest.raises(SpecError) as refused:
        plan(path, found())
    assert says in str(refused.value)
    assert len(str(refused.value)) < 2000
    assert not (Path.cwd() / "pwned").exists()


def test_a_batch_file_that_never_ends_is_not_read(runs: Path, tmp_path: Path) -> None:
    endless = tmp_path / "endless.yml"
    endless.symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.yml")
    for name in ("endless.yml", "pipe.yml"):
        with pytest.raises(SpecError, match="cannot be read"):
            plan(tmp_path / name, found())


# --- archives --------------------------------------------------------------------------------------------------------
def with_member(good: Path, kind: int, name: str, text: bytes = b"/etc/passwd") -> Path:
    """Return the archive with one member more, of a kind that only Unix has, and in its index."""
    bad = good.with_name("bad.zip")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == archive.INDEX:
                about = json.loads(data)
                import hashlib

                about["files"][name] = hashlib.sha256(text).hexdigest()
                data = json.dumps(about).encode()
            new.writestr(info, data)
        more = zipfile.ZipInfo(name)
        more.external_attr = (kind | 0o777) << 16
        new.writestr(more, text)
    return bad


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=oct)
def test_links_and_devices_are_not_unpacked(run: RunDir, kind: int, tmp_path: Path) -> None:
    good = archive.pack([run.path], tmp_path / "good.zip")
    bad = with_member(good, kind, f"{run.id}/samples/x")
    with pytest.raises(DataError, match="a link, a device or encrypted; nothing was unpacked"):
        archive.unpack(bad, runs=tmp_path / "in")
    assert not (tmp_path / "in").exists() or not list((tmp_path / "in").iterdir())


def test_a_member_with_bits_of_another_user_is_ours_and_private(run: RunDir, tmp_path: Path) -> None:
    good = archive.pack([run.path], tmp_path / "good.zip")
    made = with_member(good, stat.S_IFREG | stat.S_ISUID | 0o7777, f"{run.id}/samples/tool", b"#!/bin/sh\n")
    [there] = archive.unpack(made, runs=tmp_path / "in")
    assert stat.S_IMODE((there / "samples" / "tool").stat().st_mode) & 0o7111 == 0
    assert stat.S_IMODE(there.stat().st_mode) == 0o700


def test_a_tar_is_no_archive_of_the_lab(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as opened:
        for name, kind in (("../evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("dev", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            opened.addfile(member)
    with pytest.raises(DataError, match="not a readable archive"):
        archive.unpack(path, runs=tmp_path / "in")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar"]


def test_the_package_unpacks_nothing_else(repo: Path) -> None:
    """`archive.py` writes what it finds in an archive; arrays are read in memory, capped, and nothing else opens one."""
    others = [
        p.relative_to(repo).as_posix()
        for p in (repo / "aiinfra_widgets").rglob("*.py")
        if any(word in p.read_text() for word in ("tarfile", "extractall", "unpack_archive", "zipfile."))
    ]
    assert sorted(others) == ["aiinfra_widgets/research/archive.py", "aiinfra_widgets/workloads/archives.py"]


# --- formulas --------------------------------------------------------------------------------------------------------
FORMULAS = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+cmd",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://x.invalid","y")',
)


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_an_export_is_a_formula(text: str, tmp_path: Path) -> None:
    made = table.frame([{"reason": text, "run": text, "machine_id": text, "nodes": text, "measured": -2.5}], ["nodes"])
    with table.write_csv(made, tmp_path / "t.csv").open(newline="") as file:
        [row] = list(csv.DictReader(file))
    assert row["measured"] == "-2.5"
    for column in ("reason", "run", "machine_id", "nodes"):
        assert row[column] == "'" + text.replace("\r", "\n"), column
    grades = csv_text([Result(student=text, lab=text, status="graded", note=text, run=text)]).splitlines()
    cells = [cell for row_ in csv.reader(io.StringIO("\n".join(grades[1:]))) for cell in row_]
    assert not [c for c in cells if c.startswith(table.FORMULA) and not c.lstrip("-").replace(".", "").isdigit()], cells


# --- a second user of the machine -----------------------------------------------------------------------------------
def test_another_user_reads_nothing_and_connects_to_nothing(stranger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a web front, its pool and its socket; the folders above are open to everybody, so nothing else protects it."""
    import shutil
    import socket
    import tempfile

    from attacks import running

    from aiinfra_widgets.launch.session import Session

    above = Path(tempfile.mkdtemp(prefix="open-"))
    above.chmod(0o755)
    monkeypatch.setenv("AIINFRA_HOME", str(above / "home"))
    session = Session(found())
    try:
        reader = running(session, "serving", nodes=1, arrivals="http")
        session.stop(reader)
        reader = running(session, "serving", nodes=1, arrivals="http")
        files = [p for p in above.rglob("*") if p != above]
        supervisor = psutil.Process(json.loads((session.pool.path / "supervisor.json").read_text())["pid"])  # type: ignore[union-attr]
        mine = {p.pid for p in (supervisor, *supervisor.children(recursive=True))}
        bound = (c for c in psutil.net_connections("unix") if c.pid in mine)
        sockets = {Path(str(c.laddr)) for c in bound if str(c.laddr).startswith("/")}
        assert len(files) > 30
        assert sockets, "rank 0 and the web front talk by a Unix socket"

        def try_all() -> str:
            got = []
            for path in files:
                for how in (os.O_RDONLY, os.O_WRONLY):
                    try:
                        os.close(os.open(path, how | os.O_NONBLOCK))
                        got.append(str(path))
                    except OSError:
                        continue
            for path in sockets:
                try:
                    with socket.socket(socket.AF_UNIX) as one:
                        one.connect(str(path))
                    got.append(str(path))
                except OSError:
                    continue
            for path in (above, *above.iterdir()):
                try:
                    (path / "planted").touch()
                    got.append(f"{path}/planted")
                except OSError:
                    continue
            return "\n".join(got) or "nothing"

        assert as_user(stranger, try_all) == "nothing"
        assert as_user(stranger, lambda: ",".join(os.listdir(above))) == "home", (
            "the stranger does come as far as the home"
        )
        monkeypatch.undo()
    finally:
        session.close()
        shutil.rmtree(above, ignore_errors=True)
