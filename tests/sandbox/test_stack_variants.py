"""The choice of what a sandbox is made of, without starting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import stack_variants
from sandbox.stack_airflow import COMPONENTS
from sandbox.stack_layout import Options, airflow_process_env, components, make_layout, parts, service_parts
from sandbox.stack_variants import MissingProgramError, Services, Variant, find_program, remove_database

DOUBLE = Variant(database="postgres", executor="celery")


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"kubernetes": "kind"}, "kubernetes is 'kind'; it must be standin or real"),
        ({"database": "mysql"}, "database is 'mysql'"),
        ({"executor": "celery"}, "celery needs database postgres"),
    ],
)
def test_a_choice_that_cannot_work_is_refused(choice: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Variant(**choice)


def test_the_default_is_one_of_each_and_needs_no_service(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, Options(), "token")
    assert components(layout) == COMPONENTS
    assert service_parts(layout) == []
    assert airflow_process_env(layout)["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


def test_with_celery_there_are_two_of_each(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, Options(variant=DOUBLE), "token")
    first = [arguments[:2] for arguments in components(layout).values()]
    assert first.count(("scheduler", "--skip-serve-logs")) == 2
    assert first.count(("triggerer", "--skip-serve-logs")) == 2
    assert first.count(("celery", "worker")) == 2
    names = [part.name for part in parts(layout, {})]
    assert len(names) == len(set(names))
    env = airflow_process_env(layout)
    assert env["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://airflow:")


def test_a_real_kubernetes_has_the_stand_ins_command_line(tmp_path: Path) -> None:
    def argv(variant: Variant) -> list[tuple[str, ...]]:
        layout = make_layout(tmp_path, Options(port_base=None, variant=variant), "token")
        return [part.argv for part in parts(layout, {}) if part.name.startswith("kubernetes-")]

    def options(command: tuple[str, ...]) -> list[str]:
        return [word for word in command[3:] if word.startswith("--")]

    for ours, real in zip(argv(Variant()), argv(Variant(kubernetes="real")), strict=True):
        assert (ours[2], real[2]) == ("standins.kubernetes", "standins.controlplane")
        assert options(ours) == options(real)


def test_passwords_are_in_no_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack_variants, "find_program", lambda name, package: f"/usr/bin/{name}")
    services = Services(tmp_path, 5432, 6379)
    (tmp_path / "postgres").symlink_to(tmp_path)
    assert services.database_password != services.broker_password
    for command in (services.database_command(), services.broker_command()):
        assert services.database_password not in " ".join(command)
        assert services.broker_password not in " ".join(command)
    assert services.database_password not in repr(services)
    assert (tmp_path / "redis" / "redis.conf").stat().st_mode & 0o077 == 0


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack_variants, "DEBIAN_POSTGRES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match="no redis-server on this machine; on Debian: apt-get install redis"):
        find_program("redis-server", "redis-server")


def test_the_newest_postgres_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack_variants, "DEBIAN_POSTGRES", tmp_path)
    for version in ("9", "15", "16"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "postgres").touch()
    assert find_program("postgres", "postgresql") == str(tmp_path / "16" / "bin" / "postgres")


def test_the_folder_of_a_database_goes_with_the_sandbox(tmp_path: Path) -> None:
    folder, state = tmp_path / "elsewhere", tmp_path / "state"
    (folder / "data").mkdir(parents=True)
    state.mkdir()
    (state / "postgres").symlink_to(folder)
    remove_database(state)
    assert not folder.exists()
    remove_database(state)
    assert list(state.iterdir()) == []
