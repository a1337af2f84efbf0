"""What a sandbox may be made of besides the default: a real Kubernetes, PostgreSQL, Celery with everything twice.

Debian's programs are used as they are on the machine, with folders of the sandbox's own and no system service.
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.stack_model import write_private

CHOICES: Mapping[str, tuple[str, str]] = {
    "kubernetes": ("standin", "real"),
    "database": ("sqlite", "postgres"),
    "executor": ("local", "celery"),
}
"""The parts that may be chosen; the first of each is the default."""
DATABASE_USER = "airflow"
CONNECTIONS = 200
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
"""Below it, in ``<version>/bin``, are the programs that Debian does not put on the PATH."""
CELERY_SLOTS = 6
"""Tasks at a time of one of the two workers."""
QUEUED_SECONDS = 90
"""Airflow's default is 600."""
DOUBLED: Mapping[str, tuple[str, ...]] = {
    "scheduler-2": ("scheduler", "--skip-serve-logs"),
    "triggerer-2": ("triggerer", "--skip-serve-logs"),
}
WORKERS = ("celery-1", "celery-2")
WORKER_ENV = {"AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "False"}
"""The process of a Celery worker has the plugin and the clients before it forks: else each task imports them anew."""


class MissingProgramError(OSError):
    """A program of a variant is not on this machine; the text says which and how to get it."""


@dataclass(frozen=True)
class Variant:
    """The choice. Raises ValueError for one that does not exist or cannot work."""

    kubernetes: str = "standin"
    database: str = "sqlite"
    executor: str = "local"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}")
        if self.executor == "celery" and self.database == "sqlite":
            raise ValueError("executor celery needs database postgres: SQLite bears one scheduler and one writer only")

    @property
    def doubled(self) -> bool:
        """Whether there are two of each Airflow component that may be there twice."""
        return self.executor == "celery"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each choice."""
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help=f"default: {choices[0]}")


def variant_of(args: argparse.Namespace) -> Variant:
    """The variant of parsed options."""
    return Variant(**{name: getattr(args, name) for name in CHOICES})


def find_program(name: str, package: str) -> str:
    """The path of a program: PostgreSQL's newest of Debian, else on the PATH. Raises MissingProgramError."""
    found = sorted(DEBIAN_POSTGRES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        raise MissingProgramError(f"no {name} on this machine; on Debian: apt-get install {package}")
    return program


def _as_owner(folder: Path, *argv: str) -> tuple[str, ...]:
    """A command in a folder; for root as the folder's user: PostgreSQL refuses to run as root."""
    placed = ("env", f"--chdir={folder}")
    if os.geteuid() != 0:
        return (*placed, *argv)
    user = _unprivileged()
    return (*placed, "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--", *argv)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingProgramError("no user postgres and no user nobody on this machine to run PostgreSQL as")


@dataclass(frozen=True)
class Services:
    """PostgreSQL and Redis of one sandbox: ports, folders, passwords that are nowhere but in the environment."""

    state: Path
    database_port: int
    broker_port: int
    database_password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    broker_password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    @property
    def _link(self) -> Path:
        return self.state / "postgres"

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the metadata database."""
        place = f"127.0.0.1:{self.database_port}/postgres"
        return f"postgresql+psycopg2://{DATABASE_USER}:{self.database_password}@{place}"

    def environment(self, variant: Variant) -> dict[str, str]:
        """Airflow's settings that differ from those of the default sandbox."""
        env: dict[str, str] = {}
        if variant.database == "postgres":
            env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = self.database_url
        if variant.executor == "celery":
            broker = f"redis://:{self.broker_password}@127.0.0.1:{self.broker_port}/0"
            env |= {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CELERY__BROKER_URL": broker,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.database_url}",
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(CELERY_SLOTS),
                # A message that a killed worker had taken comes to nobody; Airflow sends the task again after this.
                "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(QUEUED_SECONDS),
                "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            }
        return env

    def make_database(self, log: Path) -> None:
        """Make an empty database in a folder of its own.

        The folder lies outside the state folder, which the other user could not enter. Raises MissingProgramError, or
        RuntimeError with what initdb said.
        """
        remove_database(self.state)
        folder = Path(tempfile.mkdtemp(prefix="sandbox-postgres-"))
        self._link.symlink_to(folder)
        secret = folder / "password"
        write_private(secret, self.database_password)
        if os.geteuid() == 0:
            for path in (folder, secret):
                os.chown(path, _unprivileged().pw_uid, _unprivileged().pw_gid)
        program = find_program("initdb", "postgresql")
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", f"--pwfile={secret}")
        argv = _as_owner(folder, program, "-D", str(folder / "data"), f"--username={DATABASE_USER}", *options)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        secret.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed with code {done.returncode}:\n{done.stderr[-2000:]}")

    def database_command(self) -> tuple[str, ...]:
        """PostgreSQL on 127.0.0.1; it does not wait for the disk, as nothing here outlives the machine."""
        program = find_program("postgres", "postgresql")
        folder = self._link.resolve()
        settings = (
            f"max_connections={CONNECTIONS}",
            "fsync=off",
            "unix_socket_directories=",
            "listen_addresses=127.0.0.1",
        )
        chosen = (word for setting in settings for word in ("-c", setting))
        return _as_owner(folder, program, "-D", str(folder / "data"), "-p", str(self.database_port), *chosen)

    def database_ready(self) -> Callable[[], bool]:
        """A check that is true once PostgreSQL takes connections."""
        program = find_program("pg_isready", "postgresql")
        argv = (program, "-q", "-h", "127.0.0.1", "-p", str(self.database_port))
        return lambda: subprocess.run(argv, check=False).returncode == 0

    def broker_command(self) -> tuple[str, ...]:
        """Redis on 127.0.0.1; what is queued outlives its restart. The password is in a private file."""
        folder = self.state / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        lines = (
            f"port {self.broker_port}",
            "bind 127.0.0.1",
            f"requirepass {self.broker_password}",
            f"dir {folder}",
            "appendonly yes",
            'save ""',
        )
        write_private(folder / "redis.conf", "\n".join([*lines, ""]))
        return (find_program("redis-server", "redis-server"), str(folder / "redis.conf"))


def remove_database(state: Path) -> None:
    """Remove the database folder of this or an earlier sandbox over a state folder."""
    link = state / "postgres"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=not link.exists())
        link.unlink()


def worker_commands(home: Path) -> dict[str, tuple[str, ...]]:
    """Airflow's arguments of the two Celery workers, by part."""
    return {
        name: (
            "celery",
            "worker",
            "--celery-hostname",
            f"{name}@%h",
            "--skip-serve-logs",
            "--pid",
            str(home / f"{name}.pid"),
        )
        for name in WORKERS
    }


def kubernetes_module(variant: Variant) -> str:
    """The module that is the API server."""
    return "standins.controlplane" if variant.kubernetes == "real" else "standins.kubernetes"


def build_control_plane() -> None:
    """Build the real control plane's programs if need be; the output shows what goes on.

    Raises MissingProgramError when they cannot be had.
    """
    done = subprocess.run([sys.executable, "-m", "standins.controlplane.build"], stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise MissingProgramError("the programs of a real Kubernetes control plane cannot be had; see above")
