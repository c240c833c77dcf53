"""Progress: a live view on a terminal, a few plain lines in a log, and next to no time."""

from __future__ import annotations

import fcntl
import io
import math
import os
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from groundstate_plugins.callbacks.progress import TREND, Progress, Trend, duration

METRICS = {"energy": 1.23456, "samples_per_second": 12345.6}


def a_run(folder: Path, step: int = 0) -> SimpleNamespace:
    """What the callback sees of a run: two phases of 2 and 3 epochs of 10 steps."""
    return SimpleNamespace(
        id="small-[red]-1",
        folder=folder,
        step=step,
        phase="first",
        schedule=[("first", SimpleNamespace(epochs=2), 10), ("second", SimpleNamespace(epochs=3), 10)],
        steps_in_epoch=10,
        steps_in_all=50,
        inputs=SimpleNamespace(train=range(1000)),
        learning=SimpleNamespace(monitor="validation/task/error"),
        metric=str,
        position=SimpleNamespace(seconds=185.0),
        config=SimpleNamespace(output=SimpleNamespace(report=True)),
    )


def at(run: SimpleNamespace, step: int, phase: str) -> SimpleNamespace:
    run.step, run.phase = step, phase
    return run


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_in_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes no terminal of a log
    progress = Progress(seconds=1000)
    run = a_run(tmp_path / "runs" / "small")
    progress.run_started(run, resumed=False)
    progress.phase_started(run, "first")
    for step in range(1, 21):
        progress.step_done(at(run, step, "first"), step, METRICS)
    progress.epoch_done(run, 20, {"validation/task/error": 0.0312})
    progress.phase_started(at(run, 20, "second"), "second")
    progress.step_done(at(run, 41, "second"), 41, METRICS)
    progress.epoch_done(run, 50, {})
    progress.run_ended(run)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "training small-[red]-1: 50 steps, 1,000 samples"
    assert lines[1].startswith("first, epoch 1/2, step 1/50: energy 1.235 · 12,346 samples/s · ")
    assert lines[1].endswith(" left")
    assert lines[2].startswith("second, epoch 3/3, step 41/50: energy 1.235 · 12,346 samples/s · ")
    assert lines[3:] == [
        "trained; evaluating, writing the report",
        "finished in 3:05 min",
        "run:    runs/small",
        "report: runs/small/report.html",
    ]


def test_epochs_count_from_where_a_phase_really_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(seconds=1000)
    run = a_run(tmp_path)
    progress.run_started(run, resumed=False)
    progress.phase_started(at(run, 10, "second"), "second")  # the first phase was stopped after one epoch
    progress.step_done(at(run, 11, "second"), 11, METRICS)
    assert "second, epoch 1/3, step 11/50" in capsys.readouterr().err


def test_lines_come_at_the_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(seconds=0.05)
    run = a_run(tmp_path)
    progress.run_started(run, resumed=True)
    assert capsys.readouterr().err.startswith("resuming ")
    progress.epoch_done(run, 10, {"validation/task/error": 0.0312})
    began = time.monotonic()
    while time.monotonic() - began < 0.3:
        progress.step_done(at(run, 11, "first"), 11, METRICS)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 7
    assert all("epoch 2/2" in line and "validation/task/error 0.0312" in line for line in lines)


def test_a_live_view_on_a_terminal_that_a_failure_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    progress = Progress()
    run = a_run(tmp_path, step=20)
    progress.run_started(run, resumed=True)
    figures = METRICS | {"energy/recon[red]": 1.0, "energy/sparsity": 0.23456, "code/density": 0.1}
    progress.step_done(at(run, 25, "second"), 25, figures)
    assert progress._view is not None
    progress.epoch_done(run, 30, {"validation/task/error": 0.0312})
    console = Console(width=100, file=io.StringIO())
    console.print(progress._view._drawn())
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines[0].startswith("first ━")
    assert "epoch 1/3" in lines[1]
    assert "17%" in lines[1]  # five steps of thirty
    assert lines[1].endswith("left")
    assert lines[2].startswith("all phases ━")
    assert "50%" in lines[2]
    assert lines[3:] == [
        "energy 1.235 ▁",
        "recon[red] 1 ▁",
        "sparsity 0.2346 ▁",
        "validation/task/error 0.0312 ▁",
        "12,346 samples/s",
    ]
    progress.run_failed(RuntimeError("stop"))
    assert progress._view is None
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_a_trend_covers_the_whole_run_in_a_few_blocks() -> None:
    trend = Trend()
    assert str(trend) == ""
    for value in range(1000):
        trend.add(float(value))
    text = str(trend)
    assert trend.last == 999.0
    assert TREND / 2 - 1 <= len(text) < TREND
    assert sorted(text) == list(text)
    assert (text[0], text[-1]) == ("▁", "█")
    trend.add(math.nan)
    assert set(str(trend)) <= set("▁▂▃▄▅▆▇█ ")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    import pty

    config = tmp_path / "long.toml"
    config.write_text('extends = "groundstate:drsae"\ntracking = false\n[phases.joint]\nepochs = 100000\n')
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "groundstate", "train", str(config), f"output.folder={tmp_path / 'runs'}"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    child = subprocess.Popen(
        command, stdin=secondary, stdout=secondary, stderr=secondary, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(secondary)
    seen = ""
    try:
        while "all phases" not in seen or "reconstruction" not in seen:
            seen += os.read(primary, 4096).decode(errors="replace")
        os.write(primary, b"\x03")
        while True:
            try:
                seen += os.read(primary, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        os.close(primary)
    assert code == 130
    (run,) = (tmp_path / "runs").iterdir()
    assert f"go on with --resume {run.name}" in seen
    assert (run / "checkpoint.safetensors").is_file()
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_step_costs_less_than_30_microseconds(
    stream: type[io.StringIO], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress()
    run = at(a_run(tmp_path), 11, "first")
    progress.run_started(run, resumed=False)
    costs = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            progress.step_done(run, 11, METRICS)
        costs.append((time.perf_counter() - began) / 2000)
    progress.run_failed(RuntimeError("over"))
    assert min(costs) < 30e-6


def test_durations_as_a_person_reads_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 185, 7380)] == ["0 s", "59 s", "3:05 min", "2:03 h"]
