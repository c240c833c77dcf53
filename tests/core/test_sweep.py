"""Sweeps: what is wrong is said before a trial starts, and every trial ends once, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from groundstate.config import load_config
from groundstate.errors import InputError, RunError
from groundstate.run import Interrupted, train
from groundstate.sweep import Range, read_sweep, search, sweep, worker
from groundstate.sweep.study import Study

pytest.importorskip("optuna", reason="needs Optuna: install the [sweep] extra")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "sweeps"
WEIGHTS = [0.1, 0.2, 0.4, 0.8]


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """A run of a twentieth of a second."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    return {
        "name": "tiny",
        "data": {"type": "npy", "path": str(tmp_path / "x.npy")},
        "model": {"decoder": {"type": "linear", "units": 6}},
        "energy": {"reconstruction": {"type": "squared-error"}, "sparsity": {"type": "l1", "weight": 0.1}},
        "inference": {"type": "fista", "max_iterations": 5, "tolerance": 1e-2},
        "learning": {"batch_size": 100, "monitor": "validation/energy"},
        "phases": {"learn": {"epochs": 2}},
        "backend": {"type": "cpu", "threads": 1},
        "tracking": False,
        "callbacks": {"progress": False},
        "output": {"folder": str(tmp_path / "runs"), "report": False},
    }


class InProcess:
    """Runs a trial at once where a sweep would start a process."""

    pid = 0

    def __init__(self, made: search.Sweep, number: int) -> None:
        with worker.trial_lock(made.folder, number) as held:
            assert held
            self.code = worker.run_trial(made.folder, number, made._url)

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.Sweep, "_spawn", lambda made, number: InProcess(made, number))


def grid(**changes: Any) -> dict[str, Any]:
    return {"sampler": "grid", "over": {"energy.sparsity.weight": WEIGHTS}, **changes}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "runs").glob("*/run.json"))]


def trials_of(folder: Path, name: str = "tiny") -> list[dict[str, Any]]:
    found = json.loads((folder / "runs" / "sweeps" / name / "trials.json").read_text())["trials"]
    return sorted(found, key=lambda one: one["trial"])


# -- reading ----------------------------------------------------------------------------------------

BASE = 'extends = "groundstate:drsae"\n'


def written(folder: Path, text: str) -> Path:
    file = folder / "search.toml"
    file.write_text(BASE + text)
    return file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[sweep.over]\n"energy.sparsity.wieght" = [0.1]\n',
            "search.toml:3 energy.sparsity.wieght: unknown key; did you mean 'weight'?",
        ),
        ("[sweep.over]\nphases.jont.epochs = [1]\n", "search.toml:3 phases.jont.epochs: there is no [phases.jont]"),
        (
            "[sweep.over]\nenergy.sparsty.weight = [0.1]\n",
            "energy.sparsty.weight: there is no [energy.sparsty] in the config; did you mean 'sparsity'?",
        ),
        ("[sweep.over]\nlearning.optimiser = ['adam', 'adm']\n", 'search.toml:3 learning.optimiser: is "adm"'),
        ("[sweep.over]\nmodel.decoder.units = {low = 5, high = 9}\n", "search.toml:3 model.decoder.units: is 7"),
        ("[sweep]\ntrails = 3\n", "search.toml:3 sweep.trails: unknown key; did you mean 'trials'?"),
        ("[sweep]\njobs = 0\n", "search.toml:3 sweep.jobs: is 0"),
        ("[sweep.over]\nlearning.rate = 0.1\n", "search.toml:3 sweep.over.learning.rate: is 0.1; must be a list"),
        ("[sweep.over]\nlearning.rate = []\n", "search.toml:3 sweep.over.learning.rate: is []; must be a list"),
        ("[sweep.over]\nlearning.rate = {low = 0.1, hihg = 1}\n", "learning.rate.high: field required"),
        ("[sweep.over]\nlearning.rate = {low = 1, high = 0.1}\n", "low must be less than high"),
        ("[sweep.over]\nlearning.rate = {low = 0, high = 1, log = true}\n", "with log, low must be greater than 0"),
        ("[sweep.over]\nlearning.rate = {low = 1, high = 2, log = true, step = 0.1}\n", "log and step exclude"),
        ("[sweep.over]\nmodel.decoder.units = {low = 1.5, high = 4, int = true}\n", "must be whole numbers"),
        ("[sweep]\nsampler = 'grid'\nover.learning.rate = {low = 0.1, high = 1}\n", "a grid needs a list of values"),
        ("[sweep]\ntrials = 3\n", "search.toml: nothing to search"),
        ("[sweep.over]\nlearning.rate = [2020-01-01]\n", "may hold only numbers"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        read_sweep(written(tmp_path, text))
    assert said in str(raised.value).replace(f"{tmp_path}/", "")


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, '[sweep.over]\n"energy.sparsity.wieght" = [1]\n"learning.rat" = [1]\n')
    with pytest.raises(InputError) as raised:
        read_sweep(file)
    assert [fault.where.rpartition(":")[2] for fault in raised.value.faults] == ["3", "4"]


