"""Tensorboard keeps the contract of its kind: one test for each check of groundstate's conformance kit."""

from collections.abc import Callable

import pytest
from groundstate_tensorboard.tensorboard import Tensorboard


@pytest.mark.groundstate(plugin=Tensorboard)
def test_it_keeps_the_contract(conformance: Callable[[], None]) -> None:
    conformance()
