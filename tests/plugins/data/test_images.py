"""Photographs: reading, intensity, whitening."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from groundstate.errors import InputError
from groundstate_plugins.data.images import find_photographs, intensity, picture_size, read_pixels, whiten


def wrapped(grey: np.ndarray, cutoff: float = 0.4) -> np.ndarray:
    """The literature's formula on the plain Fourier transform, whose borders wrap; not divided by its deviation."""
    height, width = grey.shape
    f = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None] ** 2)
    return np.fft.ifft2(np.fft.fft2(np.log(1 + 255 * grey)) * f * np.exp(-((f / cutoff) ** 4))).real


@pytest.fixture(scope="module")
def flower() -> np.ndarray:
    return intensity(load_sample_image("flower.jpg"), "flower.jpg")


@pytest.mark.parametrize("shape", [(30, 41), (64, 64), (17, 23)])
@pytest.mark.parametrize("cutoff", [0.4, 0.2])
def test_whitening_is_the_fourier_formula_on_the_mirrored_image(shape, cutoff):
    grey = np.random.default_rng(0).random(shape)
    mirrored = np.pad(grey, [(0, side) for side in shape], mode="symmetric")
    expected = wrapped(mirrored, cutoff)[: shape[0], : shape[1]]
    np.testing.assert_allclose(whiten(grey, cutoff), expected / expected.std(), rtol=1e-9, atol=1e-12)


def test_whitening_leaves_its_input_alone(flower):
    before = flower.copy()
    assert whiten(flower, 0.4).std() == pytest.approx(1)
    np.testing.assert_array_equal(flower, before)


def test_whitening_flattens_the_spectrum_of_a_photograph(flower):
    f = np.hypot(np.fft.fftfreq(flower.shape[0])[:, None], np.fft.fftfreq(flower.shape[1]))

    def fall(image):
        power = np.abs(np.fft.fft2(image * np.outer(*map(np.hanning, image.shape)))) ** 2
        low, high = ((f > a) & (f < 2 * a) for a in (0.03, 0.12))
        return power[low].mean() / power[high].mean()

    assert fall(np.log1p(255 * flower)) > 20
    assert 0.2 < fall(whiten(flower, 0.4)) < 5


def test_borders_disturb_less_than_with_a_wrapping_transform():
    # The truth is the whitening of a larger photograph from which the image was cut.
    china = intensity(load_sample_image("china.jpg"), "china.jpg")
    china *= np.linspace(1, 0.05, len(china))[:, None]  # a bright sky over dark ground
    inner = (slice(60, -60),) * 2
    truth = wrapped(china)[inner]

    def unexplained(white, border=8, size=12):
        rows = slice(border, border + size)  # the first patches below the upper border, each without its mean
        strips = [image[rows, border:-border] for image in (white, truth)]
        found, wanted = (np.lib.stride_tricks.sliding_window_view(strip, size, axis=1) for strip in strips)
        found, wanted = (x - x.mean((0, 2), keepdims=True) for x in (found, wanted))
        return 1 - (found * wanted).sum() ** 2 / ((found**2).sum() * (wanted**2).sum())

    assert unexplained(whiten(china[inner], 0.4)) < 1e-3
    assert unexplained(whiten(china[inner], 0.4)) < 0.05 * unexplained(wrapped(china[inner]))


def test_intensity_weighs_the_colours_as_bt_709():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[1, 0], pixels[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    np.testing.assert_allclose(intensity(pixels, "here"), [[0.2126, 0.7152], [0.0722, 1.0]], rtol=1e-12)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK"])
def test_eight_bit_files_of_any_mode(tmp_path, mode):
    ramp = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    file = tmp_path / "a.tif"
    Image.fromarray(ramp).convert("RGB" if mode == "CMYK" else "L").convert(mode).save(file)
    np.testing.assert_allclose(intensity(read_pixels(file), "a"), ramp / 255, atol=1e-9)
    assert picture_size(file) == (6, 8)


def test_deeper_files_keep_their_depth(tmp_path):
    ramp = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.testing.assert_allclose(intensity(read_pixels(tmp_path / "a.png"), "a"), ramp / 65535, rtol=1e-12)
    Image.fromarray(ramp.astype(np.float32) / 50).save(tmp_path / "b.tif")
    np.testing.assert_allclose(intensity(read_pixels(tmp_path / "b.tif"), "b"), ramp / 65535, rtol=1e-6)
    black_and_white = Image.fromarray(((ramp > 30_000) * 255).astype(np.uint8)).convert("1")
    black_and_white.save(tmp_path / "c.png")
    np.testing.assert_array_equal(intensity(read_pixels(tmp_path / "c.png"), "c"), ramp > 30_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_value_that_is_no_intensity_is_placed(value):
    pixels = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    pixels[3, 4] = value
    with pytest.raises(InputError, match=r"scan\.tif, row 3: NaN, infinity or a negative value in column 4"):
        intensity(pixels, "scan.tif")


def test_a_constant_image():
    with pytest.raises(InputError, match=r"grey\.png: every pixel is 7; a constant image"):
        intensity(np.full((9, 9), 7, np.uint8), "grey.png")
    with pytest.raises(InputError, match=r"blue\.png: every pixel is \[1, 2, 3\]"):
        intensity(np.full((9, 9, 3), (1, 2, 3), np.uint8), "blue.png")


def test_photographs_of_a_folder_by_name(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.png").mkdir()
    assert [file.name for file in find_photographs(tmp_path)] == ["a.JPG", "b.png"]
    assert find_photographs(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_no_photographs(tmp_path):
    with pytest.raises(InputError, match=r"data\.path: no images in this folder; it must hold files of \.bmp"):
        find_photographs(tmp_path)
    with pytest.raises(InputError, match=r"gone data\.path: there is no such file or folder"):
        find_photographs(tmp_path / "gone")


def test_unreadable_files(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    for read in (picture_size, read_pixels):
        with pytest.raises(InputError, match=r"text\.png: cannot be read as an image"):
            read(text)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for name in ("cut.png", "cut.jpg", "cut.tif"):
        file = tmp_path / name
        Image.fromarray(noise).save(file)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(InputError, match=f"{name}: cannot be read as an image"):
            read_pixels(file)