def test_nested_and_quoted_keys_say_the_same_and_the_command_line_adds(tmp_path: Path) -> None:
    nested = read_sweep(written(tmp_path, "[sweep.over]\nlearning.rate = [0.1, 0.2]\n"))
    quoted = read_sweep(written(tmp_path, '[sweep.over]\n"learning.rate" = [0.1, 0.2]\n'))
    assert nested.record() == quoted.record()
    more = read_sweep(
        written(tmp_path, "[sweep]\ntrials = 3\nover.learning.rate = [0.1, 0.2]\n"),
        settings={"trials": 5},
        over=["model.decoder.units={low=4, high=8, int=true}", "seed=[0, 1]"],
    )
    assert list(more.space.over) == ["learning.rate", "model.decoder.units", "seed"]
    assert more.trials == 5


def test_what_a_sweep_does_not_say_comes_from_the_config(tmp_path: Path) -> None:
    text = "[sweep.over]\nlearning.rate = [0.1, 0.2]\n[learning]\nmonitor = 'validation/energy'\nmonitor_mode = 'max'\n"
    plan = read_sweep(written(tmp_path, text))
    assert (plan.metric, plan.mode, plan.trials, plan.epochs) == ("validation/energy", "max", 50, 130)
    assert read_sweep(written(tmp_path, text), settings={"sampler": "grid"}).trials == 2
    assert read_sweep(written(tmp_path, text), settings={"metric": "test/energy"}).mode == "min"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_can_begin(example: Path) -> None:
    plan = read_sweep(example)
    assert plan.name == example.stem
    assert plan.trials > 1


def test_a_sweep_is_named_by_its_file_and_not_by_what_it_varies(tmp_path: Path) -> None:
    file = written(tmp_path, "[sweep.over]\nseed = [1, 2]\n")
    assert read_sweep(file).name == "search"
    assert read_sweep(file, ["name=other"]).name == "other"


def test_a_single_run_of_a_sweep_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"search\.toml:3 sweep: says what `groundstate sweep` searches"):
        load_config(written(tmp_path, "\n[sweep]\ntrials = 2\n"))


def test_without_a_metric_nothing_can_decide(tiny: dict[str, Any]) -> None:
    tiny["learning"] = {"batch_size": 100}
    with pytest.raises(InputError, match=r"sweep\.metric: name what decides"):
        read_sweep({**tiny, "sweep": grid()})


def test_options_of_a_searched_type_are_kept(tiny: dict[str, Any]) -> None:
    over = {"energy.sparsity.weight": [0.3], "energy.sparsity.type": ["l1", "l2"]}
    plan = read_sweep({**tiny, "sweep": {"over": over}})
    for values in plan.space.grid():
        term = plan.space.config(values).config.energy["sparsity"]
        assert (term.type, term.weight) == (values["energy.sparsity.type"], 0.3)


