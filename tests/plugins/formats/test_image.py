"""Images as inputs, against the pixels they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from groundstate.errors import InputError
from groundstate.formats import Formats, Inputs
from groundstate_plugins.formats.image import Image

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = DRAW.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_grey_and_coloured_images_are_0_to_1(tmp_path: Path) -> None:
    Pillow.fromarray(GREY).save(tmp_path / "grey.png")
    Pillow.fromarray(COLOUR).save(tmp_path / "colour.png")
    Pillow.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("grey", "deep"):
        reader = Image().open(tmp_path / f"{name}.png")
        assert (len(reader), reader.shape) == (1, (6, 9))
        np.testing.assert_allclose(reader.read(0, 1)[0], GREY / 255)
    reader = Image().open(tmp_path / "colour.png")
    assert reader.shape == (3, 6, 9)
    np.testing.assert_allclose(reader.read(0, 1)[0], COLOUR.transpose(2, 0, 1) / 255)
    reader = Image(grey=True).open(tmp_path / "colour.png")
    assert reader.shape == (6, 9)
    np.testing.assert_allclose(reader.read(0, 1)[0], COLOUR / 255 @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("shape", [(54,), (6, 9), (1, 6, 9)])
def test_a_folder_of_images_is_shaped_as_the_model_takes_it(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for number in range(5):
        Pillow.fromarray(GREY + number).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("none of them")
    inputs = Inputs([tmp_path], Formats(), shape)
    found = inputs.read(1, 4, np.dtype(np.float32)).numpy()
    assert found.shape == (3, *shape)
    np.testing.assert_allclose(found[2].ravel(), (GREY + 3).ravel() / 255, rtol=1e-6)


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    Pillow.fromarray(GREY).save(tmp_path / "a.png")
    Pillow.fromarray(GREY[:5]).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png holds inputs of shape \(5, 9\); this model takes \(6, 9\)"):
        Inputs([tmp_path], Formats(), (6, 9))
