"""Where MLflow keeps runs: the address, what is refused before a run starts, and opening it."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from groundstate.errors import Fault, InputError, nearest
from groundstate_plugins.trackers.mlflow_records import shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks", "uc")
ENVIRONMENT = "MLFLOW_TRACKING_URI"


def store_uri(configured: str | None = None) -> str:
    """The store's address: as configured, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory.

    Only the address is looked at, no connection is made. Raises InputError for a scheme that MLflow does not
    know, for MLflow's old file store, and for a SQLite file that cannot be written.
    """
    key = "tracking.uri" if configured else ENVIRONMENT
    uri = configured or os.environ.get(ENVIRONMENT) or "sqlite:///mlflow.db"
    if uri == "databricks":
        return uri
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in ("", "file"):
        raise InputError(
            Fault(
                f"'{uri}' is a folder, which MLflow no longer writes to; "
                f"use sqlite:///<path of a .db file>, a database or a server's http(s) address",
                key,
            )
        )
    if scheme not in (*DATABASES, *SERVERS):
        known = (*DATABASES, *SERVERS)
        raise InputError(Fault(f"'{uri}': MLflow has no store for '{scheme}:'; {nearest(scheme, known)}", key))
    if configured and urlsplit(uri).password:
        raise InputError(
            Fault(
                "the address holds a password, and the config is kept with every run; "
                f"set {ENVIRONMENT} (or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD) instead",
                key,
            )
        )
    if scheme == "sqlite":
        file = _sqlite_file(uri)
        folder = file.parent
        if not (os.access(file, os.W_OK) if file.exists() else os.access(folder, os.W_OK)):
            raise InputError(Fault(f"{file} cannot be written; choose a file in a writable folder", key))
        query = uri.partition("?")[2]
        path = str(file).replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{path}" + (f"?{query}" if query else "")
    return uri


def _sqlite_file(uri: str) -> Path:
    path = uri.partition("?")[0].partition("://")[2].removeprefix("/")
    return Path(unquote(path)).absolute()


def public(uri: str) -> str:
    """The address without its password, and without a server's user, who may be a token; for files and messages."""
    if uri.startswith("http"):
        return re.sub(r"^([^/]+://)[^/]*@", r"\1", uri)
    return re.sub(r"^([^/]+://[^/:@]*):[^/]*@", r"\1@", uri)


def brief(trouble: str) -> str:
    """Why a store is away, in the few words of it that a person needs."""
    for sign, meaning in (
        ("Connection refused", "nothing listens there"),
        ("resolve", "there is no such host"),
        ("timed out", "it does not answer in time"),
        ("mlflow-artifacts/", "it does not take artifacts; is its disk full?"),
        ("error responses", "it answers with errors"),
    ):
        if sign in trouble:
            return meaning
    return shortened(trouble.strip().partition("\n")[0], 200)


def with_secrets(uri: str) -> str:
    """The address that a run recorded, with user and password where the environment names the same store."""
    given = os.environ.get(ENVIRONMENT, "")
    return given if given and public(given) == uri else uri


def artifact_root(uri: str) -> Path | None:
    """Where a database's artifacts go: ``mlartifacts/`` beside the SQLite file, else in the working directory.

    None for a server, which has its own place for them.
    """
    if uri.startswith("sqlite:"):
        return _sqlite_file(uri).with_name("mlartifacts")
    if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
        return Path.cwd() / "mlartifacts"
    return None


def existing_store(configured: str | None = None) -> str:
    """``store_uri``, but of a store to read from: a SQLite file that is not there is an InputError."""
    uri = store_uri(configured)
    if uri.startswith("sqlite:") and not _sqlite_file(uri).is_file():
        raise InputError(
            f"there is no MLflow store at {_sqlite_file(uri)}; train something first, "
            f"go to the folder that holds mlflow.db, or set {ENVIRONMENT}"
        )
    return uri


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    # Two runs that start together would both create the tables of a new SQLite file, and one would fail.
    if not uri.startswith("sqlite:"):
        yield
        return
    folder = os.open(_sqlite_file(uri).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def open_store(uri: str) -> MlflowClient:
    """A client for the store; makes the tables of a new database (takes seconds)."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    if artifact_root(uri) is not None:
        with _one_at_a_time(uri):
            client.search_experiments(max_results=1)
    return client


def page_command(uri: str, port: int) -> list[str]:
    """The command line that serves MLflow's page on a database store."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    root = artifact_root(uri)
    return command if root is None else [*command, "--default-artifact-root", root.as_uri()]
