"""The documentation does what it says: every block on every page is run, loaded or compared.

What a block's language and first line mean here:

- a first line ``# name.py`` or ``# name.toml`` (and anything after a comma) makes a file of the block; a second
  block for a registry.toml is added to its end, as a reader would;
- other ``python`` blocks run on their own, ``toml`` blocks are tables that a config may add to the DrSAE system;
- in ``console`` blocks each ``$ groundstate …`` runs, and must print the lines that are shown, in their order
  (``…`` stands for anything) and end with the exit code that ``$ echo $?`` shows, 0 where it is not shown;
- ``<!-- not run: reason -->`` above a block is the only way out.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "systems").glob("*.md"))]
CLI = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'groundstate'; from groundstate.cli import main; sys.exit(main())",
)
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["groundstate.run", "groundstate.check"])
LANGUAGES = {"python", "toml", "console", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: what the comment above it says, or ''."""

    language: str
    text: str
    line: int
    mark: str

    @property
    def file(self) -> str | None:
        """The file that the block is, by its first line."""
        named = re.match(r"# ([\w./-]+\.(?:py|toml))(?:,.*)?\n", self.text)
        return named[1] if named is not None and self.language in ("python", "toml") else None


@dataclass(frozen=True)
class Command:
    """A line after ``$``, the lines that it should print and its exit code."""

    words: list[str]
    shown: list[str]
    code: int


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if lines[number].startswith("```"):
            end = next(index for index in range(number + 1, len(lines)) if lines[index].startswith("```"))
            above = re.fullmatch(r"<!-- (.*) -->", lines[number - 1])
            text = "\n".join(lines[number + 1 : end]) + "\n"
            yield Block(lines[number][3:].strip(), text, number + 1, above[1] if above else "")
            number = end
        number += 1


def commands(text: str) -> list[Command]:
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(shlex.split(line[2:], comments=True), [], 0))
        else:
            found[-1].shown.append(line.strip())
    asked = [Command(["echo", "$?"], [], 0).words]
    merged: list[Command] = []
    for command in found:
        if command.words in asked:
            merged[-1] = Command(merged[-1].words, merged[-1].shown, int(command.shown[0]))
        else:
            merged.append(command)
    return merged


# -- doing what a page says -------------------------------------------------------------------------


def follow(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do everything that a page says, in its order, in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: a block of language '{block.language}'"
        if block.mark.startswith("not run: "):
            continue
        if block.file is not None:
            write(folder / block.file, block.text)
        elif block.language == "python":
            with forgetting(folder):
                exec(compile(block.text, where, "exec"), {"__name__": "__main__"})
        elif block.language == "toml":
            load(folder / "fragment.toml", f'extends = "groundstate:drsae"\n{block.text}', where)
        elif block.language == "console":
            for command in commands(block.text):
                run(command, folder, where)


@contextmanager
def forgetting(folder: Path) -> Iterator[None]:
    """What a block imports from the page's own files is not there for the next page."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name == "registry.toml" and file.is_file():
        text = f"{file.read_text(encoding='utf-8')}\n{text}"
    file.write_text(text, encoding="utf-8")
    if file.suffix == ".toml":
        tomllib.loads(text)


def load(file: Path, text: str, where: str) -> None:
    from groundstate.config import load_config

    file.write_text(text, encoding="utf-8")
    assert load_config(file).config.phases, where


def run(command: Command, folder: Path, where: str) -> None:
    program, *arguments = command.words
    if program == "make":
        run_make(arguments, folder, where)
        return
    assert program == "groundstate", f"{where}: nothing tests '{program}'; mark the block '<!-- not run: … -->'"
    if (folder / "core").is_dir():  # its own packages are not those of this process
        done = subprocess.run(
            [*CLI, *arguments], cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8", timeout=300
        )
        printed, code = done.stdout + done.stderr, done.returncode
    else:
        printed, code = run_forked(arguments, folder)
    assert code == command.code, f"{where}: {' '.join(command.words)}\n{printed}"
    assert_shown(command.shown, printed, where)


def run_forked(arguments: list[str], folder: Path) -> tuple[str, int | None]:
    """What a command prints, and its exit code."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / stream for stream in ("stdout", "stderr")]
        given = {"words": arguments, "folder": str(folder), "environment": environment(folder)}
        given |= {file.name: str(file) for file in files}
        process = FORKED.Process(target=runpy.run_path, args=(str(ROOT / "tests" / "forked.py"), {"GIVEN": given}))
        process.start()
        process.join(300)
        code = process.exitcode
        process.kill()
        process.join()
        process.close()
        return "".join(file.read_text(encoding="utf-8") for file in files if file.is_file()), code


def run_make(arguments: list[str], folder: Path, where: str) -> None:
    """``make test ARGS=…`` runs as it would after ``make setup``; the other words are only looked up."""
    target, *settings = arguments
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), where
    chosen = [value for key, _, value in (setting.partition("=") for setting in settings) if key == "ARGS"]
    if target == "test" and chosen:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *shlex.split(chosen[0])],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"


def environment(folder: Path) -> dict[str, str]:
    """A terminal of fixed width; the packages of ``folder`` itself where it is a checkout."""
    own = {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    if (folder / "core").is_dir():
        own["PYTHONPATH"] = os.pathsep.join(str(folder / name) for name in ("core", "plugins"))
    return {**os.environ, **own}


def assert_shown(shown: list[str], printed: str, where: str) -> None:
    rest = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (" ".join(line.split()) for line in shown):
        if line in ("", "…"):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in line.split("…")))
        at = next((index for index, printed_line in enumerate(rest) if pattern.fullmatch(printed_line)), None)
        assert at is not None, f"{where}: '{line}' is not in what is printed:\n{printed}"
        rest = rest[at + 1 :]


# -- tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, tmp_path, monkeypatch)
    assert any(blocks(page)), "a page without an example"


def test_a_plugin_is_added_as_contributing_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "groundstate"
    checkout.mkdir()
    for name in ("core", "plugins", "examples"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("registry.toml", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", checkout / "tests")
    follow(ROOT / "CONTRIBUTING.md", checkout, monkeypatch)
    assert len(list((checkout / "tests").rglob("test_*.py"))) == 1


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run make docs"


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "reference").glob("*.md"))):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert listed == there
