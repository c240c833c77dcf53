"""Patches of whitened photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from groundstate.errors import InputError
from groundstate_plugins.data.image_patches import ImagePatches, PatchSource
from groundstate_plugins.data.images import intensity, read_pixels, whiten

PHOTOS = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "photos"
FEW = {"train": 300, "validation": 40, "test": 50}


def photographs(folder: Path, *sizes: tuple[int, int]) -> Path:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def places(source: PatchSource, sizes: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Image, row and column of each patch, worked back from where it starts."""
    first = np.cumsum([0, *(height * width for height, width in sizes)])
    found = []
    for image, start in zip(source.image.tolist(), source.start.tolist(), strict=True):
        found.append((image, *divmod(start - int(first[image]), sizes[image][1])))
    return found


def everything(source) -> torch.Tensor:
    return source.read(torch.arange(len(source))).x


def test_patches_are_cut_from_the_whitened_images(tmp_path):
    sizes = [(40, 50), (61, 37), (45, 45)]
    folder = photographs(tmp_path, *sizes)
    splits = ImagePatches(path=folder, size=7, remove_mean=False, flat=False, **FEW).load(0)
    white = [whiten(intensity(read_pixels(folder / f"{n}.png"), ""), 0.4) for n in range(3)]
    for source in splits.parts().values():
        x = everything(source).numpy()
        assert x.shape[1:] == (1, 7, 7)
        for patch, (image, row, column) in zip(x, places(source, sizes), strict=True):
            np.testing.assert_allclose(patch[0], white[image][row : row + 7, column : column + 7], rtol=1e-6)
    assert splits.picture_shape == (7, 7)


def test_mean_and_variance(tmp_path):
    folder = photographs(tmp_path, (60, 60), (60, 70), (80, 60))
    plain = everything(ImagePatches(path=folder, remove_mean=False, **FEW).load(0).train).double()
    centred = plain - plain.mean(1, keepdim=True)
    torch.testing.assert_close(everything(ImagePatches(path=folder, **FEW).load(0).train), centred.float())
    splits = ImagePatches(path=folder, unit_variance=True, **FEW).load(0)
    expected = centred / centred.square().mean().sqrt()
    torch.testing.assert_close(everything(splits.train), expected.float())
    assert everything(splits.test).square().mean().item() == pytest.approx(1, rel=0.2)


def test_patches_of_intensity_and_of_unit_norm(tmp_path):
    sizes = [(40, 50), (61, 37), (45, 45)]
    folder = photographs(tmp_path, *sizes)
    splits = ImagePatches(path=folder, size=7, whiten=False, unit_norm=True, **FEW).load(0)
    grey = [intensity(read_pixels(folder / f"{n}.png"), "") for n in range(3)]
    x = everything(splits.train).double()
    for patch, (image, row, column) in zip(x.numpy(), places(splits.train, sizes), strict=True):
        pixels = grey[image][row : row + 7, column : column + 7].flatten()
        pixels = pixels - pixels.mean()
        np.testing.assert_allclose(patch, pixels / np.linalg.norm(pixels), atol=1e-5)


def test_a_patch_without_contrast_stays_zero(tmp_path):
    folder = photographs(tmp_path, (40, 40))
    pixels = np.full((40, 40, 3), 90, dtype=np.uint8)
    pixels[:8, :8] = 100
    Image.fromarray(pixels).save(folder / "0.png")
    splits = ImagePatches(path=folder, size=4, border=0, whiten=False, unit_norm=True, **FEW).load(0)
    norms = everything(splits.train).norm(dim=1)
    assert set(norms.round(decimals=4).tolist()) == {0.0, 1.0}


def test_three_images_go_to_three_parts(tmp_path):
    splits = ImagePatches(path=photographs(tmp_path, (40, 40), (40, 50), (50, 40)), **FEW).load(0)
    images = [set(source.image.tolist()) for source in splits.parts().values()]
    assert sorted(images, key=min) == [{0}, {1}, {2}]


@pytest.mark.parametrize("sizes", [[(90, 140)], [(150, 60), (60, 150)]])
def test_parts_of_few_images_share_no_pixel(tmp_path, sizes):
    folder = photographs(tmp_path, *sizes)
    splits = ImagePatches(path=folder, size=9, border=5, **{**FEW, "train": 4000}).load(0)
    covered = {}
    for name, source in splits.parts().items():
        covered[name] = [np.zeros(size, bool) for size in sizes]
        for image, row, column in places(source, sizes):
            assert column + 9 <= sizes[image][1] - 5
            covered[name][image][row : row + 9, column : column + 9] = True
    for image in range(len(sizes)):
        total = sum(covered[name][image].astype(int) for name in covered)
        assert total.max() == 1
        inner = np.zeros(sizes[image], bool)
        inner[5:-5, 5:-5] = True
        assert not (total.astype(bool) & ~inner).any()
        assert all(covered[name][image].any() for name in covered)


def test_training_alone_uses_all_images_and_every_place(tmp_path):
    folder = photographs(tmp_path, (20, 22), (21, 20))
    splits = ImagePatches(path=folder, size=12, border=3, train=20_000, validation=0, test=0).load(0)
    assert splits.validation is None
    assert splits.test is None
    found, counts = np.unique(places(splits.train, [(20, 22), (21, 20)]), axis=0, return_counts=True)
    # 3 × 5 places in the first image and 4 × 3 in the second, each drawn 741 ± 27 times.
    assert len(found) == 15 + 12
    assert found[:, 1:].min() == 3
    assert abs(counts - 20_000 / 27).max() < 5 * 27


