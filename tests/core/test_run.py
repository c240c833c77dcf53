"""Runs: the same seed gives the same bits, interrupted or not; what is wrong is said before anything is written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from groundstate.config import load_config
from groundstate.data import Batch, TensorSource
from groundstate.errors import InputError, OthersStopped, RunError
from groundstate.history import read_history
from groundstate.hooks import hookimpl
from groundstate.model import Model
from groundstate.processes import Processes
from groundstate.run import Interrupted, Run, open_run, resume_run, train

SMALL: dict[str, object] = {
    "data": {"type": "digits"},
    "model": {
        "encoder": {"type": "recurrent", "steps": 3},
        "decoder": {"type": "linear", "units": 20, "initialise": "data"},
    },
    "energy": {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {"type": "l1", "weight": 0.01, "non_negative": True},
        "classification": {"type": "cross-entropy", "weight": 0.3},
    },
    "inference": {"type": "amortised"},
    "learning": {
        "rate": 4e-3,
        "batch_size": 100,
        "log_every": 1,
        "monitor": "validation/classification/error",
        "clip": 1.0,
        "average": 0.9,
    },
    "phases": {
        "unsupervised": {"epochs": 1, "terms": ["reconstruction", "sparsity"]},
        "joint": {"epochs": 2, "schedule": "cosine"},
    },
    "backend": {"type": "cpu", "threads": 1},
    "tracking": False,
    "callbacks": {"progress": False},
}


def config(folder: Path, **changes: object) -> dict[str, object]:
    return {**SMALL, "name": "small", "output": {"folder": str(folder), "report": False}, **changes}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model" / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def steps_of(run: Run) -> list[int]:
    return [record.step for record in read_history(run.folder / "metrics.jsonl") if record.kind == "step"]


def epochs_of(run: Run) -> list[int]:
    return [record.step for record in read_history(run.folder / "metrics.jsonl") if record.kind == "epoch"]


class StopAt:
    """Sends the process a Ctrl-C at one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def step_done(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def interrupted_at(loaded: object, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Run.execute

    def with_stop(run: Run, *, resumed: bool = False) -> None:
        run.plugins.register(StopAt(step))
        execute(run, resumed=resumed)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "execute", with_stop)
        with pytest.raises(Interrupted, match="resume"):
            train(loaded)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    one, two = train(config(tmp_path / "a")), train(config(tmp_path / "b"))
    assert_same(weights(one), weights(two))
    other = train(config(tmp_path / "c", seed=1))
    assert not torch.equal(weights(one)["decoder.dictionary"], weights(other)["decoder.dictionary"])


@pytest.mark.parametrize("step", [1, 7, 11, 12, 25])
def test_a_run_cut_in_two_ends_with_the_same_bits(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(config(tmp_path / "whole"))
    interrupted_at(config(tmp_path / "cut"), step, monkeypatch)
    (folder,) = (tmp_path / "cut").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    cut = resume_run(folder)
    assert_same(weights(whole), weights(cut))
    assert steps_of(cut) == steps_of(whole) == list(range(1, 34))
    assert cut.record["metrics"].keys() == whole.record["metrics"].keys()
    assert cut.record["metrics"]["test/energy"] == whole.record["metrics"]["test/energy"]


def test_a_run_killed_outright_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """kill -9 at a random moment, several times in a row; checkpoints after every step."""
    learning = {**SMALL["learning"], "checkpoint_seconds": 0}  # type: ignore[dict-item]
    whole = train(config(tmp_path / "whole", learning=learning))
    (tmp_path / "config.json").write_text(json.dumps(config(tmp_path / "cut", learning=learning)))
    program = (
        "import json, sys; from pathlib import Path; from groundstate.run import train, resume_run\n"
        "folders = list(Path(sys.argv[1], 'cut').glob('*/run.json'))\n"
        "print('ready', flush=True)\n"
        "resume_run(folders[0].parent) if folders else train(json.loads(Path(sys.argv[1], 'config.json').read_text()))"
    )
    chance = random.Random(0)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.3, 1.2))
            process.kill()
    folders = list((tmp_path / "cut").glob("*/run.json"))
    if folders and json.loads(folders[0].read_text())["status"] == "finished":
        run = open_run(folders[0].parent)
    elif folders:
        run = resume_run(folders[0].parent)
    else:  # killed before anything was written
        run = train(config(tmp_path / "cut", learning=learning))
    assert_same(weights(whole), weights(run))
    assert steps_of(run) == steps_of(whole)
    assert epochs_of(run) == epochs_of(whole)


