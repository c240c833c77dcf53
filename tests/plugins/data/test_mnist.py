"""MNIST's four idx files, and OpenML's copy."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch

from groundstate.errors import InputError
from groundstate_plugins.data.mnist import FILES, IMAGES, LABELS, Mnist

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "mnist"
TRAIN_IMAGES, TRAIN_LABELS = FILES["train", IMAGES], FILES["train", LABELS]
TEST_IMAGES = FILES["test", IMAGES]


def idx(array: np.ndarray) -> bytes:
    """The format as its page states it, written here independently of the reader."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays(train: int = 60, test: int = 20, side: tuple[int, int] = (7, 5)) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for part, count in (("train", train), ("test", test)):
        found[FILES[part, IMAGES]] = random.integers(0, 256, (count, *side), dtype=np.uint8)
        found[FILES[part, LABELS]] = (np.arange(count) % 4).astype(np.uint8)
    return found


def write(folder: Path, *, compress: bool = False, **changed: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {**arrays(), **changed}.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def small(path: Path, **fields) -> Mnist:
    return Mnist(**{"path": path, "validation": 10, **fields})


def whole(source) -> tuple[np.ndarray, np.ndarray]:
    batch = source.read(torch.arange(len(source)))
    return batch.x.numpy(), batch.fields["y"].numpy()


def test_pixels_and_labels_come_out_as_written(tmp_path):
    splits = small(write(tmp_path), flat=False).raw()
    x, y = whole(splits.test)
    np.testing.assert_array_equal(np.round(x[:, 0] * 255).astype(np.uint8), arrays()[TEST_IMAGES])
    np.testing.assert_array_equal(y, np.arange(20) % 4)
    pairs = [whole(source) for source in (splits.train, splits.validation)]
    found = np.round(np.concatenate([x for x, _ in pairs]) * 255).reshape(60, -1)
    expected = arrays()[TRAIN_IMAGES].reshape(60, -1)
    np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    assert splits.picture_shape == (7, 5)
    assert splits.classes == 4


def test_plain_compressed_and_torchvisions_folder_are_the_same_data(tmp_path):
    plain = write(tmp_path / "plain")
    packed = write(tmp_path / "packed", compress=True)
    write(tmp_path / "torch" / "MNIST" / "raw")
    prints = {small(folder).load(0).fingerprint for folder in (plain, packed, tmp_path / "torch")}
    assert len(prints) == 1


@pytest.mark.parametrize("fields", [{}, {"flat": False}, {"validation": 0}, {"train_samples": 7}])
def test_describe_tells_what_load_gives(tmp_path, fields):
    data = small(write(tmp_path, compress=True), **fields)
    info, splits = data.describe(), data.load(0)
    assert info.input_shape == splits.train.input_shape
    assert info.fields == splits.train.names
    assert info.samples == {name: len(source) for name, source in splits.parts().items()}
    assert info.classes == splits.classes


def test_the_split_moves_with_split_seed_alone(tmp_path):
    folder = write(tmp_path)
    assert small(folder).load(0).fingerprint == small(folder).load(1).fingerprint
    assert small(folder).load(0).fingerprint != small(folder, split_seed=1).load(0).fingerprint


def test_fewer_training_images_are_among_more(tmp_path):
    folder = write(tmp_path)
    few, more = (whole(small(folder, train_samples=count).raw().train)[0] for count in (8, 20))
    assert len(few) == 8
    assert all((more == row).all(1).any() for row in few)


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere data\.path: is not a folder; it must hold the four files"):
        small(tmp_path / "nowhere").describe()
    folder = write(tmp_path / "some")
    (folder / TRAIN_LABELS).unlink()
    for act in (small(folder).describe, lambda: small(folder).load(0)):
        with pytest.raises(InputError, match=rf"data\.path: has no {TRAIN_LABELS} \(each with or without .gz\)"):
            act()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRAIN_IMAGES, lambda content: content[:-9], "promises 2,100 bytes of data, it holds 2,091"),
        (TRAIN_IMAGES, lambda content: content + b"more", "it holds 2,104"),
        (TRAIN_IMAGES, lambda content: content[:11], "ends after 11 bytes, inside its header of 16"),
        (TRAIN_IMAGES, lambda content: b"", "ends after 0 bytes"),
        (TRAIN_LABELS, lambda content: b"\x00\x00\x08\x03" + content[4:], "0x00000803, not 0x00000801"),
        (TRAIN_IMAGES, lambda content: b"PK\x03\x04" + content[4:], "0x504b0304, not 0x00000803"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, change, message):
    folder = write(tmp_path)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(InputError, match=message) as raised:
        small(folder).load(0)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    "change", [lambda c: c[:-30], lambda c: c[:-8] + b"12345678", lambda c: b"no gzip", lambda c: b""]
)
def test_damaged_archives_are_named(tmp_path, change):
    folder = write(tmp_path, compress=True)
    file = folder / f"{TEST_IMAGES}.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(InputError, match=f"{TEST_IMAGES}.gz: not a whole idx file of images"):
        small(folder).load(0)


