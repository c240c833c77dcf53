"""The commands: what they print and write, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from groundstate.cli import _with_resume

Cli = Callable[..., object]


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


# -- train, and what is done with a run -------------------------------------------------------------


def test_a_run_from_training_to_codes(small: Path, groundstate: Cli) -> None:
    done = groundstate("train", small, "energy.sparsity.weight=0.05", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    run = only_run(small.parent)
    assert said["id"] == run.name
    assert Path(said["folder"]) == run
    assert said["report"] is None
    assert said["metrics"]["test/energy"] > 0
    assert tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))["energy"]["sparsity"]["weight"] == 0.05

    measured = groundstate("evaluate", run, "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["test/energy"] == pytest.approx(said["metrics"]["test/energy"])
    held = groundstate("evaluate", run.name, "data.test=0.5", "data.validation=0.1")
    assert held.code == 0, held.err
    assert "test/energy: " in held.out

    np.save("x.npy", np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32))
    coded = groundstate("encode", run, "x.npy")
    assert coded.code == 0, coded.err
    assert coded.out == "x-codes.npy: 7 × 8\n"
    assert np.load("x-codes.npy").shape == (7, 8)
    assert groundstate("encode", run / "model", "x.npy", "-o", "z.npy", "--batch-size", 2).code == 0
    np.testing.assert_allclose(np.load("z.npy"), np.load("x-codes.npy"), rtol=1e-4, atol=1e-6)
    sharded = groundstate("encode", run, "x.npy", "-o", "shards", "--write", "type=npz", "--shard-rows", 3, "--json")
    assert sharded.code == 0, sharded.err
    assert json.loads(sharded.out)["shards"] == 3
    refused = groundstate("encode", run, "x.npy", "-o", "shards", "--write", "typ=npz")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "did you mean" in refused.err or "known:" in refused.err

    reported = groundstate("report", run)
    assert reported.code == 0, reported.err
    assert (small.parent / reported.out.strip()).is_file()


def test_training_prints_the_test_figures(small: Path, groundstate: Cli) -> None:
    done = groundstate("train", small, "--no-tracking")
    assert done.code == 0, done.err
    assert all(line.startswith("test/") for line in done.out.splitlines())
    assert "test/energy: " in done.out
    assert "training small-" in done.err


def test_resuming_what_is_finished_or_not_there(small: Path, groundstate: Cli) -> None:
    none = groundstate("train", small, "--resume")
    assert none.code == 2
    assert "there is no run to go on with" in none.err
    assert groundstate("train", small).code == 0
    done = groundstate("train", small, "--resume")
    assert done.code == 2
    assert "is finished; there is nothing to resume" in done.err
    assert groundstate("train", small, "--resume", "smal-1").code == 2


@pytest.mark.parametrize(
    ("words", "filled"),
    [
        ([], []),
        (["--resume"], ["--resume=last"]),
        (["--resume", "--json"], ["--resume=last", "--json"]),
        (["c.toml", "--resume", "seed=1"], ["c.toml", "--resume=last", "seed=1"]),
        (["--resume", "c.toml"], ["--resume=last", "c.toml"]),
        (["c.toml", "--resume", "runs/a-1"], ["c.toml", "--resume", "runs/a-1"]),
        (["c.toml", "--resume=a-1"], ["c.toml", "--resume=a-1"]),
    ],
)
def test_resume_alone_means_the_last_run(words: list[str], filled: list[str]) -> None:
    assert _with_resume(words) == filled


def test_a_model_outside_its_run_needs_a_config_for_its_data(small: Path, groundstate: Cli) -> None:
    assert groundstate("train", small).code == 0
    moved = only_run(small.parent).joinpath("model").rename(small.parent / "moved")
    done = groundstate("evaluate", moved)
    assert done.code == 2
    assert "nothing names the data; give --data CONFIG" in done.err
    assert groundstate("evaluate", moved, "--data", small).code == 0


# -- check ------------------------------------------------------------------------------------------


def test_check_prints_formula_terms_parameters_memory_and_phases(small: Path, groundstate: Cli) -> None:
    done = groundstate("check", small, "energy.sparsity.weight=0.5")
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "E = ½‖x − D z‖² + 0.5·‖z‖₁"
    assert "sparsity l1 (regulariser) 0.5 inference, learning ‖z‖₁ 0.5" in lines
    assert "decoder.dictionary 64 × 8 512 descends 1 ‖·‖ ≤ 1, each of 8" in lines
    assert "together 512" in lines
    assert "only 1 3 0.001 constant reconstruction, sparsity –" in lines
    assert any(line.startswith("memory: about ") and "estimate" in line for line in lines)
    assert sorted(path.name for path in small.parent.iterdir()) == ["small.toml"], "check writes nothing"


def test_check_for_machines(small: Path, groundstate: Cli) -> None:
    done = groundstate("check", small, "--json")
    said = json.loads(done.out)
    assert said["formula"] == "E = ½‖x − D z‖² + 0.1·‖z‖₁"
    assert said["parameter_count"] == 512
    assert said["info"]["samples"]["train"] == 1079


# -- exit codes -------------------------------------------------------------------------------------


def test_wrong_input_ends_with_2_and_one_line_a_fault(small: Path, groundstate: Cli) -> None:
    done = groundstate("train", small, "sead=1", "energy.sparsity.weight=-1", "inference.type=fist")
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("command line ") for line in lines)
    assert not (small.parent / "runs").exists(), "nothing is written"


@pytest.mark.parametrize(
    "words", [("chek", "small.toml"), ("check",), ("check", "small.toml", "--jsn"), ("ui", "--port", "0")]
)
def test_wrong_usage_ends_with_2(small: Path, groundstate: Cli, words: tuple[str, ...]) -> None:
    done = groundstate(*words)
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("check", "missing.toml"),
        ("train", "missing.toml"),
        ("encode", "no-such-model", "x.npy"),
        ("evaluate", "no-such-model"),
        ("report", "no-such-run"),
        ("plugins", "show", "no-such-plugin"),
        ("plugins", "list", "no-such-kind"),
        ("schema", "--output", "no-such-folder/x.json"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_2(small: Path, groundstate: Cli, words: tuple[str, ...]) -> None:
    done = groundstate(*words)
    assert done.code == 2, done
    assert done.err.strip()
    assert "Traceback" not in done.err


def test_an_output_folder_that_cannot_be_written(small: Path, groundstate: Cli) -> None:
    (small.parent / "taken").write_text("a file", encoding="utf-8")
    done = groundstate("train", small, "output.folder=taken")
    assert done.code == 2
    assert "taken" in done.err


FAILING = """\
import os, signal

