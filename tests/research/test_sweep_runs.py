"""A finished sweep on real ranks: its table, what other programs read of it, and its archive, honest and hostile."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from aiinfra_widgets.errors import ControlError, DataError, UnknownNameError
from aiinfra_widgets.research import archive, table, trackers
from aiinfra_widgets.research.figures import draw
from aiinfra_widgets.research.fits import fit_table
from aiinfra_widgets.research.sweeps import Sweep, plan_sweep, rerun
from aiinfra_widgets.runs.reader import RunReader
from aiinfra_widgets.widgets.sweep_chart import chart

pytestmark = pytest.mark.mpi


def test_the_table_has_predicted_and_measured_side_by_side_and_a_row_for_what_was_refused(done_once: Sweep) -> None:
    whole = done_once.table()
    assert done_once.counts() == {"done": 4, "refused": 2}
    assert set(whole["trial"]) == set(range(6))
    rows = whole[(whole["quantity"] == "mean_response_s") & (whole["nodes"] < 200)]
    assert len(rows) == 4
    assert rows["settled"].all()
    assert (rows["measured"] > 0).all()
    assert (rows["measured_spread"].notna()).all()
    assert rows["relative_error"].to_numpy() == pytest.approx((rows["predicted"] / rows["measured"] - 1).to_numpy())
    refused = whole[whole["nodes"] == 200]
    assert set(refused["state"]) == {"refused"}
    assert refused["reason"].str.contains("nodes: got 20").all()
    assert refused["measured"].isna().all()
    assert json.loads(rows["versions"].iloc[0])["python"]
    assert rows["machine_id"].eq(done_once.machine.id).all()
    assert rows["git_commit"].iloc[0] is None or len(rows["git_commit"].iloc[0]) >= 40


def test_parquet_and_csv_say_the_same(done_once: Sweep) -> None:
    import duckdb
    import pandas as pd

    whole = done_once.table()
    with duckdb.connect() as connection:
        back = connection.execute(f"select * from '{done_once.path / 'table.parquet'}'").df()
    assert list(back.columns) == list(whole.columns)
    assert len(back) == len(whole)
    assert back["measured"].dropna().tolist() == whole["measured"].dropna().tolist()
    text = pd.read_csv(done_once.path / "table.csv")
    assert text["measured"].dropna().tolist() == pytest.approx(whole["measured"].dropna().tolist())


def test_a_formula_in_a_text_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    made = table.frame([{"reason": "=cmd|' /C calc'!A0", "measured": -1.5}, {"reason": "fine"}], [])
    lines = table.write_csv(made, tmp_path / "t.csv").read_text().splitlines()
    assert ",'=cmd" in lines[1] or ",\"'=cmd" in lines[1]
    assert "-1.5" in lines[1]
    assert "'-1.5" not in lines[1]


def test_an_archive_comes_back_whole_and_can_be_rerun(done: Sweep, tmp_path: Path) -> None:
    run = done.folder.runs / next(e.run for e in done.ends().values() if e.run)
    made = archive.pack([done.path, run], tmp_path / "x.zip")
    with pytest.raises(ControlError, match="already"):
        archive.pack([run], made)
    there = archive.unpack(made, runs=tmp_path / "runs", sweeps=tmp_path / "sweeps")
    assert [p.name for p in there] == ["copy", run.name]
    back = Sweep(there[0])
    assert back.counts() == done.counts()
    assert back.table()["measured"].dropna().tolist() == done.table()["measured"].dropna().tolist()
    reader = RunReader(there[1])
    reader.poll()
    assert reader.spec == RunReader(run).asked
    with pytest.raises(ControlError, match="left as it is"):
        archive.unpack(made, runs=tmp_path / "runs", sweeps=tmp_path / "sweeps")
    again = rerun(there[0], tmp_path / "again")
    assert [t.spec for t in again.trials] == [t.spec for t in done.trials]
    assert again.ends() == {}


HOSTILE = [
    "../evil",
    "/etc/evil",
    "RUN/../../evil",
    "RUN/a\\..\\evil",
    "RUN/.hidden",
    "RUN/con.txt",
    "other/x",
    "RUN/x\n",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(done: Sweep, tmp_path: Path, name: str) -> None:
    run = done.folder.runs / next(e.run for e in done.ends().values() if e.run)
    bad = _changed(archive.pack([run], tmp_path / "x.zip"), name.replace("RUN", run.name))
    target = tmp_path / "runs"
    with pytest.raises(DataError):
        archive.unpack(bad, runs=target)
    assert not list(target.rglob("*"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_bombs_and_changed_files_are_refused(done: Sweep, tmp_path: Path) -> None:
    run = done.folder.runs / next(e.run for e in done.ends().values() if e.run)
    made = archive.pack([run], tmp_path / "x.zip")
    link = zipfile.ZipInfo(f"{run.name}/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, text, says in (
        (link, "x", "a link"),
        (f"{run.name}/run.json", "{}", "named"),
        (f"{run.name}/big", "0" * 50_000_000, "index"),
    ):
        with pytest.raises(DataError, match=says):
            archive.unpack(_changed(made, name, text), runs=tmp_path / "runs")
    with pytest.raises(DataError, match="allowed"):
        archive.unpack(made, runs=tmp_path / "runs", most_bytes=1000)
    (tmp_path / "no.zip").write_bytes(b"PK" + bytes(100))
    with pytest.raises(DataError, match="not a readable archive"):
        archive.unpack(tmp_path / "no.zip", runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*"))


def _changed(path: Path, name: str | zipfile.ZipInfo, text: str = "x") -> Path:
    """Return a copy with one file more."""
    bad = path.with_name("bad.zip")
    bad.write_bytes(path.read_bytes())
    with zipfile.ZipFile(bad, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, text)
    return bad


def test_tensorboard_reads_what_was_measured(done_once: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = done_once.folder.runs / next(e.run for e in done_once.ends().values() if e.run)
    [folder] = trackers.to_tensorboard([run], tmp_path / "tb")
    reader = RunReader(run)
    reader.poll()
    seen = EventAccumulator(str(folder)).Reload()
    name = next(n for n in seen.Tags()["scalars"] if n.startswith("measured/"))
    ours = reader.ticks[["tick", name.split("/")[1]]].dropna()
    theirs = seen.Scalars(name)
    assert [s.step for s in theirs] == ours["tick"].tolist()
    assert [s.value for s in theirs] == pytest.approx(ours.iloc[:, 1].tolist())
    assert any(n.startswith("predicted/") for n in seen.Tags()["scalars"])
    with pytest.raises(ControlError, match="left as it is"):
        trackers.to_tensorboard([run], tmp_path / "tb")


@pytest.mark.slow
def test_mlflow_reads_what_was_measured_and_takes_a_run_once(done_once: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    run = done_once.folder.runs / next(e.run for e in done_once.ends().values() if e.run)
    [made] = trackers.to_mlflow([run], tmp_path / "ml.db")
    assert trackers.to_mlflow([run], tmp_path / "ml.db") == [made]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml.db'}")
    found = client.get_run(made).data
    assert found.params["nodes"] == str(RunReader(run).asked.nodes)
    assert found.tags["aiinfra_run"] == run.name
    assert any(k.startswith("measured/") for k in found.metrics)


def test_a_figure_of_a_page_says_which_run_each_point_is(done_once: Sweep) -> None:
    rows = done_once.table()
    law = fit_table(rows, "alpha-beta", x="nodes", y="mean_response_s")
    found = chart(rows, done_once.experiment, x="nodes", y="mean_response_s", fit=law)
    points = found.figure.select({"name": "measured "})[0].data
    mine = rows[(rows["quantity"] == "mean_response_s") & rows["measured"].notna() & rows["settled"].fillna(False)]
    assert points["run"] == list(mine["run"])
    assert list(points["value"]) == pytest.approx([1e3 * v for v in mine["measured"]])
    assert found.figure.yaxis[0].axis_label == "ms"
    assert {k.text for k in found.keys} >= {"Predicted", "Measured"}
    with pytest.raises(UnknownNameError, match="nodes"):
        chart(rows, done_once.experiment, x="nods", y="mean_response_s")


def test_a_figure_is_the_same_file_every_time(done_once: Sweep, tmp_path: Path) -> None:
    one, two = (draw(done_once.table(), done_once.experiment, x="nodes", y="mean_response_s") for _ in range(2))
    assert one.to_bytes("svg") == two.to_bytes("svg")
    assert one.save(tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ControlError, match="already"):
        one.save(tmp_path / "f.pdf")
    axes = one.figure.axes[0]
    assert "(ms)" in axes.get_ylabel()
    assert {t.get_text() for t in axes.get_legend().get_texts()} == {"predicted", "measured"}


def test_a_plan_never_goes_where_something_is(done: Sweep, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="holds a sweep already"):
        plan_sweep("serving", {"nodes": [1]}, out=done.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ControlError, match="not empty"):
        plan_sweep("serving", {"nodes": [1]}, out=tmp_path / "full")
