"""Where the programs of the control plane are: given by KUBEBUILDER_ASSETS, or built once from the modules in ``go/``.

``python -m standins.controlplane.build`` builds them if need be and prints their folder. Exit code 3: they are not
there and there is no Go to build them with. With ``--look`` nothing is built; exit code 4: they are not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

MODULE = Path(__file__).parent / "go"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
ASSETS = "KUBEBUILDER_ASSETS"
"""Environment variable, as of the kubebuilder tools: a folder with the programs."""
CACHE = "CONTROLPLANE_CACHE"
"""Environment variable: the folder for what was built; default ``~/.cache/scorecard-backfill/controlplane``."""
NO_GO = 3
NOT_BUILT = 4
BUILD_SECONDS = 3600
"""Longest build: 15 minutes on two idle cores, more when they are shared."""


class BuildError(RuntimeError):
    """The programs cannot be had; the text says what is missing and what to do."""


class NoGo(BuildError):
    """There is no Go on this machine, or an older one than go.mod asks for."""


def fingerprint() -> str:
    """What the programs are made from: go.mod, go.sum and the mains; and by which kind of machine."""
    digest = hashlib.sha256(os.uname().machine.encode())
    for path in sorted(MODULE.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(MODULE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """The folder of the programs that this tree's modules make."""
    return Path(env.get(CACHE) or Path.home() / ".cache/scorecard-backfill/controlplane") / fingerprint()


def missing(folder: Path) -> list[str]:
    """The programs that are not in a folder."""
    return [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]


def existing(env: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of programs that are there already, or None.

    Raises BuildError if KUBEBUILDER_ASSETS names a folder without one of them.
    """
    if given := env.get(ASSETS):
        if lacking := missing(Path(given)):
            raise BuildError(f"{ASSETS} is {given}, and it has no {', '.join(lacking)}")
        return Path(given)
    folder = cache_folder(env)
    return None if missing(folder) else folder


def kubernetes_version() -> str:
    """The release in go.mod, such as ``v1.36.3``. Raises BuildError if it names none."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    return found[1]


def ensure(env: Mapping[str, str] = os.environ) -> Path:
    """The folder of the programs, built if need be. Raises BuildError."""
    if found := existing(env):
        return found
    folder = cache_folder(env)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:  # two builds at a time would need twice the memory
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := existing(env):
            return found
        _build(folder, env)
    return folder


def _build(folder: Path, env: Mapping[str, str]) -> None:
    go = shutil.which("go", path=env.get("PATH"))
    if go is None:
        raise NoGo(f"no Go on this machine to build {', '.join(PROGRAMS)}; install it or set {ASSETS}")
    draft = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    stamp = f"k8s.io/component-base/version.gitVersion={kubernetes_version()}"
    command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags", f"-s -w -X {stamp}", "-o", f"{draft}/", "./..."]
    building = {**env, "CGO_ENABLED": "0", "GOWORK": "off"}
    print(f"building {', '.join(PROGRAMS)} {kubernetes_version()} into {folder}: some minutes", file=sys.stderr)
    done = subprocess.run(command, cwd=MODULE, env=building, capture_output=True, text=True, timeout=BUILD_SECONDS)
    if done.returncode != 0:
        kind = NoGo if "go.mod requires go >=" in done.stderr else BuildError
        raise kind(f"go build in {MODULE} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    if lacking := missing(draft):
        raise BuildError(f"go build in {MODULE} made no {', '.join(lacking)}")
    draft.rename(folder)


def main(argv: list[str]) -> int:
    """Build if need be (not with ``--look``), print the folder."""
    try:
        if "--look" in argv and existing() is None:
            print(f"{', '.join(PROGRAMS)} are not built; without --look this builds them", file=sys.stderr)
            return NOT_BUILT
        print(ensure())
    except NoGo as error:
        print(error, file=sys.stderr)
        return NO_GO
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