from groundstate import Callback, hookimpl


class Fails(Callback):
    class Config(Callback.Config):
        how: str = "raise"

    @hookimpl
    def phase_started(self, run):
        if self.config.how == "raise":
            raise ValueError("out of luck")
        if self.config.how == "interrupt":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("how", "code", "words"), [("raise", 1, "out of luck"), ("interrupt", 130, ""), ("signal", 130, "--resume")]
)
def test_a_run_that_fails_or_is_interrupted(small: Path, groundstate: Cli, how: str, code: int, words: str) -> None:
    (small.parent / "fails.py").write_text(FAILING, encoding="utf-8")
    text = '[callback.fails]\npath = "fails:Fails"\nsummary = "a test"\n'
    (small.parent / "registry.toml").write_text(text, encoding="utf-8")
    done = groundstate("train", small, "callbacks.fails.type=fails", f"callbacks.fails.how={how}")
    assert done.code == code, done
    assert words in done.err
    assert "Traceback" not in done.err
    record = json.loads((only_run(small.parent) / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == ("failed" if how == "raise" else "interrupted")


def test_a_broken_plugin_ends_with_2_where_a_config_names_it(small: Path, groundstate: Cli) -> None:
    (small.parent / "broken.py").write_text("nonsense\n", encoding="utf-8")
    text = '[regulariser.broken]\npath = "broken:Broken"\nsummary = "a test"\n'
    (small.parent / "registry.toml").write_text(text, encoding="utf-8")
    assert groundstate("check", small).code == 0
    done = groundstate("check", small, "energy.sparsity.type=broken")
    assert done.code == 2
    assert "broken.py:1" in done.err


# -- the others -------------------------------------------------------------------------------------


def test_schemas_are_printed_and_written(small: Path, groundstate: Cli) -> None:
    done = groundstate("schema")
    assert json.loads(done.out)["title"] == "groundstate config"
    assert groundstate("schema", "--registry", "-o", "registry.json").code == 0
    assert json.loads(Path("registry.json").read_text(encoding="utf-8"))["title"] == "groundstate registry"


def test_doctor_tells_versions_and_backends(small: Path, groundstate: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundstate.doctor.kernel_problems", lambda backend: {})  # compiling them takes a minute
    done = groundstate("doctor")
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert any(line.startswith("torch ") for line in lines)
    assert any(line.startswith("backend cpu: available") and "numbers right" in line for line in lines)
    assert any(line.startswith("backend cuda: ") for line in lines)
    assert json.loads(groundstate("doctor", "--json").out)["healthy"] is True


TRACKER = """\
from groundstate import Tracker


class Page(Tracker):
    @classmethod
    def ui(cls, port):
        print("page on", port)
        return 7


class Blind(Tracker): ...
"""


@pytest.mark.parametrize(("cls", "code", "words"), [("Page", 7, "page on 8080"), ("Blind", 2, "has no page")])
def test_ui_is_the_default_trackers_page(
    small: Path, groundstate: Cli, monkeypatch: pytest.MonkeyPatch, cls: str, code: int, words: str
) -> None:
    from groundstate.registry import Registry

    (small.parent / "mine.py").write_text(TRACKER, encoding="utf-8")
    text = f'[tracker.mine]\npath = "mine:{cls}"\nsummary = "a test"\ndefault = true\n'
    (small.parent / "registry.toml").write_text(text, encoding="utf-8")
    clash = groundstate("ui")
    assert clash.code == 2
    assert "several plugins want to be the default tracker" in clash.err
    find = Registry.entries
    monkeypatch.setattr(
        Registry,
        "entries",
        lambda self, *kinds: (entry for entry in find(self, *kinds) if entry.source.kind == "local"),
    )
    done = groundstate("ui", "--port", 8080)
    assert done.code == code
    assert words in done.out + done.err


def test_the_module_is_the_command(small: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundstate", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("groundstate ")
    failed = subprocess.run(
        [sys.executable, "-m", "groundstate", "check", "missing.toml"], capture_output=True, text=True, timeout=60
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("there is no file missing.toml")


@pytest.mark.parametrize("words", [(), ("plugins",)])
def test_no_command_shows_the_help(small: Path, groundstate: Cli, words: tuple[str, ...]) -> None:
    done = groundstate(*words)
    assert "Usage: groundstate" in done.out + done.err


COMMANDS = ("train", "check", "encode", "evaluate", "report", "schema", "doctor", "ui", "plugins list", "plugins show")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(groundstate: Cli, command: str) -> None:
    done = groundstate(*command.split(), "--help")
    assert done.code == 0
    assert f"Usage: groundstate {command}" in done.out
