"""Several runs on one page: the figures of each, what differs, and pictures beside each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.core.test_report import CONFIG, Page, look, plain

from groundstate.errors import InputError
from groundstate.report import write_comparison
from groundstate.report.words import number, percent
from groundstate.run import Run, train

HEADINGS = [
    "Runs",
    "Figures",
    "What differs",
    "Energies and other curves",
    "Filters",
    "Use of the code",
    "Reconstructions",
    "Calibration",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    output = {"folder": str(tmp_path_factory.mktemp("runs")), "report": False}
    config = {**CONFIG, "output": output, "callbacks": {"progress": False}}
    changes: list[dict[str, object]] = [{}, {"energy.sparsity.weight": 0.1, "seed": 3}]
    return [train(config, change) for change in changes]


@pytest.fixture(scope="module")
def path(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison([run.folder for run in runs], tmp_path_factory.mktemp("page") / "page.html")


def cells(text: str, row: str) -> list[str]:
    """The cells of a table's row."""
    found = re.search(rf"<th scope=\"row\">{re.escape(row)}</th>(.*?)</tr>", text)
    assert found is not None, row
    return [plain(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", found[1])]


def test_it_has_the_figures_and_the_differences_of_both(runs: list[Run], path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "could not be made" not in text
    assert Page(text).headings == HEADINGS
    assert cells(text, "test: energy") == [number(run.metrics["test/energy"]) for run in runs]
    errors = [run.metrics["test/classification/error"] for run in runs]
    assert cells(text, "test: classification: error") == [percent(error) for error in errors]
    assert f"<strong>{percent(min(errors))}</strong>" in text
    assert cells(text, "energy.sparsity.weight") == ["0.01", "0.1"]
    assert cells(text, "seed") == ["0", "3"]
    assert "model.encoder.steps" not in text
    assert "The same in all: code and versions, data, machine." in plain(text)
    assert all(run.id in text for run in runs)


def test_several_runs_by_their_names_on_the_command_line(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundstate.cli import main

    folders = [str(run.folder) for run in runs]
    assert main(["report", *folders, "--output", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.strip().endswith("both.html")
    assert (tmp_path / "both.html").is_file()


def test_a_page_takes_each_run_once_and_not_too_many(runs: list[Run], tmp_path: Path) -> None:
    one = runs[0].folder
    with pytest.raises(InputError, match="is given twice"):
        write_comparison([one, one], tmp_path / "page.html")
    with pytest.raises(InputError, match="2 to 6 runs side by side, not 7"):
        write_comparison([one] * 7, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_in_a_browser(path: Path, width: int, scheme: str) -> None:
    look(path, width, scheme, HEADINGS, pictures=2, charts=8)
