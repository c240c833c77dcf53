"""Both plugins keep the contract of their kinds: one test for each check of groundstate's conformance kit."""

from collections.abc import Callable

import pytest
from groundstate_winners.squared_hinge import SquaredHinge
from groundstate_winners.top_k import TopK


@pytest.mark.groundstate(plugin=TopK)
@pytest.mark.groundstate(plugin=SquaredHinge)
def test_they_keep_the_contract(conformance: Callable[[], None]) -> None:
    conformance()
