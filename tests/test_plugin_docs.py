"""The pages on writing plugins do what they say, like all others (see test_docs.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from groundstate.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "plugins"
PAGES = sorted(FOLDER.glob("*.md"))


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    """The module that follows a page."""
    spec = importlib.util.spec_from_file_location("docs_of_groundstate", ROOT / "tests" / "test_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(
    page: Path, docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.follow(page, tmp_path, monkeypatch)


def test_every_kind_has_a_page() -> None:
    assert {page.stem for page in PAGES} == {*KINDS, "index"}
