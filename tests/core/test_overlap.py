"""Work beside the main thread keeps its order, its errors and nothing afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from groundstate.overlap import Behind, made_ahead


def test_items_come_in_order_and_are_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for item in made_ahead(items(), ahead=2):
        seen.append(item)
        assert len(made) <= item + 4
    assert seen == made == list(range(5))
    assert list(made_ahead([])) == []


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    found = made_ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="two"):
        next(found)


def test_stopping_early_ends_the_thread() -> None:
    before = threading.active_count()
    found = made_ahead(iter(range(100)))
    next(found)
    found.close()
    assert threading.active_count() == before


def test_calls_behind_are_made_in_order_and_waited_for() -> None:
    done: list[int] = []
    with Behind() as behind:
        for number in range(20):
            behind(done.append, number)
    assert done == list(range(20))


def test_an_error_behind_is_raised_and_what_follows_is_not_made() -> None:
    done: list[int] = []

    def fails() -> None:
        raise ZeroDivisionError("here")

    def calls() -> None:
        with Behind(waiting=1) as behind:
            behind(done.append, 1)
            behind(fails)
            behind(done.append, 2)
            behind(done.append, 3)

    with pytest.raises(ZeroDivisionError, match="here"):
        calls()
    assert 3 not in done
