"""Archives as users really have them, and a cache that several processes fill at once."""

import errno
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from aiinfra_widgets.errors import DataError, StorageError
from aiinfra_widgets.workloads import archives, nets

X, Y = np.zeros((8, 100), np.float32), np.zeros((8, 1), np.float32)


def save(path, **arrays):
    np.savez(path, **arrays)


def load(folder, cache):
    return nets.load("dense-100-64-1", seed=0, cache=cache, data_dir=folder)


@pytest.fixture
def folder(tmp_path):
    """A folder with a good test.npz, so that only train.npz decides."""
    save(tmp_path / "test.npz", x=X, y=Y)
    return tmp_path


def test_the_users_own_numbers_are_what_is_trained_on(folder, cache):
    x = np.arange(300, dtype=np.int16).reshape(3, 100)
    save(folder / "train.npz", x=x, y=np.array([1.0, 2.0, 3.0]), other=np.array(["kept", "out"]))
    w = load(folder, cache)
    assert w.train[0].tolist() == x.tolist()
    assert w.train[1].tolist() == [[1.0], [2.0], [3.0]]
    assert tuple(w.test[0].shape) == (8, 100)


def with_nan(x):
    x = x.copy()
    x[5, 3] = np.nan
    return x


BAD = {
    "wrong-columns": ({"x": X[:, :99], "y": Y}, r"x has shape \(8, 99\)"),
    "one-dimension": ({"x": X[0], "y": Y}, r"x has shape \(100,\)"),
    "scalar": ({"x": np.float32(1), "y": Y}, r"x has shape \(\)"),
    "no-samples": ({"x": X[:0], "y": Y[:0]}, r"x has shape \(0, 100\)"),
    "two-targets": ({"x": X, "y": np.zeros((8, 2))}, r"y has shape \(8, 2\)"),
    "unequal-lengths": ({"x": X, "y": Y[:7]}, "x has 8 samples and y has 7"),
    "text": ({"x": X.astype(str), "y": Y}, "dtype <U"),
    "complex": ({"x": X.astype(complex), "y": Y}, "dtype complex128"),
    "bool": ({"x": X, "y": Y.astype(bool)}, "dtype bool"),
    "pickled-objects": ({"x": X.astype(object), "y": Y}, "Object arrays cannot be loaded"),
    "nan": ({"x": with_nan(X), "y": Y}, "x has NaN.* in 1 rows, first row 5"),
    "infinity": ({"x": X, "y": Y + np.inf}, "y has NaN, infinity.* in 8 rows"),
    "beyond-float32": ({"x": X + np.float64(1e300), "y": Y}, "beyond float32"),
    "other-names": ({"features": X, "y": Y}, "holds the arrays features, y; .*name the arrays x and y"),
}


@pytest.mark.parametrize(("arrays", "found"), BAD.values(), ids=BAD.keys())
def test_wrong_content_is_refused_with_path_and_next_step(folder, cache, arrays, found):
    save(folder / "train.npz", **arrays)
    with pytest.raises(DataError, match=found) as caught:
        load(folder, cache)
    text = str(caught.value)
    assert str(folder / "train.npz") in text
    assert "expected an .npz archive" in text
    assert "(N, 100)" in text
    assert text.rsplit("; ", 1)[1].startswith(("correct the array", "name the arrays", "copy the file")), "no next step"


@pytest.mark.parametrize("keep", [0, 1, 200, 2000, -1, -30])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_archive_at_any_length(folder, cache, keep, packed):
    rng = np.random.default_rng(0)
    (np.savez_compressed if packed else np.savez)(folder / "train.npz", x=rng.random((8, 100)), y=Y)
    whole = (folder / "train.npz").read_bytes()
    (folder / "train.npz").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"truncated.*copy the file again"):
        load(folder, cache)


def test_flipped_bytes_are_noticed(folder, cache):
    save(folder / "train.npz", x=X, y=Y)
    data = bytearray((folder / "train.npz").read_bytes())
    data[1000] ^= 0xFF
    (folder / "train.npz").write_bytes(data)
    with pytest.raises(DataError, match="unreadable or truncated"):
        load(folder, cache)


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"\x80\x04\x95pickle", b"\x93NUMPY\x01\x00"])
def test_another_kind_of_file(folder, cache, content):
    (folder / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match="unreadable or truncated"):
        load(folder, cache)


def test_header_that_promises_more_than_there_is(folder, cache):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 100), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match="unreadable or truncated"):
        load(folder, cache)


def test_archive_that_unpacks_to_too_much_is_not_unpacked(folder, cache, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    save(folder / "train.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"unpacks to .* GiB, the limit is .*save fewer samples"):
        load(folder, cache)


def test_missing_file_names_what_is_there(folder, cache):
    with pytest.raises(DataError, match=r"no such file \(archives there: test.npz\).*numpy.savez\('train.npz'"):
        load(folder, cache)
    with pytest.raises(DataError, match=r"no such file \(the folder does not exist\)"):
        load(folder / "nowhere", cache)
    with pytest.raises(DataError, match=r"no such file \(the folder does not exist\)"):
        load(folder / "test.npz", cache)


def test_a_folder_or_a_forbidden_file_in_its_place(folder, cache, monkeypatch):
    (folder / "train.npz").mkdir()
    with pytest.raises(DataError, match="unreadable"):
        load(folder, cache)

    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(archives.zipfile, "ZipFile", forbidden)  # a superuser may read anything, so pretend
    with pytest.raises(DataError, match=r"not readable by this user.*change its permissions"):
        load(folder, cache)


def test_data_dir_of_a_workload_that_reads_none(folder, cache):
    with pytest.raises(DataError, match=r"'digits-cnn' brings its own data.*leave data_dir out"):
        nets.load("digits-cnn", seed=0, cache=cache, data_dir=folder)


def test_damaged_cache_is_repaired(tmp_path):
    first = nets.load("dense-100-64-1", seed=0, cache=tmp_path)
    (path,) = tmp_path.glob("*/train.npz")
    path.write_bytes(path.read_bytes()[:1000])
    again = nets.load("dense-100-64-1", seed=0, cache=tmp_path)
    assert first.train[0].equal(again.train[0])
    assert sorted(p.name for p in path.parent.iterdir()) == ["test.npz", "train.npz"]


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another cache folder"):
        nets.load("digits-cnn", seed=0, cache=tmp_path / "file")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives.np, "savez", full)
    with pytest.raises(StorageError, match=r"No space left on device.*writable folder with room"):
        nets.load("dense-100-64-1", seed=0, cache=tmp_path / "full")
    assert [p for p in (tmp_path / "full").rglob("*") if p.is_file()] == [], "a part file was left behind"


def test_several_processes_fill_an_empty_cache_at_once(tmp_path):
    code = (
        "import sys, time, numpy as np; from pathlib import Path\n"
        "from aiinfra_widgets.workloads import catalog, datasets\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for name in ('dense-100-64-1', 'digits-cnn'):\n"
        "    for x, y in datasets.load(catalog.facts(name), seed=0, cache=Path(sys.argv[1])): print(x.sum(), y.sum())\n"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:  # all begin together
        rank.stdin.write("\n")
        rank.stdin.flush()
    results = [rank.communicate(timeout=100) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4, results
    assert len({out for out, _ in results}) == 1
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["digits-v1.npz", "test.npz", "train.npz"]
