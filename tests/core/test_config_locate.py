"""The lines of TOML keys, against documents whose lines are known because the test wrote them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from groundstate.config.locate import KeyPath, locate

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\x7f"), max_size=8)
SCALARS = st.one_of(
    st.sampled_from(["true", "false", "0", "-17", "+1_000", "0xdead_beef", "0b01", "3.5e-2", "-inf", "nan"]),
    st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27 07:32:00.5-07:00", "1979-05-27T07:32:00Z"]),
    WORDS.map(lambda text: tomli_w.dumps({"v": text})[4:].strip()),
    WORDS.filter(lambda text: "'" not in text).map(lambda text: f"'{text}'"),
)
MULTILINE = st.sampled_from(
    [
        '"""one\n# no = "comment"\n[no.table]\n"""',
        '"""\n\\"\\"\\"quoted\\""" x"""',
        '"""two quotes at the end"""""',
        "'''\nraw \\ no = 'escape'\n[[none]]'''",
        "'''five'''''",
        '"""line \\\n   continued"""',
    ]
)
COMMENTS = st.sampled_from(["", "", " # comment", ' # "quoted" = [', "\t# '''"])


class Writer:
    """Writes a document piece by piece and notes the line of every key."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self, name: str) -> str:
        bare = name != "" and all(letter in "abcXYZ019_-" for letter in name)
        styles = ["bare"] * 2 * bare + ["basic"] + ["literal"] * ("'" not in name)
        match self.draw(st.sampled_from(styles)):
            case "bare":
                return name
            case "literal":
                return f"'{name}'"
        return tomli_w.dumps({name: 0})[:-5] if not bare else f'"{name}"'

    def names(self, least: int = 0, most: int = 3) -> list[str]:
        return self.draw(st.lists(st.one_of(BARE, WORDS), min_size=least, max_size=most, unique=True))

    def document(self) -> None:
        self.blank()
        names = self.names(most=6)
        plain = self.draw(st.integers(0, len(names)))
        for name in names[:plain]:
            self.pair((), name)
        for name in names[plain:]:
            if self.draw(st.booleans()):
                self.table((name,))
            else:
                self.tables((name,))

    def blank(self) -> None:
        self.text += self.draw(st.sampled_from(["", "", "\n", "# comment = 1\n", "  \t\n\n", '# [table] """\n']))

    def end(self) -> None:
        self.text += self.draw(COMMENTS) + "\n"
        self.blank()

    def pair(self, table: KeyPath, name: str) -> None:
        """``name = value``, or dotted ``name.a.b = value``."""
        indent = self.draw(st.sampled_from(["", "  ", "\t"]))
        path = (*table, name)
        self.note(path)
        self.text += indent + self.key(name)
        for inside in self.names(most=2) if self.draw(st.integers(0, 3)) == 0 else ():
            path = (*path, inside)
            self.note(path)
            self.text += self.draw(st.sampled_from([".", " . "])) + self.key(inside)
        self.text += self.draw(st.sampled_from([" = ", "=", "\t=  "]))
        self.value(path)
        self.end()

    def value(self, path: KeyPath, depth: int = 0) -> None:
        match self.draw(st.sampled_from(["scalar", "scalar", "multiline", "array", "inline"])):
            case "array" if depth < 3:
                self.array(path, depth)
            case "inline" if depth < 3:
                self.inline(path, depth)
            case "multiline":
                self.text += self.draw(MULTILINE)
            case _:
                self.text += self.draw(SCALARS)

    def array(self, path: KeyPath, depth: int) -> None:
        space = st.sampled_from(["", " ", "\n", "\n  # ] comment [\n  "])
        self.text += "["
        count = self.draw(st.integers(0, 3))
        for number in range(count):
            self.text += self.draw(space)
            self.note((*path, number))
            self.value((*path, number), depth + 1)
            self.text += self.draw(space)
            if number < count - 1 or self.draw(st.booleans()):
                self.text += ","
        self.text += self.draw(space) + "]"

    def inline(self, path: KeyPath, depth: int) -> None:
        self.text += "{"
        for number, name in enumerate(self.names()):
            self.text += ", " if number else " "
            self.note((*path, name))
            self.text += self.key(name) + " = "
            self.value((*path, name), depth + 1)
        self.text += "}"

    def table(self, path: KeyPath) -> None:
        """``[a.b]``, perhaps with tables that it implies, and its pairs."""
        keys = [self.key(str(part)) for part in path if isinstance(part, str)]
        for inside in self.names(most=2) if self.draw(st.booleans()) else ():
            self.note(path)
            path = (*path, inside)
            keys.append(self.key(inside))
        self.note(path)
        self.text += "[" + self.draw(st.sampled_from([".", " . "])).join(keys) + "]"
        self.end()
        for name in self.names():
            self.pair(path, name)

    def tables(self, path: KeyPath) -> None:
        """``[[a]]`` a few times, with pairs and a table inside each."""
        for number in range(self.draw(st.integers(1, 3))):
            self.note(path)
            self.note((*path, number))
            self.text += f"[[{self.key(str(path[-1]))}]]"
            self.end()
            names = self.names(least=1)
            for name in names[1:]:
                self.pair((*path, number), name)
            if self.draw(st.booleans()):
                self.note((*path, number, names[0]))
                self.text += f"[{self.key(str(path[-1]))}.{self.key(names[0])}]"
                self.end()
                for name in self.names(most=2):
                    self.pair((*path, number, names[0]), name)


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every path that the standard library's parser finds."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    return found.union(*(paths(inside, (*path, key)) for key, inside in items)) if items else found


@given(st.data())
def test_every_key_is_found_on_its_line(data: st.DataObject) -> None:
    writer = Writer(data)
    writer.document()
    parsed = tomllib.loads(writer.text)
    found = locate(writer.text)
    assert set(found) == paths(parsed)
    assert found == writer.lines


@given(st.data())
def test_windows_line_ends_change_nothing(data: st.DataObject) -> None:
    writer = Writer(data)
    writer.document()
    assert locate(writer.text.replace("\n", "\r\n")) == writer.lines


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), WORDS, st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4), st.booleans())
def test_documents_of_another_writer(values: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(values, multiline_strings=multiline)
    assert set(locate(text)) == paths(tomllib.loads(text))


def test_a_file_as_people_write_it() -> None:
    text = """\
# a run
extends = "base.toml"

[energy.sparsity]  # λ
type = "l1"
weight = 0.1

[phases]
first = { epochs = 2, terms = [
    "reconstruction",  # D
    "sparsity",
] }
second.epochs = 3
"""
    assert locate(text) == {
        ("extends",): 2,
        ("energy",): 4,
        ("energy", "sparsity"): 4,
        ("energy", "sparsity", "type"): 5,
        ("energy", "sparsity", "weight"): 6,
        ("phases",): 8,
        ("phases", "first"): 9,
        ("phases", "first", "epochs"): 9,
        ("phases", "first", "terms"): 9,
        ("phases", "first", "terms", 0): 10,
        ("phases", "first", "terms", 1): 11,
        ("phases", "second"): 13,
        ("phases", "second", "epochs"): 13,
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "  \t"])
def test_nothing_has_no_lines(text: str) -> None:
    assert locate(text) == {}
