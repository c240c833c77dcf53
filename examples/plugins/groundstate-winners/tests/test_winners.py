"""Both plugins keep the contract of their kinds: one test for each check of groundstate's conformance kit."""

from collections.abc import Callable

import pytest
from groundstate_winners.squared_hinge import SquaredHinge
from groundstate_winners.winner_take_all import WinnerTakeAll


@pytest.mark.groundstate(plugin=WinnerTakeAll)
@pytest.mark.groundstate(plugin=SquaredHinge)
def test_they_keep_the_contract(conformance: Callable[[], None]) -> None:
    conformance()