def test_the_stored_config_reproduces_the_run(tmp_path: Path) -> None:
    first = train(config(tmp_path / "a"))
    second = train(first.folder / "config.toml")
    assert first.folder != second.folder
    assert_same(weights(first), weights(second))


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    learning = {"rate": 4e-3, "batch_size": 100}
    run = train(config(tmp_path, output={"folder": str(tmp_path)}, learning=learning))
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["data"]["fingerprint"] == run.splits.fingerprint
    assert record["data"]["samples"].keys() == {"train", "validation", "test"}
    assert record["versions"]["torch"] == torch.__version__
    assert 0 <= record["metrics"]["test/classification/error"] < 0.5
    assert (run.folder / "report.html").stat().st_size > 10_000
    model = Model.load(run.folder / "model")
    x = run.splits.test.read(torch.arange(5)).x
    torch.testing.assert_close(model.encode(x), run.model.encode(x), rtol=0, atol=0)


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    run = train(config(tmp_path))
    epochs = [r for r in read_history(run.folder / "metrics.jsonl") if r.kind == "epoch"]
    best = min(r.values["validation/classification/error"] for r in epochs)
    assert run.metrics["validation/classification/error"] == best


class Breaks:
    @hookimpl
    def step_done(self, step: int) -> None:
        if step == 5:
            raise ValueError("out of luck")


def test_a_failure_leaves_a_run_that_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(config(tmp_path / "whole"))
    execute = Run.execute

    def with_fault(run: Run, *, resumed: bool = False) -> None:
        run.plugins.register(Breaks())
        execute(run, resumed=resumed)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "execute", with_fault)
        with pytest.raises(RunError, match="out of luck"):
            train(config(tmp_path / "cut"))
    (folder,) = (tmp_path / "cut").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert_same(weights(whole), weights(resume_run(folder)))


PLACES = [(Processes, "gather", 9), (Run, "_step_values", 7), (Run, "_evaluate", 2), (Processes, "share", 4)]


