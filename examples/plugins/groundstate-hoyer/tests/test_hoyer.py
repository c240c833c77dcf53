"""Hoyer keeps the contract of its kind: one test for each check of groundstate's conformance kit."""

from collections.abc import Callable

import pytest
from groundstate_hoyer.hoyer import Hoyer


@pytest.mark.groundstate(plugin=Hoyer)
def test_it_keeps_the_contract(conformance: Callable[[], None]) -> None:
    conformance()
