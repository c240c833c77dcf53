"""Measures a system's figures from real runs and writes its rows into examples/RESULTS.md.

    make results NAME=drsae-mnist
    python examples/results/measure.py drsae-mnist --data ../shared/data --seeds 3

A protocol is one file here with a docstring, whose first line is the system's title, and ``measure(lab)``. Runs that
are finished are used again, interrupted ones go on. Nothing is written before everything is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from lab import PICTURE_BYTES, Lab, default_data
from table import PAGE, PICTURES, RECORDS, page

from groundstate.errors import GroundstateError, InputError, nearest
from groundstate.files import replacing, write_json, write_text
from groundstate.run import Interrupted

MACHINERY = {"measure", "lab", "table", "draw", "angles"}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 measured, 1 failed, 2 wrong input, 130 interrupted."""
    here = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="a protocol: the name of a file in examples/results, without .py")
    parser.add_argument("--data", type=Path, help="holds mnist/, photos/ (default GROUNDSTATE_DATA, ../shared/data)")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default 3)")
    parser.add_argument("--runs", type=Path, help="where runs are kept (default runs/results)")
    parser.add_argument("--root", type=Path, default=here, help="the repository to read and write")
    given = parser.parse_args(arguments)
    root = given.root.resolve()
    lab = Lab(root, given.data or default_data(root), given.runs or root / "runs" / "results", range(given.seeds))
    try:
        measure(given.name, lab)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{error}; nothing is written, the same command goes on from here", file=sys.stderr)
        return 130
    except GroundstateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def measure(name: str, lab: Lab) -> None:
    """Follow the protocol of this name, then write its record, its picture and the page."""
    began = time.monotonic()
    protocol = _protocol(name, lab.root / "examples" / "results")
    protocol.measure(lab)
    if not lab.rows:
        raise InputError(f"the protocol '{name}' measured nothing: it must call lab.row")
    record = {
        "title": (protocol.__doc__ or name).partition("\n")[0].rstrip("."),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        **lab.record(),
    }
    picture = _png(lab) if lab.figure is not None else None
    for folder in (RECORDS, PICTURES):
        (lab.root / folder).mkdir(parents=True, exist_ok=True)
    if picture is not None:
        with replacing(lab.root / PICTURES / f"{name}.png") as temporary:
            temporary.write_bytes(picture)
    write_json(lab.root / RECORDS / f"{name}.json", record)
    write_text(lab.root / PAGE, page(lab.root))
    for row in lab.rows:
        print(f"{row.figure}: {row.mean:.4g} (must {row.must}, goal {row.goal}); {[round(v, 4) for v in row.values]}")


def _protocol(name: str, folder: Path) -> ModuleType:
    known = sorted(file.stem for file in folder.glob("*.py") if file.stem not in MACHINERY)
    if name not in known:
        raise InputError(f"there is no protocol '{name}'; {nearest(name, known)}")
    spec = importlib.util.spec_from_file_location(f"protocol_{name.replace('-', '_')}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def _png(lab: Lab) -> bytes:
    """The picture, small enough to be kept with the code."""
    assert lab.figure is not None
    for dots in (110, 80, 60):
        buffer = io.BytesIO()
        lab.figure.savefig(buffer, format="png", dpi=dots, bbox_inches="tight", pil_kwargs={"optimize": True})
        if buffer.tell() <= PICTURE_BYTES:
            return buffer.getvalue()
    raise InputError(f"the picture takes {buffer.tell():,} bytes even at {dots} dots an inch; draw less into it")


if __name__ == "__main__":
    sys.exit(main())
