"""Runs in PostgreSQL with artifacts in an S3 store, directly and behind a tracking server: all of it really running."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.stores.conftest import Process, assert_all_there, free_port, small

import groundstate
from groundstate.run import train
from groundstate_plugins.trackers.mlflow_lookup import find_model
from groundstate_plugins.trackers.spool import Delivered

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

COMPOSE = Path(__file__).parents[2] / "docs" / "compose.yaml"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
BUCKET = "groundstate"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database cluster of its own in a temporary folder; it refuses to run as root."""
    pytest.importorskip("psycopg2", reason="needs the package psycopg2-binary")
    if not PROGRAMS:
        pytest.skip("needs PostgreSQL: there is no /usr/lib/postgresql/*/bin")
    user: list[str] = []
    folder = tmp_path_factory.mktemp("postgresql")
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("needs a user 'postgres', since PostgreSQL does not run as root")
        if shutil.which("runuser") is None:
            pytest.skip("needs runuser, since PostgreSQL does not run as root")
        user = ["runuser", "-u", "postgres", "--"]
        folder = Path("/tmp") / f"groundstate-postgresql-{os.getpid()}"  # pytest's own folders are root's alone
        folder.mkdir()
        os.chown(folder, account.pw_uid, account.pw_gid)
    port = free_port()

    def postgres(program: str, *arguments: str) -> None:
        command = [*user, str(PROGRAMS[-1] / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, done.stderr.decode()

    try:
        postgres("initdb", "-U", "groundstate", "-A", "trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        postgres("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
        try:
            yield f"postgresql+psycopg2://groundstate@127.0.0.1:{port}/postgres"
        finally:
            postgres("pg_ctl", "stop", "-m", "immediate")
    finally:
        if user:
            shutil.rmtree(folder)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with one bucket; its address and keys in the environment. Gives the bucket's address."""
    boto3 = pytest.importorskip("boto3", reason="needs the package boto3")
    pytest.importorskip("moto", reason="needs the package moto[server]")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = Process(command, f"http://127.0.0.1:{port}", tmp_path / "s3.log")
    server.start("/moto-api/")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "MLFLOW_S3_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}/mlflow"
    server.kill()


def trained_and_found(uri: str, folder: Path, client: Any, **options: Any) -> Any:
    """Train a run that is recorded there; all of it must be, and the model must come back. Gives the MLflow run."""
    run = train(small(folder, {"type": "mlflow", "wait_seconds": 500, "uri": uri, "register_as": "digits", **options}))
    known = Delivered.load(run.folder)
    assert (known.problem, known.refused) == ("", 0)
    assert_all_there(client(uri), known.run_id, run.folder)
    found = client(uri).get_run(known.run_id)
    assert found.info.status == "FINISHED"
    files = {file.path for file in client(uri).list_artifacts(known.run_id)}
    assert {"config.toml", "run.json", "environment.txt", "images"} <= files
    newest = client(uri).search_model_versions("name = 'digits'")[0].version
    client(uri).set_registered_model_alias("digits", "champion", newest)
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    model = groundstate.load(find_model("models:/digits@champion", uri))
    np.testing.assert_array_equal(model.encode(x), run.model.encode(x))
    return found


@pytest.mark.slow
def test_a_database_and_s3_behind_a_tracking_server(
    tmp_path: Path, postgresql: str, s3: str, make_server: Callable[..., Process], client: Any
) -> None:
    server = make_server("--backend-store-uri", postgresql, "--artifacts-destination", s3)
    server.start("/health")
    trained_and_found(server.url, tmp_path / "runs", client)
    import boto3

    objects = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]).list_objects_v2(Bucket=BUCKET)
    names = [entry["Key"] for entry in objects["Contents"]]
    assert any(name.endswith("/config.toml") for name in names)
    assert any(name.endswith("/model.safetensors") for name in names)


@pytest.mark.soak
def test_a_database_without_a_server(tmp_path: Path, postgresql: str, client: Any) -> None:
    found = trained_and_found(postgresql, tmp_path / "runs", client)
    assert found.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())


def test_the_compose_file_names_what_it_needs() -> None:
    """It parses, every service that another waits for is there, and no password is written in it."""
    tables = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    services = tables["services"]
    assert services.keys() == {"postgres", "minio", "bucket", "mlflow"}
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert named <= tables["volumes"].keys()
        secrets = {key: value for key, value in service.get("environment", {}).items() if "PASSWORD" in key}
        assert all(str(value).startswith("${") for value in secrets.values())
    command = services["mlflow"]["entrypoint"][-1]
    assert "--backend-store-uri" in command
    assert "--artifacts-destination s3://mlflow" in command
