"""``restore``: pictures in, restored pictures out."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundstate.cli.output import print_json, progress_bar
from groundstate.errors import InputError, relative
from groundstate.files import replacing, require_writable

if TYPE_CHECKING:
    from torch import Tensor

    from groundstate.formats import Formats

SUFFIXES = (".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff")
"""What a restored picture can be written as: formats of 8 bits a channel that lose nothing."""


def restore(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, grey or coloured.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file, or for several images a folder. Must not be there yet.")
    ],
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise, in grey levels of 0 to 255.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the same size: white where a pixel is known, black where missing.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Whose dictionary to use (a run's id or folder, …); by default one is learned."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=2, help="Height and width of a patch, pixels; 8, or the model's.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="The clean picture, or a folder of them by name: prints the PSNR.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A config with another energy, inference or learning.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change of the config.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Remove noise from images, or fill in missing pixels.

    Sparse codes of overlapping patches, with a dictionary that is learned from the image itself, or a model's. NaN in
    a picture of floating-point numbers is a missing pixel too; transparency is not.
    """
    from groundstate.config.layers import read_overrides
    from groundstate.errors import Interrupted
    from groundstate.formats import Formats
    from groundstate.restoration import psnr
    from groundstate.restoration import restore as restore_image

    formats = Formats()
    outputs = _outputs(images, output)
    matrix, size = _dictionary(model, size)
    known = None if mask is None else _read(mask, formats, grey=True) > 127.5
    pictures = [_read(path, formats) for path in images]  # all, so that a bad one is told before any is restored
    clean = [None if truth is None else _truth(truth, path, formats) for path in images]
    overrides = read_overrides(changes or []).values
    said: list[dict[str, Any]] = []
    for source, target, picture, wanted in zip(images, outputs, pictures, clean, strict=True):
        if wanted is not None and wanted.shape != picture.shape:
            raise InputError(f"the clean picture of {relative(source)} has another size or other channels")
        began = time.monotonic()
        try:
            with progress_bar() as progress:
                done = restore_image(
                    picture,
                    noise=noise,
                    mask=known,
                    size=size,
                    dictionary=matrix,
                    config=config,
                    changes=overrides,
                    seed=seed,
                    progress=progress,
                )
        except InputError as error:
            raise InputError(f"{relative(source)}: {error}") from error
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {relative(target)} was not written") from None
        levels = done.image.clamp(0, 255).round()
        _write(target, levels)
        found: dict[str, Any] = {"output": target, "shape": tuple(levels.shape), "active": done.active}
        found["seconds"] = time.monotonic() - began
        line = f"{relative(target)}: {levels.shape[-2]} × {levels.shape[-1]}"
        if wanted is not None:
            before = picture if known is None else picture * known
            found |= {"psnr": psnr(levels, wanted), "psnr_before": psnr(before.nan_to_num(0.0), wanted)}
            line += f", {found['psnr']:.2f} dB ({found['psnr_before']:.2f} dB before)"
        said.append(found)
        if not as_json:
            print(line)
    if as_json:
        print_json(said)


def _outputs(images: list[Path], output: Path) -> list[Path]:
    """Where each goes. InputError where one is there already or cannot be written."""
    if len(images) == 1 and not output.is_dir():
        targets = [output]
    elif output.suffix and not output.is_dir():
        raise InputError(f"several images go into a folder, and {relative(output)} looks like a file")
    else:
        targets = [output / f"{path.stem}.png" for path in images]
    for target in targets:
        if target.suffix.lower() not in SUFFIXES:
            raise InputError(f"{relative(target)} must end in one of {', '.join(SUFFIXES)}")
        if target.exists():
            raise InputError(f"{relative(target)} is there already; give another name, or remove it")
    require_writable(targets[0].absolute().parent, "--output")
    if len(set(targets)) < len(targets):
        raise InputError("two of the images have the same name, so one would replace the other; rename one")
    return targets


def _dictionary(model: str | None, size: int | None) -> tuple[Tensor | None, int]:
    if model is None:
        return None, size or 8
    import math

    from groundstate.api import load
    from groundstate.model import Model

    loaded = load(model)
    decoder = loaded.decoder if isinstance(loaded, Model) else None
    form = decoder.structure() if decoder is not None else None
    if form is None:
        raise InputError(
            f"the model {model} is not one layer with a linear decoder on flat codes, so it has no dictionary"
        )
    side = math.isqrt(form.matrix.shape[0])
    if side * side != form.matrix.shape[0] or size not in (None, side):
        wanted = "square patches" if size is None else f"patches of {size}×{size}"
        raise InputError(f"the model {model} takes inputs of {form.matrix.shape[0]} values, not {wanted}")
    return form.matrix.detach(), side


def _read(path: Path, formats: Formats, *, grey: bool = False) -> Tensor:
    """(height, width) or (3, height, width), grey levels 0 to 255; NaN where a picture of numbers has it."""
    import torch

    if not path.is_file():
        raise InputError(f"there is no file {relative(path)}")
    opened = formats.reader(path).open
    if opened is None:
        raise InputError(f"{relative(path)} cannot be read as a picture")
    with closing(opened(path)) as reader:
        if len(reader) != 1 or len(reader.shape) not in (2, 3):
            raise InputError(f"{relative(path)} holds {len(reader)} inputs of shape {reader.shape}, not one picture")
        values = torch.from_numpy(reader.read(0, 1)[0]).double() * 255
    return values.mean(0) if grey and values.dim() == 3 else values


def _truth(truth: Path, image: Path, formats: Formats) -> Tensor:
    return _read(truth / image.name if truth.is_dir() else truth, formats)


def _write(path: Path, levels: Tensor) -> None:
    from PIL import Image

    pixels = levels.byte().numpy()
    picture = Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0))
    with replacing(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
