"""The conformance kit: what every plugin of a kind has to do, as named checks that its author can run.

``groundstate plugins test NAME`` prints them as a table. In pytest, with groundstate installed, one line does:

    @pytest.mark.groundstate("hoyer")
    def test_it_keeps_the_contract(conformance):
        conformance()
"""

from groundstate.testing.api import PUBLIC_MODULES, private_imports
from groundstate.testing.examine import Examination, examine
from groundstate.testing.find import Target, find
from groundstate.testing.results import CHECKS, Broken, Check, NotApplicable, Result, check, checks_of

__all__ = [
    "CHECKS",
    "PUBLIC_MODULES",
    "Broken",
    "Check",
    "Examination",
    "NotApplicable",
    "Result",
    "Target",
    "check",
    "checks_of",
    "examine",
    "find",
    "private_imports",
]