def test_one_file_is_enough(tmp_path):
    file = photographs(tmp_path, (100, 200)) / "0.png"
    assert len(ImagePatches(path=file, **FEW).load(0).train) == 300


def test_the_same_config_gives_the_same_patches(tmp_path):
    folder = photographs(tmp_path, (40, 40), (40, 50), (50, 40))
    first, again = (ImagePatches(path=folder, **FEW).load(seed) for seed in (0, 1))
    assert first.fingerprint == again.fingerprint
    for name, source in first.parts().items():
        assert torch.equal(everything(source), everything(again.parts()[name]))
    more = ImagePatches(path=folder, **{**FEW, "train": 500}).load(0)
    assert torch.equal(everything(more.test), everything(first.test))
    assert torch.equal(everything(more.validation), everything(first.validation))


def test_the_fingerprint_covers_images_places_and_settings(tmp_path):
    folder = photographs(tmp_path, (40, 40), (40, 50), (50, 40))
    changes = ({}, {"split_seed": 1}, {"cutoff": 0.3}, {"remove_mean": False}, {"flat": False}, {"train": 301})
    changes += ({"whiten": False}, {"unit_norm": True})
    prints = [ImagePatches(path=folder, **{**FEW, **fields}).load(0).fingerprint for fields in changes]
    pixels = read_pixels(folder / "1.png")
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(folder / "1.png")
    prints.append(ImagePatches(path=folder, **FEW).load(0).fingerprint)
    assert len(set(prints)) == len(prints)


def test_many_patches_cost_little_memory(tmp_path):
    folder = photographs(tmp_path, (40, 40), (40, 50), (50, 40))
    source = ImagePatches(path=folder, train=100_000, validation=1, test=1).load(0).train
    tensors = {name: value for name, value in vars(source).items() if isinstance(value, torch.Tensor)}
    assert sum(value.nbytes for value in tensors.values()) < 2_000_000  # as patches: 57.6 MB
    assert everything(source).shape == (100_000, 144)


@pytest.mark.parametrize("fields", [{}, {"flat": False, "size": 8}, {"test": 0}])
def test_describe_tells_what_load_gives(tmp_path, fields):
    data = ImagePatches(path=photographs(tmp_path, (40, 40), (40, 50), (50, 40)), **{**FEW, **fields})
    info, splits = data.describe(), data.load(0)
    assert info.input_shape == splits.train.input_shape == tuple(everything(splits.train).shape[1:])
    assert info.fields == splits.train.names
    assert info.samples == {name: len(source) for name, source in splits.parts().items()}
    assert info.classes is None


def test_bundled_photographs_need_no_path():
    data = ImagePatches(**FEW)
    splits = data.load(0)
    assert data.describe().samples == {name: len(source) for name, source in splits.parts().items()} == FEW
    assert set(splits.train.image.tolist()) == {0, 1}
    x = everything(splits.train)
    assert x.isfinite().all()
    assert x.mean(1).abs().max() < 1e-5


def test_images_that_are_too_small_are_all_named(tmp_path):
    folder = photographs(tmp_path, (40, 40), (27, 90), (40, 40), (90, 20))
    for act in (ImagePatches(path=folder).describe, lambda: ImagePatches(path=folder).load(0)):
        with pytest.raises(InputError) as raised:
            act()
        places = [fault.where.rsplit("/")[-1] for fault in raised.value.faults]
        assert places == ["1.png", "3.png"]
        assert "27×90 pixels are too few for patches of 12×12 with a border of 8" in str(raised.value)
    assert ImagePatches(path=folder, size=4).describe().input_shape == (16,)


def test_one_image_must_hold_the_three_bands(tmp_path):
    folder = photographs(tmp_path, (60, 60))
    with pytest.raises(InputError, match=r"0\.png: 60×60 pixels .* and a sixth of it to hold out"):
        ImagePatches(path=folder).describe()
    assert ImagePatches(path=folder, validation=0, test=0).describe().samples == {"train": 20_000}


def test_bad_files_are_named(tmp_path):
    folder = photographs(tmp_path, (40, 40), (40, 50), (50, 40))
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(folder / "same.png")
    with pytest.raises(InputError, match=r"same\.png: every pixel is 9"):
        ImagePatches(path=folder, **FEW).load(0)
    (folder / "same.png").write_text("no image")
    for act in (ImagePatches(path=folder).describe, lambda: ImagePatches(path=folder).load(0)):
        with pytest.raises(InputError, match=r"same\.png: cannot be read as an image"):
            act()
    with pytest.raises(InputError, match="there is no such file or folder"):
        ImagePatches(path=folder / "gone").describe()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in this folder"):
        ImagePatches(path=tmp_path / "empty").load(0)


def test_values_out_of_range_are_refused():
    for wrong in ({"size": 1}, {"train": 0}, {"validation": -1}, {"cutoff": 0}, {"border": -1}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            ImagePatches(**wrong)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not in ../shared/data/photos")
def test_twelve_photographs():
    data = ImagePatches(path=PHOTOS)
    splits = data.load(0)
    assert data.describe().samples == {"train": 20_000, "validation": 2_000, "test": 2_000}
    images = [set(source.image.tolist()) for source in splits.parts().values()]
    assert [len(part) for part in images] == [8, 2, 2]
    assert len(set.union(*images)) == 12
    x = everything(splits.train)
    assert x.isfinite().all()
    assert x.std().item() == pytest.approx(1, rel=0.1)
