"""The pytest plugin, installed with groundstate: the marker ``groundstate`` and the fixture ``conformance``.

    @pytest.mark.groundstate("hoyer")
    def test_it_keeps_the_contract(conformance):
        conformance()

runs once for every check of the plugin's kind. The marker takes a name (of an installed plugin, or one that the
nearest registry.toml above the test file names) or a file; a class as ``plugin=Hoyer``, since pytest would take a
class alone for what it decorates; and kind, fields (constructor fields) and batch (makes further fields of a
batch). Nothing of groundstate is imported where no test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from groundstate.testing.examine import Examination
    from groundstate.testing.results import Check

FIXTURE = "conformance"
MARK = "groundstate"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    text = f"{MARK}(what, *, plugin=None, kind=None, fields=None, batch=None): the plugin that '{FIXTURE}' examines"
    config.addinivalue_line("markers", text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each plugin and check."""
    if FIXTURE not in metafunc.fixturenames:
        return
    parameters = [
        pytest.param(run, id=name)
        for mark in metafunc.definition.iter_markers(MARK)
        for name, run in _of(mark, metafunc)
    ]
    if not parameters:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: name the plugin, @pytest.mark.{MARK}('name')")
    metafunc.parametrize(FIXTURE, parameters)


def _of(mark: pytest.Mark, metafunc: pytest.Metafunc) -> list[tuple[str, Callable[[], None]]]:
    from groundstate.errors import GroundstateError
    from groundstate.testing import Examination, find

    what: Any = mark.args[0] if mark.args else mark.kwargs["plugin"]
    kind = mark.kwargs.get("kind")
    given = {key: mark.kwargs.get(key) for key in ("fields", "batch")}
    try:
        targets = find(what, kind=kind, folder=metafunc.definition.path.parent)
    except GroundstateError as error:
        return [(str(what), partial(pytest.fail, str(error), pytrace=False))]
    found: list[tuple[str, Callable[[], None]]] = []
    for target in targets:
        if target.cls is None:
            found.append((f"{target.kind}-{target.name}", partial(pytest.fail, target.error, pytrace=False)))
            continue
        examination = Examination(target.cls, target.kind, target.name, **given)
        prefix = f"{target.kind}-{target.name}-" if len(targets) > 1 else ""
        found += [(f"{prefix}{check.name}", partial(_report, examination, check)) for check in examination.checks]
    return found


def _report(examination: Examination, check: Check) -> None:
    """Pass, skip or fail as the check says."""
    result = examination.run(check)
    if result.status == "skipped":
        pytest.skip(result.message)
    if result.status == "failed":
        pytest.fail(f"{check.says}\n{result}", pytrace=False)


@pytest.fixture
def conformance(request: Any) -> Callable[[], None]:
    """Runs one check of the plugin that the marker names."""
    run: Callable[[], None] = request.param
    return run
