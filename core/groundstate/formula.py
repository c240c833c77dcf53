"""The energy as a person would write it, from what its terms say of themselves."""

from __future__ import annotations

from collections.abc import Iterable


def written(terms: Iterable[tuple[float, str]]) -> str:
    """The weighted sum of formulas, e.g. ``½‖x − D z‖² + 0.1·‖z‖₁, z ≥ 0``.

    terms: weight and ``Term.formula()`` of each. What a term says after a comma (``z ≥ 0``) holds for the whole
    sum and ends it.
    """
    summands, conditions = parts(terms)
    return ", ".join([" + ".join(summands), *conditions])


def parts(terms: Iterable[tuple[float, str]]) -> tuple[list[str], list[str]]:
    """The weighted summands, and the conditions that end the sum, each once."""
    summands: list[str] = []
    conditions: dict[str, None] = {}
    for weight, formula in terms:
        body, *further = split(formula, ", ")
        conditions |= dict.fromkeys(further)
        compound = body.startswith("−") or len(split(body, " + ")) > 1 or len(split(body, " − ")) > 1
        body = f"({body})" if compound else body
        summands.append(body if weight == 1 else f"{weight:g}·{body}")
    return summands, list(conditions)


def split(formula: str, separator: str) -> list[str]:
    """A formula at a separator, but not inside brackets or between norm bars."""
    found, start, depth, bars = [], 0, 0, ""
    for at, letter in enumerate(formula):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter in "‖|":
            bars = bars[:-1] if bars.endswith(letter) else bars + letter
        elif not depth and not bars and formula.startswith(separator, at):
            found.append(formula[start:at])
            start = at + len(separator)
    return [*found, formula[start:]]
