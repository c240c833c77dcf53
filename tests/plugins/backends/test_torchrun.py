"""Two processes against one: the same parameters, figures and codes; restarts, failures and interruptions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from groundstate.config import dump_toml, load_config
from groundstate.encode import encode
from groundstate.history import read_history
from groundstate.model import Model
from groundstate.run import train
from groundstate_plugins.backends.torchrun import Torchrun, _meeting
from groundstate_plugins.decoders.linear import LinearDecoder
from groundstate_plugins.reconstructions.squared_error import SquaredError
from groundstate_plugins.regularisers.l1 import L1
from groundstate_plugins.solvers.fista import Fista

SPARSE_CODING: dict[str, Any] = {
    "data": {"type": "digits"},
    "model": {"decoder": {"type": "linear", "units": 30, "constraint": "sphere"}},
    "energy": {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {
            "type": "lateral-inhibition",
            "sparsity": 0.1,
            "learn": True,
            "row_sum": 2.0,
            "non_negative": True,
        },
    },
    "inference": {"type": "ista", "tolerance": 0, "max_iterations": 20, "start": "previous"},
    "learning": {"batch_size": 301, "clip": 1.0, "average": 0.9, "log_every": 1, "monitor": "validation/energy"},
    "phases": {"learn": {"epochs": 6}},
}
DRSAE: dict[str, Any] = {
    "data": {"type": "digits"},
    "model": {"encoder": {"type": "recurrent", "steps": 3}, "decoder": {"type": "linear", "units": 20}},
    "energy": {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {"type": "l1", "weight": 0.01, "non_negative": True},
        "classification": {"type": "cross-entropy", "weight": 0.3},
    },
    "inference": {"type": "amortised"},
    "learning": {"batch_size": 100, "log_every": 1},
    "phases": {"alone": {"epochs": 1, "terms": ["reconstruction", "sparsity"]}, "joint": {"epochs": 2}},
}
ONLINE: dict[str, Any] = {
    **SPARSE_CODING,
    "energy": {
        "reconstruction": {"type": "squared-error"},
        "sparsity": {"type": "l1", "weight": 0.1, "non_negative": True},
    },
    "inference": {"type": "fista", "tolerance": 0, "max_iterations": 30},
    "learning": {"type": "online-dictionary", "batch_size": 301, "replace_after": 2, "log_every": 1},
    "phases": {"learn": {"epochs": 3}},
}
REPLACING: dict[str, Any] = {
    **ONLINE,
    "energy": {**ONLINE["energy"], "sparsity": {"type": "l1", "weight": 0.2, "non_negative": True}},
}
"""So sparse that atoms go unused, and are replaced."""

SAME = [
    pytest.param(SPARSE_CODING, 1e-12, id="sparse coding"),
    pytest.param(DRSAE, 1e-12, id="drsae"),
    pytest.param(ONLINE, 1e-10, id="online dictionary"),
    # a new atom's sums begin at 0: its next place is divided by few squared codes, which enlarges what is rounded
    pytest.param(REPLACING, 1e-8, id="online dictionary that replaces atoms"),
]
"""Configs, and how near two processes come to one, relative to a parameter's largest value."""

PATIENCE = 200
"""Seconds: a machine may be busy."""

