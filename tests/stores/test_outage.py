"""A server that is killed, slow or answers 500 while a run trains: nothing is lost, and training does not wait."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.stores.conftest import Process, assert_all_there, small, until

from groundstate.hooks import hookimpl
from groundstate.run import Run, train
from groundstate_plugins.trackers.spool import Delivered, undelivered


class Pace:
    """Gives every step a least duration, and measures how long its hooks and the whole step take."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.hooks: list[float] = []
        self.steps: list[float] = []
        self._left = 0.0

    @hookimpl(wrapper=True, tryfirst=True)
    def step_done(self) -> Iterator[None]:
        began = time.perf_counter()
        result = yield
        now = time.perf_counter()
        self.hooks.append(now - began)
        if self._left:
            self.steps.append(now - self._left)
        time.sleep(self.pace)
        self._left = time.perf_counter()
        return result

    def told(self) -> str:
        return (
            f"{len(self.hooks)} steps; tracking's share: median {statistics.median(self.hooks) * 1e6:.0f} µs, "
            f"longest {max(self.hooks) * 1e3:.1f} ms; longest step {max(self.steps) * 1e3:.1f} ms"
        )


class Faults:
    """What happens between the run and the server, in turn: (seconds, what), then all is well."""

    def __init__(self, *what: tuple[float, Callable[[], None]]) -> None:
        self._thread = threading.Thread(target=self._happen, args=(what,))
        self.done = False

    def _happen(self, what: tuple[tuple[float, Callable[[], None]], ...]) -> None:
        for seconds, action in what:
            time.sleep(seconds)
            action()
        self.done = True

    def __enter__(self) -> Faults:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server; or answers 500, late, or closes the connection. mode: which."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target)
        self.mode = "pass"
        self.asked = self.failed = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that did not wait has closed the connection: no matter."""


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        if self.server.mode == "slow":
            time.sleep(1.5)
        if self.server.mode == "500":
            self.server.failed += 1
            self.send_error(500)
            return
        upstream = http.client.HTTPConnection(self.server.target.netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        try:
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if self.server.mode == "lost":  # done, but its answer never arrives: the record is sent again
            self.server.failed += 1
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    made: list[Proxy] = []

    def make(target: str) -> Proxy:
        proxy = Proxy(target)
        made.append(proxy)
        threading.Thread(target=proxy.serve_forever, args=(0.05,)).start()
        return proxy

    yield make
    for proxy in made:
        proxy.shutdown()
        proxy.server_close()


def tracked(folder: Path, uri: str, epochs: int, pace: Pace, **options: Any) -> Run:
    tracking = {"type": "mlflow", "uri": uri, "wait_seconds": 300, "head_start_seconds": 0, "system_metrics": False}
    tracking |= options
    return train(small(folder, tracking, epochs), followers=[pace])


def killed_and_restarted(
    folder: Path, server: Process, client: Any, *, epochs: int, before: float, away: float
) -> tuple[Pace, float]:
    """Trains while the server is killed after ``before`` seconds and comes back ``away`` later; all must be there."""
    uri = server.start("/health")
    pace = Pace(0.01)
    with Faults((before, server.kill), (away, lambda: server.start("/health") and None)) as faults:
        run = tracked(folder, uri, epochs, pace, log_model=False)
        assert run.position.seconds > before + away, "the run was over before the server was back"
    assert faults.done
    until(lambda: undelivered(run.folder) == 0)
    known = Delivered.load(run.folder)
    assert (known.refused, known.records > run.step) == (0, True)
    assert_all_there(client(uri), known.run_id, run.folder)
    assert client(uri).get_run(known.run_id).info.status == "FINISHED"
    assert "MLflow is away" in (run.folder / "tracking" / "sender.log").read_text()
    return pace, run.position.seconds


@pytest.mark.slow
def test_a_server_killed_in_mid_run_gets_everything(
    tmp_path: Path, make_server: Callable[..., Process], client: Any
) -> None:
    pace, _ = killed_and_restarted(tmp_path / "runs", make_server(), client, epochs=80, before=5, away=3)
    # A wait for the server would take seconds; a busy machine may stop any process for a moment.
    assert statistics.median(pace.hooks) < 2e-3
    assert max(pace.hooks) < 1.0


@pytest.mark.soak
def test_a_server_killed_for_a_minute_gets_everything_and_never_stops_training(
    tmp_path: Path, make_server: Callable[..., Process], client: Any
) -> None:
    pace, seconds = killed_and_restarted(tmp_path / "runs", make_server(), client, epochs=700, before=10, away=60)
    print(f"\nserver away for 60 s of {seconds:.0f} s: {pace.told()}")
    assert max(pace.steps) < 0.1


@pytest.mark.slow
def test_a_slow_server_and_one_that_answers_500(
    tmp_path: Path, make_server: Callable[..., Process], make_proxy: Callable[[str], Proxy], client: Any
) -> None:
    server = make_server()
    proxy = make_proxy(server.start("/health"))
    pace = Pace(0.01)

    def misbehave() -> None:
        for mode in ("pass", "slow", "500", "lost"):
            asked, proxy.mode = proxy.asked, mode
            until(lambda least=asked + 3: proxy.asked >= least)
        proxy.mode = "pass"

    with Faults((0.0, misbehave)) as faults:
        run = tracked(tmp_path / "runs", proxy.url, 90, pace, log_model=False)
    assert faults.done
    until(lambda: undelivered(run.folder) == 0)
    known = Delivered.load(run.folder)
    assert proxy.failed > 0
    assert known.refused == 0
    assert_all_there(client(server.url), known.run_id, run.folder)
    assert statistics.median(pace.hooks) < 2e-3
    assert max(pace.hooks) < 1.0


@pytest.mark.slow
def test_the_end_of_a_run_says_what_is_not_delivered_and_sync_delivers_it(
    tmp_path: Path, make_server: Callable[..., Process], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server()
    run = tracked(tmp_path / "runs", server.url, 1, Pace(0.0), wait_seconds=0.2, patience_seconds=0)
    said = capsys.readouterr().err
    assert f"records are not delivered to {server.url} yet" in said
    assert f"groundstate sync {run.folder}" in said
    server.start("/health")
    until(lambda: sync(run.folder).returncode == 0, 60)
    assert_all_there(client(server.url), Delivered.load(run.folder).run_id, run.folder)
    assert "everything is delivered" in sync(run.folder).stdout


def sync(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundstate", "sync", str(folder)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
