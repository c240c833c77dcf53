"""Arrays from .npy and .npz files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler, normalize

from groundstate.errors import InputError
from groundstate_plugins.data import npy
from groundstate_plugins.data.npy import WINDOW, Npy, shuffled


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def save(file, array, **more):
    if more:
        np.savez(file, x=array, **more)
    else:
        np.save(file, array)
    return file


def whole(source) -> dict[str, np.ndarray]:
    batch = source.read(torch.arange(len(source)))
    return {name: value.numpy() for name, value in batch.fields.items()}


def test_every_row_is_in_one_part(tmp_path, x):
    splits = Npy(path=save(tmp_path / "x.npy", x), validation=5, test=0.25).load(0)
    parts = {name: whole(source)["x"] for name, source in splits.parts().items()}
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 25, "validation": 5, "test": 10}
    found = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(found[np.lexsort(found.T)], x[np.lexsort(x.T)])
    assert splits.classes is None
    assert splits.picture_shape is None


def test_rows_come_in_the_order_asked_for(tmp_path, x):
    source = Npy(path=save(tmp_path / "x.npy", x), validation=0, test=0).load(0).train
    np.testing.assert_array_equal(source.read(torch.tensor([7, 3, 3])).x.numpy(), x[[7, 3, 3]])


def test_rows_stay_on_disk_until_they_are_read(tmp_path, x):
    file = save(tmp_path / "x.npy", x)
    source = Npy(path=file, validation=0, test=0, scale="unit-norm").load(0).train
    first = source.read(torch.tensor([0])).x
    np.testing.assert_array_equal(np.load(file), x)
    written = np.load(file, mmap_mode="r+")
    written[0] = -2 * x[0]
    written.flush()
    torch.testing.assert_close(source.read(torch.tensor([0])).x, -first)


def test_labels_from_a_second_file(tmp_path, x):
    labels = np.arange(40) % 3
    data = Npy(path=save(tmp_path / "x.npy", x), labels=save(tmp_path / "y.npy", labels.astype(np.float64)))
    splits = data.load(0)
    for source in splits.parts().values():
        fields = whole(source)
        assert fields["y"].dtype == np.int64
        rows = [int(np.flatnonzero((x == row).all(1))[0]) for row in fields["x"]]
        np.testing.assert_array_equal(fields["y"], labels[rows])
    assert splits.classes == data.describe().classes == 3


def test_arrays_as_long_as_x_become_fields(tmp_path, x):
    more = {
        "y": np.arange(40) % 2,
        "mask": x > 0,
        "weight": np.arange(40.0),
        "site": np.arange(40, dtype=np.int16),
        "names": np.array(["a"] * 40),
        "mean": np.zeros(6),
    }
    data = Npy(path=save(tmp_path / "x.npz", x, **more))
    fields = whole(data.load(0).train)
    assert tuple(fields) == data.describe().fields == ("x", "y", "mask", "weight", "site")
    rows = fields["weight"].astype(int)
    np.testing.assert_array_equal(fields["x"], x[rows])
    np.testing.assert_array_equal(fields["mask"], (x > 0)[rows].astype(np.float32))
    np.testing.assert_array_equal(fields["site"], rows)
    assert fields["site"].dtype == np.int64


def test_keys_choose_the_arrays(tmp_path, x):
    file = tmp_path / "x.npz"
    np.savez(file, activations=x, kind=np.arange(40) % 5)
    data = Npy(path=file, x_key="activations", y_key="kind")
    assert data.describe().classes == 5
    assert data.load(0).train.names == ("x", "y")
    with pytest.raises(InputError, match=r"data\.x_key: .*holds no array 'x'; known: activations, kind"):
        Npy(path=file).describe()
    with pytest.raises(InputError, match=r"data\.y_key: .*holds no array 'kinds'; did you mean 'kind'"):
        Npy(path=file, x_key="activations", y_key="kinds").load(0)


def test_the_only_array_of_an_archive_needs_no_key(tmp_path, x):
    np.savez_compressed(tmp_path / "a.npz", activations=x)
    assert Npy(path=tmp_path / "a.npz").describe().input_shape == (6,)


@pytest.mark.parametrize("chunk", [1, 200, 1 << 24])
def test_scales_against_scikit_learn(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(npy, "CHUNK_BYTES", chunk)
    x = np.random.default_rng(1).normal(1e6, [1, 10, 0.1, 5], (50, 4))
    x[:, 3] = 7.0
    file = save(tmp_path / "x.npy", x)
    raw = Npy(path=file).load(0)
    train, test = whole(raw.train)["x"], whole(raw.test)["x"]
    expected = {
        "unit-norm": normalize(test),
        "standard": (test - train.mean()) / train.std(),
        "standard-columns": StandardScaler().fit(train).transform(test),
    }
    for scale, reference in expected.items():
        found = whole(Npy(path=file, scale=scale).load(0).test)["x"]
        np.testing.assert_allclose(found, reference, rtol=1e-6, atol=1e-7, err_msg=scale)
    np.testing.assert_array_equal(test, x[[np.flatnonzero((x == row).all(1))[0] for row in test]])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", ">f4", "i8", "u1", "?"])
def test_any_real_numbers(tmp_path, dtype):
    values = np.random.default_rng(2).integers(0, 2, (12, 3)).astype(dtype)
    rows = whole(Npy(path=save(tmp_path / "x.npy", values), validation=0, test=0).load(0).train)["x"]
    assert rows.dtype == (np.float64 if dtype in ("f8", "g") else np.float32)
    np.testing.assert_array_equal(rows, values.astype(np.float64))


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [
        ((5, 4), None, (5, 4)),
        ((3, 5, 4), None, (3, 5, 4)),
        ((8, 5, 4), None, None),
        ((20,), [4, 5], (4, 5)),
        ((12,), [3, 2, 2], (3, 2, 2)),
    ],
)
def test_how_a_person_looks_at_an_input(tmp_path, shape, wanted, expected):
    values = np.random.default_rng(0).normal(size=(9, *shape))
    data = Npy(path=save(tmp_path / "x.npy", values), picture_shape=wanted)
    splits = data.load(0)
    assert splits.picture_shape == expected
    assert splits.train.input_shape == data.describe().input_shape == shape


def test_describe_tells_what_load_gives(tmp_path, x):
    data = Npy(path=save(tmp_path / "x.npz", x, y=np.arange(40) % 3, mask=x > 0), test=7)
    info, splits = data.describe(), data.load(0)
    assert info.samples == {name: len(source) for name, source in splits.parts().items()}
    assert info.fields == splits.train.names
    assert info.classes == splits.classes


def test_the_fingerprint_covers_content_split_and_scale(tmp_path, x):
    file = save(tmp_path / "x.npz", x, y=np.arange(40) % 3)
    changed = x.copy()
    changed[39, 5] += 1
    prints = [
        Npy(path=file).load(0).fingerprint,
        Npy(path=file, split_seed=1).load(0).fingerprint,
        Npy(path=file, scale="unit-norm").load(0).fingerprint,
        Npy(path=save(tmp_path / "x2.npz", changed, y=np.arange(40) % 3)).load(0).fingerprint,
        Npy(path=save(tmp_path / "x3.npz", x, y=np.arange(40) % 4)).load(0).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert Npy(path=file).load(5).fingerprint == prints[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_named(tmp_path, monkeypatch, x, value):
    monkeypatch.setattr(npy, "CHUNK_BYTES", 100)
    x[33, 2] = x[35, 0] = value
    with pytest.raises(InputError, match=r"x\.npy, row 33: NaN or infinity"):
        Npy(path=save(tmp_path / "x.npy", x)).load(0)


def test_a_further_field_that_is_not_finite(tmp_path, x):
    weight = np.ones(40)
    weight[11] = np.nan
    with pytest.raises(InputError, match=r"x\.npz, array 'weight', row 11: NaN or infinity"):
        Npy(path=save(tmp_path / "x.npz", x, weight=weight)).load(0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 6)), r"is empty, of shape \(0, 6\)"),
        (np.zeros((6, 0)), r"is empty, of shape \(6, 0\)"),
        (np.zeros(6), r"shape \(6,\); it must be \(samples, …\)"),
        (np.zeros((6, 2), complex), "array of complex128; its values must be real numbers"),
        (np.array([["a", "b"]]), "array of <U1"),
        (np.array([[None, {}]]), "cannot be read as an array"),
    ],
)
def test_arrays_that_are_no_samples(tmp_path, values, message):
    file = tmp_path / "x.npy"
    np.save(file, values, allow_pickle=True)
    for act in (Npy(path=file).describe, lambda: Npy(path=file).load(0)):
        with pytest.raises(InputError, match=message) as raised:
            act()
        assert "x.npy" in str(raised.value)


def test_constant_data(tmp_path):
    with pytest.raises(InputError, match=r"x\.npy: every value is 0\.5; constant data"):
        Npy(path=save(tmp_path / "x.npy", np.full((9, 3), 0.5))).load(0)
    values = np.zeros((4, 3))
    file = save(tmp_path / "almost.npy", values)
    held = next(row for row in range(4) if not np.isin(row, npy.split_rows(4, {"validation": 1}, 0)["train"].numpy()))
    values[held] = 1
    save(file, values)
    with pytest.raises(InputError, match=r"almost\.npy: every training value is 0"):
        Npy(path=file, validation=1, test=0, scale="standard").load(0)


def test_files_that_are_not_arrays(tmp_path, x):
    with pytest.raises(InputError, match=r"gone\.npy: there is no such file"):
        Npy(path=tmp_path / "gone.npy").describe()
    with pytest.raises(InputError, match=r"gone\.npz: there is no such file"):
        Npy(path=tmp_path / "gone.npz").describe()
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"x\.csv: is neither an \.npy nor an \.npz file"):
        Npy(path=tmp_path / "x.csv").describe()
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("no array")
        with pytest.raises(InputError, match=f"{name}: cannot be read as an array"):
            Npy(path=tmp_path / name).describe()
    file = save(tmp_path / "cut.npy", x)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"cut\.npy: cannot be read as an array"):
        Npy(path=file).describe()
    file = tmp_path / "bent.npz"
    np.savez_compressed(file, x=x)
    content = bytearray(file.read_bytes())
    content[300:340] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"bent\.npz: cannot be read as an array"):
        Npy(path=file).load(0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(39, int), r"y\.npy: labels of shape \(39,\) for 40 samples"),
        (np.zeros((40, 1), int), r"labels of shape \(40, 1\) for 40 samples; it must be \(40,\)"),
        (
            np.r_[np.zeros(17), -1, np.zeros(22)],
            r"y\.npy, row 17: the label is -1\.0; it must be a whole number from 0",
        ),
        (np.r_[np.zeros(39), 0.5], r"row 39: the label is 0\.5"),
        (np.r_[np.nan, np.zeros(39)], r"row 0: the label is nan"),
        (np.array(["cat"] * 40), r"labels of <U3; they must be whole numbers from 0"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, x, labels, message):
    data = Npy(path=save(tmp_path / "x.npy", x), labels=save(tmp_path / "y.npy", labels))
    for act in (data.describe, lambda: data.load(0)):
        with pytest.raises(InputError, match=message):
            act()


def test_labels_in_the_wrong_place(tmp_path, x):
    file = save(tmp_path / "x.npz", x, y=np.arange(40) % 2)
    labels = save(tmp_path / "y.npy", np.arange(40) % 3)
    assert Npy(path=file, labels=labels).describe().classes == 3
    with pytest.raises(InputError, match=r"data\.y_key: names labels beside those of data\.labels"):
        Npy(path=file, labels=labels, y_key="y").describe()
    with pytest.raises(InputError, match=r"x\.npz: is no \.npy file; labels within an \.npz"):
        Npy(path=file, labels=file).describe()
    with pytest.raises(InputError, match=r"gone\.npy: there is no such file"):
        Npy(path=file, labels=tmp_path / "gone.npy").describe()


def test_a_picture_shape_that_does_not_fit(tmp_path, x):
    file = save(tmp_path / "x.npy", x)
    for wrong in ([2, 2], [6], [1, 1, 1, 6]):
        with pytest.raises(InputError, match=r"data\.picture_shape: .*does not show an input of 6 values"):
            Npy(path=file, picture_shape=wrong).describe()


def test_shuffling_by_blocks_reads_every_row_once_from_a_few_places(tmp_path) -> None:
    draw = torch.Generator().manual_seed(0)
    for count, block in ((10, 1), (1000, 7), (64 * 20 * 3 + 11, 20)):
        assert torch.equal(shuffled(count, block, draw).sort().values, torch.arange(count))
    order = shuffled(64 * 20 * 10, 20, draw)
    batch = order[:100]
    assert len((batch // 20).unique()) <= WINDOW
    assert float(batch.double().std()) > 0.2 * len(order)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((500, 3)))
    plain, blocks = (Npy(path=tmp_path / "x.npy", shuffle_block=block).load(0) for block in (1, 10))
    assert plain.fingerprint == blocks.fingerprint
    assert torch.equal(plain.train.order(draw.manual_seed(1)), torch.randperm(400, generator=draw.manual_seed(1)))
    assert not torch.equal(blocks.train.order(draw.manual_seed(1)), torch.randperm(400, generator=draw.manual_seed(1)))