BARE = {
    "tracking": False,
    "callbacks": {"progress": False},
    "output": {"report": False},
    "backend": {"type": "torchrun", "dtype": "float64"},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No launcher's variables, and the process's threads as they were."""
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def write(folder: Path, config: Mapping[str, Any], **more: Any) -> Path:
    """A config file in this folder, whose runs go there too."""
    folder.mkdir(exist_ok=True)
    tables = {**config, **BARE, **more}
    tables["output"] = {"folder": str(folder / "runs"), "report": False}
    file = folder / "config.toml"
    file.write_text(dump_toml(load_config(tables).config), encoding="utf-8")
    return file


WORKERS = """
import os, signal, sys
import groundstate.run  # before the processes part, so that it is imported once
from groundstate.cli import main

children = []
for rank in range(2):
    child = os.fork()
    if child == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        code = main(sys.argv[1:])
        sys.stdout.flush()
        os._exit(code)
    children.append(child)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the two alone
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
"""What torchrun does for two processes on one machine, without its seconds of start."""


def start(words: list[str], **environment: str) -> subprocess.Popen[str]:
    """Two processes that meet at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given = {name: value for name, value in given.items() if not name.startswith("TORCHELASTIC")} | environment
    words = [sys.executable, *words]
    return subprocess.Popen(words, env=given, stderr=subprocess.PIPE, text=True, start_new_session=True)


def two(*words: str) -> subprocess.Popen[str]:
    return start(["-c", WORKERS, *words], WORLD_SIZE="2")


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the end of all of them; what they said."""
    try:
        return process.communicate(timeout=PATIENCE)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in time"
        time.sleep(0.02)


def the_run(file: Path) -> Path:
    (folder,) = (file.parent / "runs").iterdir()
    return folder


def records(folder: Path) -> list[tuple[int, str]]:
    return [(record.step, record.kind) for record in read_history(folder / "metrics.jsonl")]


@pytest.mark.parametrize(("config", "near"), SAME)
def test_two_processes_learn_what_one_learns(config: dict[str, Any], near: float, tmp_path: Path) -> None:
    alone = train(write(tmp_path / "one", config)).folder
    file = write(tmp_path / "two", config)
    process = two("train", str(file))
    said = ended(process)
    assert process.returncode == 0, said
    together = the_run(file)
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (alone, together))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert float((b[name] - value).abs().max()) <= near * float(value.abs().max()), name
    one, other = (list(read_history(folder / "metrics.jsonl")) for folder in (alone, together))
    assert records(alone) == records(together)
    for first, second in zip(one, other, strict=True):
        timed = {"seconds", "samples_per_second"}
        for name in first.values.keys() - timed:
            assert second.values[name] == pytest.approx(first.values[name], rel=1e-7, abs=1e-9), (first.step, name)


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def saved(file: Path) -> list[int]:
    """When the checkpoint of this config's run was written."""
    return [checkpoint.stat().st_mtime_ns for checkpoint in file.parent.glob("runs/*/checkpoint.safetensors")]


@pytest.mark.soak
def test_ten_kills_in_a_row_change_nothing(tmp_path: Path) -> None:
    config = {**DRSAE, "phases": {"joint": {"epochs": 200}}}
    learning = {**DRSAE["learning"], "checkpoint_seconds": 0.1, "monitor": "validation/energy"}
    whole = write(tmp_path / "whole", config, learning=learning)
    process = two("train", str(whole))
    said = ended(process)
    assert process.returncode == 0, said
    file, random, kills, killed = write(tmp_path / "killed", config, learning=learning), Random(0), 0, set()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=10"]
    process = start([*launcher, "--monitor-interval=0.1", "-m", "groundstate", "train", str(file)])
    while kills < 10:
        assert process.poll() is None, "it ended before the last kill"
        workers = [pid for pid in workers_of(process) if pid not in killed]
        if len(workers) == 2:
            # half of them while the processes start and meet, the others once they have gone on
            before = saved(file)
            while kills % 2 and saved(file) == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0, 0.5 if kills % 2 else 3))
            os.kill(random.choice(workers), signal.SIGKILL)
            killed |= set(workers)
            kills += 1
        time.sleep(0.05)
    said = ended(process)
    assert process.returncode == 0, said
    first, second = the_run(whole), the_run(file)
    assert records(first) == records(second)
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (first, second))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert not list(second.glob(".*.tmp"))