def test_files_that_do_not_belong_together(tmp_path):
    folder = write(tmp_path / "labels", **{TRAIN_LABELS: np.zeros(59, np.uint8)})
    for act in (small(folder).describe, lambda: small(folder).load(0)):
        with pytest.raises(InputError, match=rf"{TRAIN_LABELS}: 59 labels for 60 images"):
            act()
    folder = write(tmp_path / "sizes", **{TEST_IMAGES: np.ones((20, 6, 5), np.uint8)})
    with pytest.raises(InputError, match="differ in size: 7×5 and 6×5"):
        small(folder).load(0)


def test_empty_and_constant_images(tmp_path):
    nothing = {TRAIN_IMAGES: np.zeros((0, 7, 5), np.uint8), TRAIN_LABELS: np.zeros(0, np.uint8)}
    with pytest.raises(InputError, match=f"{TRAIN_IMAGES}: holds no images"):
        small(write(tmp_path / "empty", **nothing)).describe()
    with pytest.raises(InputError, match="every value is 3; constant data"):
        small(write(tmp_path / "constant", **{TRAIN_IMAGES: np.full((60, 7, 5), 3, np.uint8)})).load(0)


def test_more_images_wanted_than_there_are(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(InputError, match=r"data\.train_samples: 51 training images are wanted, 50 are there"):
        small(folder, train_samples=51).describe()
    with pytest.raises(InputError, match="60 for validation leave none of the 60 samples"):
        small(folder, validation=60).load(0)


def test_offline_without_a_path_says_what_to_do(monkeypatch):
    def offline(*args, **fields):
        raise URLError("Name or service not known")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(InputError, match=r"data\.path: MNIST could not be fetched from OpenML") as raised:
        Mnist().load(0)
    assert all(f"{name}.gz" in str(raised.value) for name in FILES.values())


def test_openml_gives_the_original_order(monkeypatch):
    pixels = np.zeros((70_000, 784), np.uint8)
    pixels[:, 0] = np.arange(70_000) % 251
    bunch = SimpleNamespace(data=pixels, target=np.array([str(i % 10) for i in range(70_000)], dtype=object))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **fields: bunch)
    data = Mnist(scale="none")
    splits = data.load(0)
    x, y = whole(splits.test)
    np.testing.assert_array_equal(np.round(x[:, 0] * 255), np.arange(60_000, 70_000) % 251)
    np.testing.assert_array_equal(y, np.arange(10_000) % 10)
    assert data.describe().samples == {name: len(source) for name, source in splits.parts().items()}


def test_openml_with_another_table(monkeypatch):
    bunch = SimpleNamespace(data=np.zeros((10, 784)), target=np.zeros(10))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **fields: bunch)
    with pytest.raises(InputError, match="10 × 784, not 70000 × 784"):
        Mnist().load(0)


@pytest.mark.skipif(not REAL.is_dir(), reason="the MNIST files are not in ../shared/data/mnist")
class TestReal:
    def test_the_published_statistics(self):
        splits = Mnist(path=REAL, validation=0).raw()
        x, y = whole(splits.train)
        # Mean and deviation as torchvision's examples state them; label counts as in LeCun's files.
        assert round(float(x.mean(dtype=np.float64)), 4) == 0.1307
        assert round(float(x.std(dtype=np.float64)), 4) == 0.3081
        assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        _, y = whole(splits.test)
        assert np.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

    def test_the_default_split(self):
        data = Mnist(path=REAL)
        splits = data.load(0)
        assert {name: len(source) for name, source in splits.parts().items()} == data.describe().samples
        assert data.describe().samples == {"train": 50_000, "validation": 10_000, "test": 10_000}
        rows = splits.train.read(torch.arange(1000)).x
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(1000))
        assert splits.picture_shape == (28, 28)
        assert splits.classes == 10