def test_corners_hold_every_value_where_not_every_combination_is_tried(tiny: dict[str, Any]) -> None:
    over = {f"energy.sparsity.{key}": value for key, value in {"weight": [n / 10 for n in range(1, 30)]}.items()}
    over |= {"learning.rate": {"low": 0.1, "high": 0.5, "step": 0.2}, "seed": [1, 2, 3, 4, 5]}
    space = read_sweep({**tiny, "sweep": {"over": over}}).space
    found = space.corners(most=30)
    assert len(found) == 30
    assert {one["seed"] for one in found} == {1, 2, 3, 4, 5}
    assert {one["energy.sparsity.weight"] for one in found} == set(over["energy.sparsity.weight"])
    assert len(space.grid()) == 29 * 3 * 5


def test_points_of_a_range() -> None:
    assert Range(low=0, high=1, step=0.25).points() == [0, 0.25, 0.5, 0.75, 1]
    assert Range(low=2, high=9, step=3, int=True).points() == [2, 5, 8]
    assert Range(low=0.1, high=0.7, step=0.2).points() == pytest.approx([0.1, 0.3, 0.5, 0.7])


# -- choosing ---------------------------------------------------------------------------------------


def study(plan: Any, folder: Path, total: int | None = None) -> Study:
    return Study(f"sqlite:///{folder / 'study.db'}", plan.name, total or plan.trials, plan=plan)


def test_a_grid_gives_each_point_once_also_when_asked_by_several(tiny: dict[str, Any], tmp_path: Path) -> None:
    plan = read_sweep({**tiny, "sweep": grid(over={"energy.sparsity.weight": WEIGHTS, "seed": [1, 2]})})
    askers = [study(plan, tmp_path), study(plan, tmp_path)]
    asked = [askers[number % 2].ask("me") for number in range(8)]
    assert [one.values for one in asked if one is not None] == plan.space.grid()
    assert [asker.ask("me") for asker in askers] == [None, None]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_going_on_draws_what_would_have_been_drawn(tiny: dict[str, Any], tmp_path: Path, sampler: str) -> None:
    over = {"energy.sparsity.weight": {"low": 0.01, "high": 1, "log": True}, "seed": [1, 2, 3]}
    plan = read_sweep({**tiny, "sweep": {"sampler": sampler, "over": over, "trials": 6}})

    def draw(folder: Path, cuts: list[int]) -> list[Any]:
        folder.mkdir()
        drawn = []
        for count in cuts:
            asker = study(plan, folder)
            for _ in range(count):
                trial = asker.ask("me")
                assert trial is not None
                asker.finish(trial.number, "finished", trial.values["energy.sparsity.weight"])
                drawn.append(trial.values)
        return drawn

    whole = draw(tmp_path / "whole", [6])
    assert draw(tmp_path / "cut", [2, 1, 3]) == whole
    assert len({one["energy.sparsity.weight"] for one in whole}) == 6
    assert all(0.01 <= one["energy.sparsity.weight"] <= 1 for one in whole)


def test_the_pruner_ends_what_falls_behind(tiny: dict[str, Any], tmp_path: Path) -> None:
    plan = read_sweep({**tiny, "sweep": {"over": {"seed": [1, 2]}, "trials": 9}})
    asker = study(plan, tmp_path)
    asker.prune_with("median", epochs=4)
    for number in range(5):
        assert asker.ask("me") is not None
        for epoch in (1, 2, 3):
            asker.report(number, epoch, number + epoch / 10)
            assert not asker.falls_behind(number) or number > 2
        asker.finish(number, "finished", float(number))
    assert asker.ask("me") is not None
    asker.report(5, 1, 100.0)
    asker.report(5, 2, 100.0)
    assert asker.falls_behind(5)
    asker.prune_with("none", epochs=4)
    assert not asker.falls_behind(5)


