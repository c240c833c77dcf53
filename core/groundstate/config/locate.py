"""On which line of a TOML text each key stands; the standard library's parser does not tell."""

from __future__ import annotations

import re
import tomllib

KeyPath = tuple[str | int, ...]
"""Keys from the root; an element of an array stands under its number."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")


def locate(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every table, key and array element of a text that ``tomllib`` accepts."""
    return _Scanner(text).document()


class _Scanner:
    """Reads valid TOML once, from the start, noting where keys begin; checks nothing."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.lengths: dict[KeyPath, int] = {}  # of arrays of tables, so far
        self._line, self._counted = 1, 0

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip()
        while self.at < len(self.text):
            if self._take("[["):
                *parents, last = self._note_header()
                array = (*self._inside(tuple(parents)), last)
                number = self.lengths.get(array, 0)
                self.lengths[array] = number + 1
                table = (*array, number)
                self._note(table)
                self._take("]]")
            elif self._take("["):
                table = self._inside(self._note_header())
                self._note(table)
                self._take("]")
            else:
                self._pair(table)
            self._skip()
        return self.lines

    def _note_header(self) -> tuple[str, ...]:
        """The keys of a header; the tables that it implies begin here unless they did before."""
        keys = self._key()
        for length in range(1, len(keys)):
            self._note(self._inside(keys[:length]))
        if self.text.startswith("]]", self.at):
            self._note((*self._inside(keys[:-1]), keys[-1]))
        return keys

    def _inside(self, keys: tuple[str, ...]) -> KeyPath:
        """The path that a header's keys mean: an array of tables means its last element so far."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path)
        self._take("=")
        self._skip()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            number = 0
            self._skip()
            while not self._take("]"):
                self._note((*path, number))
                self._value((*path, number))
                number += 1
                self._separator()
        elif self._take("{"):
            self._skip()
            while not self._take("}"):
                self._pair(path)
                self._separator()
        else:
            match = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            assert match is not None
            self.at = match.end()

    def _separator(self) -> None:
        self._skip()
        self._take(",")
        self._skip()

    def _key(self) -> tuple[str, ...]:
        keys = []
        while True:
            self._skip()
            if (match := _STRING.match(self.text, self.at)) is not None:
                keys.append(tomllib.loads(f"key = {match.group()}")["key"])
            else:
                match = _BARE_KEY.match(self.text, self.at)
                assert match is not None
                keys.append(match.group())
            self.at = match.end()
            self._skip()
            if not self._take("."):
                return tuple(keys)

    def _note(self, path: KeyPath) -> None:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        self.lines.setdefault(path, self._line)

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _take(self, token: str) -> bool:
        taken = self.text.startswith(token, self.at)
        if taken:
            self.at += len(token)
        return taken