def test_processes_that_start_again_meet_each_other_and_not_the_dead() -> None:
    store, world = dist.HashStore(), 3
    met: list[set[str]] = []
    for _ in range(3):
        with ThreadPoolExecutor(world) as pool:  # the first process comes first and finds what the dead have asked
            asked = [pool.submit(_meeting, store, rank, world, 30) for rank in range(world)]
            met.append({one.result() for one in asked})
    assert [len(names) for names in met] == [1, 1, 1]
    assert len(set.union(*met)) == 3


def test_a_first_process_that_stays_alone_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"2 processes did not meet within 0\.1 seconds"):
        _meeting(dist.HashStore(), 0, 2, 0.1)


def test_a_fault_in_the_config_is_said_once(tmp_path: Path) -> None:
    file = write(tmp_path, DRSAE)
    process = two("train", str(file), "learning.rate=-1")
    said = ended(process)
    assert process.returncode == 2
    assert said.count("learning.rate") == 1, said


def test_two_processes_write_the_shards_that_one_writes(tmp_path: Path) -> None:
    terms = {"data": SquaredError(), "sparsity": L1(weight=0.3)}
    model = Model(terms=terms, decoder=LinearDecoder(units=8), solver=Fista(tolerance=1e-6)).build((12,))
    model.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((230, 12)).astype(np.float32))
    encode(model, [tmp_path / "x.npy"], tmp_path / "one", shard_rows=50)
    words = ["encode", str(tmp_path / "model"), str(tmp_path / "x.npy"), "--backend", "torchrun"]
    process = two(*words, "--shard-rows", "50", "-o", str(tmp_path / "two"))
    assert (ended(process), process.returncode) == ("", 0)
    assert {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()
    }
    process = two(*words, "-o", str(tmp_path / "codes.npy"))
    (sentence,) = ended(process).splitlines()
    assert "several processes make a folder of shards" in sentence
    assert process.returncode == 2


def test_a_process_that_fails_stops_all_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import os\n"
        "from groundstate import Regulariser\n\n"
        "class Odd(Regulariser):\n"
        "    calls = 0\n"
        "    def energy(self, z):\n"
        "        Odd.calls += 1\n"
        "        if os.environ.get('RANK') == '1' and Odd.calls > 9:\n"
        "            raise ValueError('an odd batch')\n"
        "        return z.flatten(1).square().sum(1)\n",
        encoding="utf-8",
    )
    (tmp_path / "registry.toml").write_text(
        '[regulariser.odd]\npath = "odd:Odd"\nsummary = "Fails in the second process"\n', encoding="utf-8"
    )
    file = write(tmp_path, DRSAE)
    with file.open("a", encoding="utf-8") as config:
        config.write('\n[energy.odd]\ntype = "odd"\n')
    process = two("train", str(file))
    said = ended(process)
    assert process.returncode == 1
    (sentence,) = [line for line in said.splitlines() if "odd batch" in line]
    assert sentence.startswith("process 1 of 2: regulariser 'odd'")
    record = json.loads((the_run(file) / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "failed"
    assert "an odd batch" in record["error"]
    assert (the_run(file) / "checkpoint.safetensors").is_file()


def test_an_interrupted_run_is_saved_and_goes_on(tmp_path: Path) -> None:
    file = write(tmp_path, {**DRSAE, "phases": {"joint": {"epochs": 4000}}})
    process = two("train", str(file))
    wait_for(tmp_path, "runs/*/metrics.jsonl")
    os.killpg(process.pid, signal.SIGINT)
    said = ended(process)
    assert sum("stopped by SIG" in line for line in said.splitlines()) == 1, said
    assert process.returncode == 130
    folder = the_run(file)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "interrupted"
    assert (folder / "checkpoint.safetensors").is_file()


def test_alone_it_is_the_first_of_one() -> None:
    backend = Torchrun()
    assert (backend.rank, backend.world, backend.launch) == (0, 1, None)
    assert Torchrun.available().available


def test_parts_of_a_batch_are_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(10)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(Torchrun().shard(rows))
    assert torch.cat(parts).equal(rows)
    assert {len(part) for part in parts} == {3, 4}
