"""Encoding any number of inputs: the codes, the shards, what a kill leaves, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from groundstate.encode import MANIFEST, encode
from groundstate.errors import InputError, RunError
from groundstate.formats import Formats
from groundstate.model import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.formats.npy import NpyWriter
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

SAMPLES, INPUTS, UNITS = 230, 12, 8


def model(seed: int = 0) -> Model:
    terms = {"reconstruction": SquaredError(), "sparsity": L1(weight=0.3)}
    made = Model(terms=terms, decoder=LinearDecoder(units=UNITS), solver=Fista(tolerance=1e-6))
    return made.build((INPUTS,), seed=seed)


@pytest.fixture
def x(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((SAMPLES, INPUTS)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    return tmp_path / "x.npy"


def expected(x: Path) -> np.ndarray:
    return model().encode(torch.from_numpy(np.load(x))).numpy()


def read_shards(folder: Path) -> np.ndarray:
    column = pq.read_table(folder, columns=["code"])["code"]
    return column.combine_chunks().flatten().to_numpy().reshape(-1, UNITS)


def test_one_file_and_a_folder_of_shards_hold_the_same_codes(x: Path, tmp_path: Path) -> None:
    one = encode(model(), [x], tmp_path / "z.npy", batch_size=50)
    assert (one.shape, one.shards) == ((SAMPLES, UNITS), 1)
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected(x), atol=1e-4)
    many = encode(model(), [x], tmp_path / "z", batch_size=50, shard_rows=100)
    assert (many.shards, many.kept) == (3, 0)
    np.testing.assert_allclose(read_shards(tmp_path / "z"), expected(x), atol=1e-4)
    manifest = json.loads((tmp_path / "z" / MANIFEST).read_text())
    assert manifest["complete"]
    assert [(shard["first"], shard["samples"]) for shard in manifest["shards"]] == [(0, 100), (100, 100), (200, 30)]


def test_inputs_of_many_files_are_one_sequence(x: Path, tmp_path: Path) -> None:
    rows = np.load(x)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number, part in enumerate(np.split(rows, [7, 90, 91])):
        np.save(parts / f"{number}.npy", part)
    for number, given in enumerate(([parts], [parts / "*.npy"], sorted(parts.iterdir()))):
        target = tmp_path / f"{number}.npy"
        encode(model(), given, target, batch_size=40)
        np.testing.assert_allclose(np.load(target), expected(x), atol=1e-4)


def test_progress_is_told_in_order(x: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    encode(model(), [x], tmp_path / "z", batch_size=100, shard_rows=150, progress=lambda *at: told.append(at))
    assert told == [(done, SAMPLES) for done in (100, 150, 230)]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_encode import model
from groundstate.encode import encode

def progress(done, samples):
    if done > 150:
        os.kill(os.getpid(), signal.SIGKILL)

encode(model(), [Path("x.npy")], Path("z"), batch_size=20, shard_rows=60, progress=progress)
"""