@pytest.mark.parametrize(("owner", "name", "call"), PLACES, ids=[name for _, name, _ in PLACES])
def test_another_process_may_die_while_any_sum_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int
) -> None:
    changes = {
        "model": {"decoder": {"type": "linear", "units": 20}},
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.05}},
        "inference": {"type": "fista", "start": "previous", "max_iterations": 5, "tolerance": 1e-6},
        "phases": {"learn": {"epochs": 3}},
        "learning": {"batch_size": 200, "log_every": 1, "checkpoint_seconds": 0},
    }
    whole = train(config(tmp_path / "whole", **changes))
    calls = count()
    original = getattr(owner, name)

    def fails_once(*given: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise OthersStopped("", "it was killed")
        return original(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails_once)
        with pytest.raises(RunError, match="another process"):
            train(config(tmp_path / "cut", **changes))
    (folder,) = (tmp_path / "cut").iterdir()
    again = resume_run(folder)
    assert_same(weights(whole), weights(again))
    noted = [[(one.step, one.kind) for one in read_history(run.folder / "metrics.jsonl")] for run in (whole, again)]
    assert noted[0] == noted[1]


def test_codes_of_the_last_epoch_survive_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.05}}
    changes = {
        "energy": energy,
        "model": {"decoder": {"type": "linear", "units": 20}},
        "inference": {"type": "fista", "start": "previous", "max_iterations": 5, "tolerance": 1e-6},
        "phases": {"learn": {"epochs": 2}},
        "learning": {"batch_size": 200, "log_every": 1},
    }
    whole = train(config(tmp_path / "whole", **changes))
    interrupted_at(config(tmp_path / "cut", **changes), 8, monkeypatch)
    (folder,) = (tmp_path / "cut").iterdir()
    assert_same(weights(whole), weights(resume_run(folder)))


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    run = train(config(tmp_path))
    with pytest.raises(InputError, match="finished"):
        resume_run(run.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning": {"monitor": "validation/classification/eror"}}, "validation/classification/error"),
        ({"phases": {"a": {"epochs": 1, "freeze": ["decodr"]}}}, "decodr"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(config(tmp_path / "out", **changes))
    assert not list((tmp_path / "out").glob("*/run.json"))


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output\.folder.*file"):
        train(config(tmp_path / "file"))


def test_a_diverging_energy_stops_the_run_and_names_the_term(tmp_path: Path) -> None:
    learning = {"rate": 1e30, "optimiser": "sgd", "log_every": 1}
    model = {"encoder": {"type": "linear"}, "decoder": {"type": "linear", "units": 20, "constraint": "none"}}
    with pytest.raises(RunError, match=r"energy\.\w+ became (nan|inf)"):
        train(config(tmp_path, learning=learning, model=model))


def test_a_resume_with_other_threads_says_what_is_no_longer_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(config(tmp_path / "whole"))
    interrupted_at(config(tmp_path / "cut"), 7, monkeypatch)
    (folder,) = (tmp_path / "cut").iterdir()
    before = torch.get_num_threads()
    loaded = load_config(config(tmp_path / "cut", backend={"type": "cpu", "threads": 2}))
    try:
        run = resume_run(folder, loaded, allow_changes=True)
    finally:
        torch.set_num_threads(before)
    assert "threads was 1 and is 2" in caplog.text
    assert "no longer bit for bit" in caplog.text
    assert run.record["moved"] == [{"step": 7, "changes": {"threads": [1, 2]}}]
    assert steps_of(run) == steps_of(whole)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(run)[name], value, rtol=1e-2, atol=1e-3)


def test_a_resume_on_the_same_machine_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_at(config(tmp_path), 7, monkeypatch)
    (folder,) = tmp_path.iterdir()
    assert "moved" not in resume_run(folder).record
    assert caplog.text == ""


def test_a_run_killed_before_its_end_was_told_ends_once_more(tmp_path: Path) -> None:
    class Told:
        ended = 0

        @hookimpl
        def run_ended(self) -> None:
            self.ended += 1

    run = train(config(tmp_path))
    record = json.loads((run.folder / "run.json").read_text())
    assert record["told"]
    (run.folder / "run.json").write_text(json.dumps({**record, "told": False}))
    before, told = weights(run), Told()
    again = resume_run(run.folder, followers=[told])
    assert told.ended == 1
    assert_same(before, weights(again))
    assert steps_of(again) == list(range(1, 34))


def test_a_run_of_another_config_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_at(config(tmp_path), 7, monkeypatch)
    (folder,) = tmp_path.iterdir()
    other = load_config(config(tmp_path, name="other", seed=5))
    with pytest.raises(InputError, match=r"is a run of 'small', this config is 'other'; name a run of this config"):
        resume_run(folder, other)


def test_gradients_and_constraints_are_measured(tmp_path: Path) -> None:
    run = train(config(tmp_path))
    records = list(read_history(run.folder / "metrics.jsonl"))
    step = next(record for record in records if record.kind == "step")
    assert step.values["gradient/decoder.dictionary"] > 0
    assert "gradient/classification.weight" not in step.values  # the first phase has no task
    last = [record for record in records if record.kind == "epoch"][-1]
    assert 0 <= last.values["constraint/decoder.dictionary"] <= 1


class Slow(TensorSource):
    """Says that reading takes time, and notes in which threads it was read."""

    slow = True

    def __init__(self, **fields: torch.Tensor) -> None:
        super().__init__(**fields)
        self.threads: set[str] = set()

    def read(self, rows: torch.Tensor) -> Batch:
        self.threads.add(threading.current_thread().name)
        return super().read(rows)


def test_batches_that_are_read_ahead_give_the_same_bits(tmp_path: Path) -> None:
    runs = [Run(load_config(config(tmp_path)), tmp_path / name) for name in ("here", "ahead")]
    train_split = runs[1].splits.train
    assert isinstance(train_split, TensorSource)
    slow = Slow(**train_split.fields)
    runs[1].splits = replace(runs[1].splits, train=slow)
    for run in runs:
        run.start()
        for _ in run.steps():
            pass
    here = threading.current_thread().name
    assert slow.threads
    assert here not in slow.threads
    assert_same(*(run.model.state_dict() for run in runs))
