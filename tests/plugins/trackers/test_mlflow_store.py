from __future__ import annotations

from pathlib import Path

import pytest

from groundstate.errors import InputError
from groundstate_plugins.trackers.mlflow import MlflowTracker
from groundstate_plugins.trackers.mlflow_store import (
    artifact_root,
    brief,
    existing_store,
    page_command,
    public,
    store_uri,
    with_secrets,
)


def test_the_default_is_mlflow_db_in_the_working_directory(tmp_path: Path) -> None:
    uri = store_uri()
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert artifact_root(uri) == tmp_path / "mlartifacts"


def test_the_environment_counts_and_the_config_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert store_uri() == "http://tracking.example:5000"
    assert store_uri("https://other.example") == "https://other.example"
    assert artifact_root(store_uri()) is None


def test_a_relative_sqlite_path_is_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    uri = store_uri("sqlite:///a folder/my.db?timeout=5")
    assert uri == f"sqlite:///{tmp_path}/a folder/my.db?timeout=5"
    assert store_uri(uri) == uri
    assert artifact_root(uri) == tmp_path / "a folder" / "mlartifacts"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("htp://server", "did you mean 'http'"),
        ("postgres://server/db", "did you mean 'postgresql'"),
        ("file:///tmp/mlruns", "use sqlite:///"),
        ("./mlruns", "use sqlite:///"),
        ("https://me:secret@server", "password"),
        ("sqlite:////no/such/folder/mlflow.db", "cannot be written"),
    ],
)
def test_a_bad_address_is_refused_before_the_run(uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        MlflowTracker(uri=uri)
    assert caught.value.faults[0].key == "tracking.uri"


def test_a_bad_address_from_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://server")
    with pytest.raises(InputError) as caught:
        MlflowTracker()
    assert caught.value.faults[0].key == "MLFLOW_TRACKING_URI"


def test_drivers_of_databases_are_known() -> None:
    assert store_uri("postgresql+psycopg2://server/db") == "postgresql+psycopg2://server/db"
    assert store_uri("databricks") == "databricks"


def test_secrets_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    full = "https://me:secret@tracking.example/path"
    assert public(full) == "https://tracking.example/path"
    assert public("sqlite:////tmp/a@b/mlflow.db") == "sqlite:////tmp/a@b/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full)
    assert with_secrets("https://tracking.example/path") == full
    assert with_secrets("https://another.example") == "https://another.example"


def test_reading_from_a_store_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no MLflow store"):
        existing_store()
    with pytest.raises(InputError, match="no MLflow store"):
        MlflowTracker.ui()
    with pytest.raises(InputError, match=r"no model 'faces-1'.* no MLflow store"):
        MlflowTracker.find_model("faces-1")


def test_the_page_is_served_from_the_store_with_its_artifacts(tmp_path: Path) -> None:
    command = page_command(store_uri(), 5001)
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"
    assert command[command.index("--default-artifact-root") + 1] == (tmp_path / "mlartifacts").as_uri()
    assert command[command.index("--port") + 1] == "5001"


def test_the_page_of_a_server_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert MlflowTracker.ui(uri="http://tracking.example:5000") == 0
    assert "http://tracking.example:5000" in capsys.readouterr().err


def test_why_a_store_is_away_is_said_in_a_few_words() -> None:
    refused = "API request to http://x failed: HTTPConnectionPool(host='x'): (Caused by ... Connection refused)"
    assert brief(refused) == "nothing listens there"
    assert brief("ResponseError('too many 500 error responses')") == "it answers with errors"
    assert brief("Read timed out. (read timeout=20)") == "it does not answer in time"
    assert brief("database or disk is full\n[SQL: INSERT …]") == "database or disk is full"


def test_a_database_s_user_is_kept_and_its_password_is_not() -> None:
    assert public("postgresql://ann:secret@host/runs") == "postgresql://ann@host/runs"
    assert public("postgresql+psycopg2://ann@host:5/runs") == "postgresql+psycopg2://ann@host:5/runs"
    assert public("https://token@host/x") == public("https://ann:secret@host/x") == "https://host/x"
