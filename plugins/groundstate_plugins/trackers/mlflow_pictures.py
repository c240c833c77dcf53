"""Pictures of what a run learns, at intervals: the training process keeps grey values, the sender makes images of them.

The images have the names that MLflow's ``log_image`` gives, under which its page shows them with a slider over steps.
A name is made of the record alone, so that a record that is sent twice leaves one image.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from groundstate_plugins.trackers.mlflow_records import now, valid_name
from groundstate_plugins.trackers.spool import FOLDER, Record

if TYPE_CHECKING:
    from groundstate.run import Run

Grey = NDArray[np.uint8]

TINY = 1e-30
MOST_FILTERS = 1024
LARGEST_MATRIX = 1024
WIDTH = 512
"""Pictures are enlarged in whole steps up to about this width."""
THUMBNAIL = 256


def pictures(run: Run) -> Iterator[Record]:
    """One record for each picture of the model as it is, its grey values in a file beside the spool.

    ``filters``: the decoder's columns where inputs are pictures; ``inhibition/<term>``: a learned S.
    """
    for key, values in _drawn(run):
        path = f"{FOLDER}/pictures/{run.step:08d}-{key.replace('/', '-')}.npy"
        (run.folder / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(run.folder / path, values)
        yield {"op": "picture", "key": key, "step": run.step, "time": now(), "path": path}


def _drawn(run: Run) -> Iterator[tuple[str, Grey]]:
    from groundstate.structure import Inhibition

    decoder, shape = run.model.decoder, run.splits.picture_shape
    linear = decoder.structure() if decoder is not None else None
    matrix = getattr(linear, "matrix", None)
    if matrix is not None and shape is not None and matrix.shape[0] == int(np.prod(shape)):
        yield "filters", _sheet(matrix.detach().T[:MOST_FILTERS].cpu().float().numpy(), shape)
    for name, term in run.model.energy.terms.items():
        learned = any(spec.direction == "ascend" for _, _, spec in term.declared())
        structure = term.structure() if learned else None
        if isinstance(structure, Inhibition) and len(structure.matrix) <= LARGEST_MATRIX:
            values = structure.matrix.detach().cpu().float().numpy()
            yield f"inhibition/{valid_name(name)}", _grey(values / max(float(values.max()), TINY))


def _sheet(rows: NDArray[np.float32], shape: tuple[int, ...]) -> Grey:
    """Rows (units, n) as tiles on a square sheet: grey is 0, white each tile's largest absolute value."""
    rows = rows / np.maximum(np.abs(rows).max(1, keepdims=True), TINY)
    tiles = rows.reshape(len(rows), -1, *shape[-2:]).mean(1)  # colours as grey
    height, width = (size + 1 for size in shape[-2:])  # a black line between tiles
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = np.full((math.ceil(len(tiles) / columns) * height, columns * width), -1.0, np.float32)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height - 1, left : left + width - 1] = tile
    return _grey(0.5 + 0.5 * sheet[:-1, :-1])


def _grey(shares: NDArray[np.float32]) -> Grey:
    return np.rint(255 * shares).astype(np.uint8)


def images(run_folder: Path, record: Record, target: Path) -> None:
    """Write a picture's image and thumbnail into the folder ``target``, named as MLflow's page looks for them."""
    from PIL import Image

    values = np.load(run_folder / record["path"])
    factor = max(1, round(WIDTH / values.shape[1]))
    image = Image.fromarray(values.repeat(factor, 0).repeat(factor, 1))
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{run_folder.name}/{record['path']}")
    name = f"{record['key'].replace('/', '~')}+step+{record['step']}+timestamp+{record['time']}+{own}"
    image.save(target / f"{name}.png")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(target / f"{name}+compressed.webp")