def test_a_kill_keeps_the_whole_shards_and_the_rest_comes_out_the_same(x: Path, tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "z"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert not manifest["complete"]
    assert [shard["file"] for shard in manifest["shards"]] == ["codes-00000.parquet", "codes-00001.parquet"]
    (folder / ".codes-00002.parquet.1.tmp").write_bytes(b"torn")
    times = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    again = encode(model(), [x], folder, batch_size=20, shard_rows=60)
    assert again.kept == 120
    assert all((folder / name).stat().st_mtime_ns == time for name, time in times.items() if name < "codes-00002")
    assert list(folder.glob(".*")) == []
    encode(model(), [x], tmp_path / "whole", batch_size=20, shard_rows=60)
    assert np.array_equal(read_shards(folder), read_shards(tmp_path / "whole"))
    assert encode(model(), [x], folder, batch_size=20, shard_rows=60).kept == SAMPLES


def test_a_shard_that_is_cut_off_is_made_again(x: Path, tmp_path: Path) -> None:
    folder = tmp_path / "z"
    encode(model(), [x], folder, shard_rows=100)
    before = read_shards(folder)
    (folder / "codes-00001.parquet").write_bytes(b"cut")
    assert encode(model(), [x], folder, shard_rows=100).kept == 130
    assert np.array_equal(read_shards(folder), before)


@pytest.mark.parametrize("change", ["model", "inputs", "shards", "dtype", "options"])
def test_codes_of_something_else_are_not_added_to(x: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "z"
    encode(model(), [x], folder, shard_rows=100)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other, rows, formats = model(), 100, Formats()
    if change == "model":
        other = model(seed=1)
    elif change == "inputs":
        np.save(x, np.load(x) + 1)
    elif change == "shards":
        rows = 99
    elif change == "dtype":
        other = other.double()
    else:
        formats = Formats(writing={"layout": "sparse"})
    with pytest.raises(InputError, match="holds codes that these cannot be added to") as error:
        encode(other, [x], folder, shard_rows=rows, formats=formats)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_with_other_files_is_refused(x: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        encode(model(), [x], folder)
    assert [file.name for file in folder.iterdir()] == ["letter.txt"]
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="is no manifest of encode"):
        encode(model(), [x], folder)


@pytest.mark.parametrize(
    ("given", "output", "message"),
    [
        ("none.npy", "z.npy", "there is no file or folder none.npy"),
        ("none-*.npy", "z.npy", r"no file matches none-\*.npy"),
        ("empty", "z.npy", "the folder empty holds no file that a format reads"),
        ("x.txt", "z.npy", "no format reads files that end in '.txt'"),
        ("x.npy", "z.xyz", "no format writes files that end in '.xyz'"),
        ("x.npy", "z.png", "no format writes files that end in '.png'"),
        ("x.npy", "nowhere/z.npy", "the folder nowhere does not exist"),
        ("mixed", "z.npy", "the inputs are of several formats"),
        ("shapes", "z.npy", r"shapes/b.npy holds inputs of shape \(5,\); this model takes \(12,\) \(shapes/a.npy fits"),
        ("nan.npy", "z.npy", "nan.npy, row 103: NaN or infinity"),
        ("rowless.npy", "z.npy", "rowless.npy holds no inputs"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    x: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, output: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = np.load(x)
    for folder in ("empty", "mixed", "shapes"):
        Path(folder).mkdir()
    Path("x.txt").write_text("1")
    np.save("mixed/a.npy", rows)
    np.savez("mixed/b.npz", x=rows)
    np.save("shapes/a.npy", rows)
    np.save("shapes/b.npy", rows[:, :5])
    np.save("rowless.npy", rows[:0])
    rows[103, 3] = np.nan
    np.save("nan.npy", rows)
    with pytest.raises(InputError, match=message) as error:
        encode(model(), [Path(given)], Path(output))
    assert "\n" not in str(error.value)
    assert not Path(output).exists()
    assert list(tmp_path.glob(".*")) == []


def test_a_row_that_is_bad_in_a_later_file_is_named_there(x: Path, tmp_path: Path) -> None:
    rows = np.load(x)
    rows[3, 0] = np.inf
    np.save(tmp_path / "y.npy", rows)
    with pytest.raises(InputError, match=r"y\.npy, row 3: NaN or infinity"):
        encode(model(), [x, tmp_path / "y.npy"], tmp_path / "z.npy", batch_size=100)


def test_options_of_a_format_are_checked() -> None:
    with pytest.raises(InputError, match="'colums': is no option of format 'parquet'; did you mean 'columns'"):
        Formats(reading={"colums": "a"}).reader(Path("x.parquet"))
    with pytest.raises(InputError, match="option 'layout'"):
        Formats(writing={"layout": "thin"}).writer(Path("x.parquet"))
    with pytest.raises(InputError, match="image"):
        Formats(writing={"type": "image"}).writer(Path("x"))


def test_many_codes_do_not_fit_in_one_file_that_is_made_in_memory(x: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder"):
        encode(model(), [x], tmp_path / "z.npz", shard_rows=100)
    assert encode(model(), [x], tmp_path / "z.npz").shards == 1


def test_a_full_disk_is_said_and_the_whole_shards_are_kept(
    x: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = NpyWriter.append

    def full(self: NpyWriter, codes: np.ndarray) -> None:
        if (tmp_path / "z" / "codes-00000.npy").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, codes)

    monkeypatch.setattr(NpyWriter, "append", full)
    formats = Formats(writing={"type": "npy"})
    with pytest.raises(RunError, match="No space left on device; the finished shards are kept"):
        encode(model(), [x], tmp_path / "z", formats=formats, shard_rows=100)
    monkeypatch.undo()
    assert sorted(file.name for file in (tmp_path / "z").iterdir()) == [MANIFEST, "codes-00000.npy"]
    assert encode(model(), [x], tmp_path / "z", formats=formats, shard_rows=100).kept == 100