@pytest.mark.parametrize("url", ["no-url", "sqlite:////nowhere/at/all/study.db", "oracledb://somewhere/x"])
def test_a_database_that_cannot_be_used_is_refused(tiny: dict[str, Any], url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep\.storage"):
        sweep({**tiny, "sweep": grid(storage=url)})
    assert records(tmp_path) == []


def test_without_optuna_one_sentence_says_what_to_install(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'groundstate\[sweep\]'"):
        sweep({**tiny, "sweep": grid()})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metric": "validation/enrgy"}, "no metric 'validation/enrgy'; did you mean 'validation/energy'"),
        ({"metric": "test/energy", "pruner": "median"}, "'test/energy' is not measured each epoch"),
    ],
)
def test_a_metric_that_no_run_has_is_refused(
    tiny: dict[str, Any], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        sweep({**tiny, "sweep": grid(**settings)})
    assert not (tmp_path / "runs" / "sweeps").exists()


# -- running ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_a_sweep_finds_the_best_and_writes_it_out(tiny: dict[str, Any], tmp_path: Path) -> None:
    told: list[str] = []
    done = sweep({**tiny, "sweep": grid(jobs=2)}, tell=told.append)
    found = trials_of(tmp_path)
    assert [one["values"]["energy.sparsity.weight"] for one in found] == WEIGHTS
    assert {one["state"] for one in found} == {"finished"}
    runs = {record["id"]: record for record in records(tmp_path)}
    assert runs.keys() == {one["run"] for one in found}
    for one in found:
        record = runs[one["run"]]
        assert record["parent"] == {"id": done.id, "trial": one["trial"], "folder": str(done.folder)}
        assert record["metrics"]["validation/energy"] == one["value"]
    best = min(found, key=lambda one: one["value"])
    assert done.record["best"] == best
    again = train(load_config(done.folder / "best.toml"))
    assert again.metrics["validation/energy"] == best["value"]
    assert again.record["config_hash"] == runs[best["run"]]["config_hash"]
    for name in ("parallel.png", "importance.png"):
        with Image.open(done.folder / name) as picture:
            assert min(picture.size) > 150
            assert len(set(picture.convert("L").resize((64, 64)).get_flattened_data())) > 5
    assert done.record["status"] == "finished"
    assert len(told) == 4
    assert told[-1].endswith("4 of 4 done")


@pytest.mark.usefixtures("in_process")
def test_a_trial_that_fails_is_told_and_the_others_go_on(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: Path, **named: Any) -> Any:
        if named["parent"]["trial"] in broken:
            raise RunError("energy.sparsity became nan")
        return train(config, **named)

    monkeypatch.setattr(worker, "train", fail)
    broken = {0, 2}
    done = sweep({**tiny, "sweep": grid()})
    found = trials_of(tmp_path)
    assert [one["state"] for one in found] == ["failed", "finished", "failed", "finished"]
    assert found[0]["error"] == "energy.sparsity became nan"
    assert done.record["trials"] == {"failed": 2, "finished": 2}
    with pytest.raises(RunError, match=r"no trial of other finished; the first: energy\.sparsity became nan"):
        sweep({**tiny, "name": "other", "sweep": grid(over={"seed": [1]})})


@pytest.mark.usefixtures("in_process")
def test_a_finished_sweep_does_nothing_again_and_a_longer_one_goes_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    search_of = {"sampler": "random", "over": {"energy.sparsity.weight": {"low": 0.1, "high": 1}}}
    sweep({**tiny, "sweep": {**search_of, "trials": 2}})
    before = trials_of(tmp_path)
    sweep({**tiny, "sweep": {**search_of, "trials": 2, "jobs": 2}})
    assert trials_of(tmp_path) == before
    sweep({**tiny, "sweep": {**search_of, "trials": 3}})
    after = trials_of(tmp_path)
    assert after[:2] == before
    assert len(records(tmp_path)) == len(after) == 3


@pytest.mark.usefixtures("in_process")
def test_another_search_of_the_same_name_is_refused_with_its_keys(tiny: dict[str, Any]) -> None:
    sweep({**tiny, "sweep": grid(over={"seed": [1]})})
    with pytest.raises(InputError, match="begun with another search: over was") as raised:
        sweep({**tiny, "phases": {"learn": {"epochs": 1}}, "sweep": grid(over={"seed": [1, 2]})})
    assert "phases.learn.epochs was 2 and is 1" in str(raised.value)


@pytest.mark.usefixtures("in_process")
def test_a_pruned_trial_ends_early_and_keeps_its_figures(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["phases"] = {"learn": {"epochs": 4}}
    monkeypatch.setattr(Study, "falls_behind", lambda self, number: number == 1 and len(self.trial(1).reported) == 2)
    sweep({**tiny, "sweep": grid(pruner="median")})
    assert [one["state"] for one in trials_of(tmp_path)] == ["finished", "pruned", "finished", "finished"]
    (pruned,) = [record for record in records(tmp_path) if record["parent"]["trial"] == 1]
    assert "pruned after epoch 2" in pruned["error"]


@pytest.mark.usefixtures("in_process")
def test_a_trial_whose_process_ended_before_it_could_tell_is_not_run_again(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Study.finish
    lost: list[int] = []

    def sometimes(self: Study, number: int, *arguments: Any, **named: Any) -> None:
        if number == 2 and not lost:
            lost.append(number)
        else:
            finish(self, number, *arguments, **named)

    monkeypatch.setattr(Study, "finish", sometimes)
    sweep({**tiny, "sweep": grid()})
    assert lost == [2]
    assert [one["state"] for one in trials_of(tmp_path)] == ["finished"] * 4
    assert len(records(tmp_path)) == 4


@pytest.mark.usefixtures("in_process")
def test_a_trial_that_another_machine_left_is_taken_over_only_when_told(tiny: dict[str, Any], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    plan = read_sweep({**tiny, "sweep": grid(storage=url)})
    first = Study(url, plan.name, plan.trials, plan=plan).ask("another machine")
    assert first is not None
    told: list[str] = []
    sweep({**tiny, "sweep": grid(storage=url)}, tell=told.append)
    assert [one["state"] for one in trials_of(tmp_path)] == ["running", "finished", "finished", "finished"]
    assert told[-1].startswith("other machines still run trials 0")
    sweep({**tiny, "sweep": grid(storage=url)}, take_over=True)
    assert [one["state"] for one in trials_of(tmp_path)] == ["finished"] * 4


# -- real processes ---------------------------------------------------------------------------------

PROGRAM = (
    "import json, sys; from groundstate.sweep import sweep\n"
    "sweep(json.load(open(sys.argv[1])), tell=lambda text: print(text, flush=True))"
)


class Started:
    """A sweep in a process of its own."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        (folder / "sweep.json").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "sweep.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def trials(self) -> list[int]:
        """The processes of its trials."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def output(self) -> str:
        out, err = self.process.communicate(timeout=900)
        assert self.process.returncode == 0, err
        return out


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Started]]:
    begun: list[Started] = []

    def make(config: dict[str, Any]) -> Started:
        begun.append(Started(config, tmp_path))
        return begun[-1]

    yield make
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def wait_for(true: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def slowed(config: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Long enough to be killed in the middle, with a checkpoint after every step."""
    learning = {**config["learning"], "checkpoint_seconds": 0, "batch_size": 10}
    return {**config, "learning": learning, "phases": {"learn": {"epochs": epochs}}}


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may just have ended
        os.kill(pid, signal.SIGKILL)


def assert_all_finished_once(folder: Path, count: int) -> None:
    found = trials_of(folder)
    assert [one["trial"] for one in found] == list(range(count))
    assert [one["error"] for one in found] == [None] * count
    assert {one["state"] for one in found} == {"finished"}
    runs = records(folder)
    assert sorted(record["parent"]["trial"] for record in runs) == list(range(count))
    assert {record["status"] for record in runs} == {"finished"}


def test_a_killed_trial_and_a_killed_sweep_go_on_to_the_same_end(
    tiny: dict[str, Any], tmp_path: Path, start: Callable[..., Started]
) -> None:
    config = {**slowed(tiny, 25), "sweep": grid(over={"energy.sparsity.weight": WEIGHTS[:2]})}
    first = start(config)
    running = tmp_path / "runs"
    wait_for(lambda: list(running.glob("*/checkpoint.safetensors")))
    for pid in first.trials():
        kill(pid)
    wait_for(lambda: any(record["status"] == "finished" for record in records(tmp_path)))
    wait_for(lambda: len(list(running.glob("*/checkpoint.safetensors"))) == 2)
    killed = first.trials()
    first.process.kill()
    first.process.wait()
    for pid in killed:
        kill(pid)
    assert start(config).output().splitlines()[-1].endswith("2 of 2 done")
    assert_all_finished_once(tmp_path, 2)
    whole = train({**slowed(tiny, 25), "energy": {**tiny["energy"], "sparsity": {"type": "l1", "weight": 0.2}}})
    assert whole.metrics["validation/energy"] == trials_of(tmp_path)[1]["value"]


def test_an_interrupted_sweep_saves_its_trials_and_goes_on(
    tiny: dict[str, Any], tmp_path: Path, start: Callable[..., Started]
) -> None:
    config = {**slowed(tiny, 60), "sweep": grid(over={"seed": [3]})}
    first = start(config)
    wait_for(lambda: list((tmp_path / "runs").glob("*/checkpoint.safetensors")))
    first.process.send_signal(signal.SIGINT)
    _, errors = first.process.communicate(timeout=120)
    assert "the same command goes on with it" in errors
    assert json.loads((tmp_path / "runs/sweeps/tiny/sweep.json").read_text())["status"] == "interrupted"
    (record,) = records(tmp_path)
    assert record["status"] == "interrupted"
    start(config).output()
    assert_all_finished_once(tmp_path, 1)


def test_one_process_runs_a_sweep_at_a_time(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second(made: search.Sweep, number: int) -> InProcess:
        with pytest.raises(InputError, match="run by another process"):
            sweep(config)
        return InProcess(made, number)

    config = {**tiny, "sweep": grid(over={"seed": [3]})}
    monkeypatch.setattr(search.Sweep, "_spawn", second)
    sweep(config)
    assert_all_finished_once(tmp_path, 1)


def test_an_interruption_reaches_the_caller(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(made: search.Sweep, number: int) -> InProcess:
        raise KeyboardInterrupt

    monkeypatch.setattr(search.Sweep, "_spawn", interrupt)
    with pytest.raises(Interrupted, match="goes on with it"):
        sweep({**tiny, "sweep": grid()})


@pytest.mark.soak
def test_64_trials_of_two_jobs_end_once_though_one_is_killed_and_the_sweep_too(
    tiny: dict[str, Any], tmp_path: Path, start: Callable[..., Started]
) -> None:
    over = {
        "energy.sparsity.weight": {"low": 0.01, "high": 1, "log": True},
        "model.decoder.units": {"low": 2, "high": 12, "int": True},
    }
    config = {**slowed(tiny, 10), "sweep": {"trials": 64, "jobs": 2, "over": over}}
    first = start(config)
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/model"))) >= 8, 600)
    kill(wait_for(first.trials)[0])
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/model"))) >= 20, 600)
    orphans = first.trials()
    first.process.kill()
    first.process.wait()
    for pid in orphans[:1]:
        kill(pid)
    start(config).output()
    assert_all_finished_once(tmp_path, 64)
