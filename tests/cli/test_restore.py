"""``groundstate restore``: pictures in, restored ones out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundstate import Model
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.solvers.fista import Fista

Cli = Callable[..., Any]
QUICK = ("--set", "model.decoder.units=32", "--set", "phases.learn.epochs=1")


def pixels(path: str) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """clean.png, noisy.png, colour.png, mask.png in the working directory, 24×32."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clean = np.where(np.add.outer(np.arange(24), np.arange(32)) % 12 < 6, 60, 180).astype(np.uint8)
    noisy = (clean + 25 * rng.normal(size=clean.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(clean).save("clean.png")
    Image.fromarray(noisy).save("noisy.png")
    Image.fromarray(np.stack([noisy, noisy // 2, 255 - noisy], -1)).save("colour.png")
    Image.fromarray(np.where(rng.random(clean.shape) < 0.6, 255, 0).astype(np.uint8)).save("mask.png")


def test_noise_and_the_figures_beside_it(groundstate: Cli) -> None:
    done = groundstate("restore", "noisy.png", "-o", "out.png", "--noise", 25, "--truth", "clean.png", *QUICK)
    assert done.code == 0, done.err
    assert done.out.startswith("out.png: 24 × 32, ")
    restored = pixels("out.png")
    assert restored.shape == (24, 32)
    again = groundstate("restore", "noisy.png", "-o", "b.png", "--noise", 25, "--truth", "clean.png", "--json", *QUICK)
    (said,) = json.loads(again.out)
    assert said["psnr"] > said["psnr_before"] + 4
    error = np.square(restored - pixels("clean.png").astype(float)).mean()
    assert said["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    assert Path("b.png").read_bytes() == Path("out.png").read_bytes()


def test_several_and_coloured_ones_into_a_folder(groundstate: Cli) -> None:
    done = groundstate("restore", "noisy.png", "colour.png", "-o", "out", "--noise", 25, *QUICK)
    assert done.code == 0, done.err
    assert pixels("out/noisy.png").shape == (24, 32)
    assert pixels("out/colour.png").shape == (24, 32, 3)
    assert sorted(path.name for path in Path("out").iterdir()) == ["colour.png", "noisy.png"]


def test_a_mask_keeps_what_is_known(groundstate: Cli) -> None:
    done = groundstate("restore", "clean.png", "-o", "out.png", "--mask", "mask.png", *QUICK)
    assert done.code == 0, done.err
    clean, out, mask = (pixels(f"{name}.png") for name in ("clean", "out", "mask"))
    np.testing.assert_array_equal(out[mask > 0], clean[mask > 0])


def saved_model(inputs: int) -> None:
    model = Model(terms={"data": SquaredError()}, solver=Fista(), decoder=LinearDecoder(units=30))
    model.build((inputs,)).save("model")


def test_a_models_dictionary_sets_the_patch(groundstate: Cli) -> None:
    saved_model(36)
    done = groundstate("restore", "noisy.png", "-o", "out.png", "--noise", 25, "--model", "model")
    assert done.code == 0, done.err
    refused = groundstate("restore", "noisy.png", "-o", "b.png", "--noise", 25, "--model", "model", "--size", 8)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "inputs of 36 values, not patches of 8×8" in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("noisy.png", "-o", "out.png"), "noisy.png: nothing is to be done"),
        (("noisy.png", "-o", "out.png", "--noise", -1), "noisy.png: the noise is -1"),
        (("absent.png", "-o", "out.png", "--noise", 25), "there is no file absent.png"),
        (("broken.png", "-o", "out.png", "--noise", 25), "broken.png: cannot be read as an image"),
        (("noisy.png", "-o", "clean.png", "--noise", 25), "clean.png is there already"),
        (("noisy.png", "-o", "out.txt", "--noise", 25), "out.txt must end in one of .png"),
        (("noisy.png", "colour.png", "-o", "out.png", "--noise", 25), "several images go into a folder"),
        (("noisy.png", "-o", "clean.png/x.png", "--noise", 25), "cannot be written"),
        (("noisy.png", "-o", "out.png", "--mask", "small.png"), "the mask has 5×5 pixels, the image 24×32"),
        (("noisy.png", "-o", "out.png", "--mask", "black.png"), "every pixel of the image is missing"),
        (("noisy.png", "-o", "out.png", "--noise", 25, "--size", 30), "fewer than a patch of 30×30"),
        (("noisy.png", "-o", "out.png", "--noise", 25, "--truth", "colour.png"), "another size or other channels"),
        (("noisy.png", "-o", "out.png", "--noise", 25, "--model", "absent"), "no model 'absent'"),
        (("noisy.png", "-o", "out.png", "--noise", 25, "--set", "energy.sparsity.weigth=1"), "weight"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(groundstate: Cli, words: tuple[object, ...], says: str) -> None:
    Path("broken.png").write_text("no picture", encoding="utf-8")
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save("small.png")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save("black.png")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    done = groundstate("restore", *words)
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert says in done.err
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_nan_is_missing(groundstate: Cli) -> None:
    gaps = pixels("clean.png").astype(np.float32) / 255
    gaps[3:5, 4:7] = np.nan
    Image.fromarray(gaps).save("gaps.tif")
    done = groundstate("restore", "gaps.tif", "-o", "out.png", *QUICK)
    assert done.code == 0, done.err
    assert pixels("out.png").shape == (24, 32)
