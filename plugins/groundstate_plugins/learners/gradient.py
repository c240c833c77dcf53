"""Gradient descent, and ascent where a parameter asks for it."""

from __future__ import annotations

from groundstate.components import Learner


class Gradient(Learner):
    """Every parameter follows the gradient of the learning terms: it takes none for a rule of its own."""
