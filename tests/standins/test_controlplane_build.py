"""Where the programs of the real control plane are taken from, and what is said when they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from standins.controlplane import build
from standins.controlplane.access import grants, rules
from standins.controlplane.seeding import accounts
from standins.kubernetes.client import KIND, PROJECT, is_real
from standins.kubernetes.rbac import Deny


def programs_in(folder: Path, *names: str) -> Path:
    """A folder with files that may be run."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_a_folder_that_is_given_is_taken(tmp_path: Path) -> None:
    folder = programs_in(tmp_path / "assets", *build.PROGRAMS)
    assert build.existing({build.ASSETS: str(folder)}) == folder
    assert build.ensure({build.ASSETS: str(folder)}) == folder


def test_a_folder_that_lacks_a_program_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = programs_in(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    with pytest.raises(build.BuildError, match=f"{folder}, and it has no kube-controller-manager"):
        build.ensure({build.ASSETS: str(folder)})


def test_what_was_built_is_found_again(tmp_path: Path) -> None:
    env = {build.CACHE: str(tmp_path)}
    assert build.existing(env) is None
    folder = programs_in(tmp_path / build.fingerprint(), *build.PROGRAMS)
    assert build.ensure(env) == folder


def test_a_change_of_the_modules_is_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.fingerprint()
    copied = shutil.copytree(build.MODULE, tmp_path / "go")
    monkeypatch.setattr(build, "MODULE", copied)
    assert build.fingerprint() == before
    for name in ("go.mod", "go.sum", "etcd/main.go"):
        text = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(f"{text}\n", encoding="utf-8")
        assert build.fingerprint() != before
        (copied / name).write_text(text, encoding="utf-8")


def test_without_go_the_command_says_so_and_ends_with_3(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path), build.CACHE: str(tmp_path / "cache")}
    env.pop(build.ASSETS, None)
    command = [sys.executable, "-m", "standins.controlplane.build"]
    result = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == build.NO_GO == 3
    assert "no Go on this machine" in result.stderr
    assert build.ASSETS in result.stderr


def test_modules_of_one_release_go_together() -> None:
    text = (build.MODULE / "go.mod").read_text(encoding="utf-8")
    minor = build.kubernetes_version().removeprefix("v1.")
    assert f"k8s.io/component-base v0.{minor}\n" in text
    replaced = [line.split("=>")[1].split()[1] for line in text.splitlines() if "=>" in line]
    assert set(replaced) == {f"v0.{minor}"}


@pytest.mark.parametrize(("value", "real"), [(None, False), ("standin", False), ("real", True)])
def test_the_kind_of_server_is_chosen_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, value: str | None, real: bool
) -> None:
    monkeypatch.delenv(KIND, raising=False)
    if value is not None:
        monkeypatch.setenv(KIND, value)
    assert is_real() is real


def test_a_kind_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KIND, "kind")
    with pytest.raises(ValueError, match="SANDBOX_KUBERNETES is 'kind'"):
        is_real()


def test_a_role_leaves_out_what_is_denied_and_nothing_else() -> None:
    def held(*deny: dict[str, list[str]]) -> set[tuple[str, str, str]]:
        return {
            (rule["apiGroups"][0], rule["resources"][0], verb)
            for rule in rules([Deny.model_validate(raw) for raw in deny])
            for verb in rule["verbs"]
        }

    everything = held()
    assert everything == {(kind.group, resource, verb) for kind, resource, verb in grants()}
    assert everything - held({"verbs": ["create"], "resources": ["jobs"]}) == {("batch", "jobs", "create")}
    assert everything - held({"resources": ["pods/log"]}) == {("", "pods/log", "get")}
    with pytest.raises(ValueError, match="single namespaces"):
        held({"namespaces": ["default"]})


def test_the_service_accounts_of_a_manifest_are_found_at_any_depth() -> None:
    pod = {"spec": {"serviceAccountName": "a", "containers": [{"serviceAccountName": 1}]}}
    assert list(accounts({"spec": {"jobTemplate": {"spec": {"template": pod}}}})) == ["a"]
    assert list(accounts({"kind": "Namespace"})) == []
