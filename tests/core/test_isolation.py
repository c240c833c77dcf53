"""A broken plugin stops what uses it, with its name, file and line, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from groundstate.config import load_config
from groundstate.errors import InputError, PluginError, RunError
from groundstate.registry import Registry
from groundstate.run import resume_run, train

PLUGINS = '''
from pathlib import Path

from groundstate import Callback, Data, Regulariser, hookimpl


class Fine(Regulariser):
    def energy(self, z):
        return z.flatten(1).abs().sum(1)


class Bursts(Regulariser):
    """Fails after 25 calls, until a file says that it is mended."""

    calls = 0

    def energy(self, z):
        type(self).calls += 1
        if self.calls > 25 and not Path("mended").exists():
            raise ZeroDivisionError("nothing to divide by")  # burst
        return z.flatten(1).abs().sum(1)


class Listener(Callback):
    @hookimpl
    def epoch_done(self, step):
        raise KeyError("listener")  # listener


class Sore(Callback):
    """Fails when it hears of a failure."""

    @hookimpl
    def run_failed(self, error):
        raise ValueError("sore")


class Witness(Callback):
    @hookimpl
    def run_failed(self, run, error):
        (run.folder / "witness").write_text(str(error))

    @hookimpl
    def run_ended(self, run):
        (run.folder / "witness").write_text("ended")


class AtTheEnd(Callback):
    @hookimpl
    def run_ended(self):
        raise OSError("disk full")  # end


class Torn(Data):
    def describe(self):
        from groundstate import DataInfo
        return DataInfo((8,), ("x",), {"train": 40})

    def load(self, seed):
        return {}["nothing"]  # torn
'''
BROKEN = "import a_module_that_nobody_has\n"
REGISTRY = """
[regulariser.fine]
path = "plugins:Fine"
summary = "right"

[regulariser.bursts]
path = "plugins:Bursts"
summary = "raises while running"

[callback.listener]
path = "plugins:Listener"
summary = "raises in a hook"

[callback.sore]
path = "plugins:Sore"
summary = "raises when a run fails"

[callback.witness]
path = "plugins:Witness"
summary = "writes down what it hears"

[callback.at-the-end]
path = "plugins:AtTheEnd"
summary = "raises when all is done"

[data.torn]
path = "plugins:Torn"
summary = "raises when it is read"

[regulariser.unimportable]
path = "broken:Nothing"
summary = "raises at import"

[regulariser.l2]
path = "plugins:Fine"
summary = "a name that is taken"

[regulariser.from-the-future]
path = "plugins:Fine"
summary = "speaks another version"
api = 99
"""
CONFIG = """
seed = 1
tracking = false
[data]
type = "npy"
path = "x.npy"
[model.encoder]
type = "linear"
units = 8
[model.decoder]
type = "linear"
units = 8
[energy.fit]
type = "squared-error"
[energy.penalty]
type = "{penalty}"
weight = 0.1
[inference]
type = "amortised"
[learning]
batch_size = 8
log_every = 1
checkpoint_seconds = 1000
[phases.all]
epochs = 4
[callbacks]
progress = false
{callbacks}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins.py").write_text(PLUGINS)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "registry.toml").write_text(REGISTRY)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))
    return tmp_path


def write(folder: Path, penalty: str = "fine", *callbacks: str) -> Path:
    tables = "\n".join(f'[callbacks.{name}]\ntype = "{name}"' for name in callbacks)
    file = folder / "config.toml"
    file.write_text(CONFIG.format(penalty=penalty, callbacks=tables))
    return file


def line_of(folder: Path, mark: str) -> int:
    lines = (folder / "plugins.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_config_that_uses_none_of_the_broken_ones_runs(folder: Path) -> None:
    run = train(write(folder, "fine", "witness"))
    assert run.record["status"] == "finished"
    assert (run.folder / "witness").read_text() == "ended"


def test_list_knows_what_is_broken_and_why(folder: Path) -> None:
    found = {entry.name: entry.broken for entry in Registry.discover(folder).entries("regulariser")}
    assert "taken twice" in found["l2"]
    assert "version 99 of the plugin contract" in found["from-the-future"]
    assert found["fine"] is None


@pytest.mark.parametrize(
    ("penalty", "said"),
    [
        ("unimportable", "broken.py:1) cannot be imported: ModuleNotFoundError"),
        ("l2", "the name 'l2' is taken twice"),
        ("from-the-future", "it speaks version 99 of the plugin contract"),
    ],
)
def test_a_config_that_uses_a_broken_one_says_which_and_why(folder: Path, penalty: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(write(folder, penalty))
    assert said in str(error.value)
    assert f"'{penalty}'" in str(error.value)
    assert "config.toml:" in str(error.value)
    assert not (folder / "runs").exists()


def test_a_term_that_raises_stops_the_run_with_its_name_and_line_and_the_state_is_saved(folder: Path) -> None:
    config = write(folder, "bursts", "witness")
    with pytest.raises(RunError) as error:
        train(config)
    said = str(error.value)
    assert "regulariser 'bursts' of registry.toml" in said
    assert f"(plugins.py:{line_of(folder, 'burst')})" in said
    assert "ZeroDivisionError: nothing to divide by" in said
    run = only_run(folder)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert "bursts" in record["error"]
    assert (run / "checkpoint.safetensors").is_file()
    assert "nothing to divide by" in (run / "witness").read_text()


def test_once_mended_the_run_goes_on_to_the_same_parameters(folder: Path) -> None:
    config = write(folder, "bursts")
    with pytest.raises(RunError):
        train(config)
    failed = only_run(folder)
    (folder / "mended").touch()
    resumed = resume_run(failed)
    whole = train(write(folder, "bursts"))
    assert resumed.step == whole.step
    for (name, one), other in zip(resumed.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_hook_that_raises_stops_the_run_with_the_state_saved(folder: Path) -> None:
    with pytest.raises(RunError) as error:
        train(write(folder, "fine", "listener", "witness"))
    assert "callback 'listener' of registry.toml" in str(error.value)
    assert f"(plugins.py:{line_of(folder, 'listener')})" in str(error.value)
    assert (only_run(folder) / "checkpoint.safetensors").is_file()


def test_one_follower_that_fails_keeps_the_news_of_a_failure_from_no_other(folder: Path) -> None:
    with pytest.raises(RunError, match="bursts"):
        train(write(folder, "bursts", "sore", "witness"))
    run = only_run(folder)
    assert (run / "witness").is_file()
    assert "Sore failed when it was told" in json.loads((run / "run.json").read_text())["error"]


def test_a_hook_that_raises_at_the_end_leaves_a_finished_run(folder: Path) -> None:
    with pytest.raises(RunError) as error:
        train(write(folder, "fine", "at-the-end"))
    assert "callback 'at-the-end'" in str(error.value)
    assert "finished and saved" in str(error.value)
    run = only_run(folder)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert (run / "model" / "model.safetensors").is_file()


def test_data_that_raises_says_where_and_leaves_no_run(folder: Path) -> None:
    config = write(folder)
    config.write_text(config.read_text().replace('type = "npy"\npath = "x.npy"', 'type = "torn"'))
    with pytest.raises(PluginError) as error:
        train(config)
    assert "data 'torn' of registry.toml" in str(error.value)
    assert f"(plugins.py:{line_of(folder, 'torn')})" in str(error.value)
    assert not list((folder / "runs").iterdir())
