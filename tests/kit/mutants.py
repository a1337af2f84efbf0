"""Which changes of the code no test notices: a sample of mutants of include/ or plugins/backfill/, as a table.

``python -m tests.kit.mutants --seed 1 --number 300`` copies the project to .sandbox/mutants, has mutmut make all
mutants and learn which tests run which function, and tries a sample of them. Each mutant runs in a process of its own
the tests of its function, up to the first failure. docs/mutants.md says how to read it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".sandbox" / "mutants"
COPIED = ("dags", "docs", "include", "plugins", "sandbox", "standins", "tests", "Makefile", "pyproject.toml")

NOT_OF_THE_RULES = (
    "test_benchmarks",
    "test_docs_",
    "test_page_",
    "test_sandbox_",
    "test_tooling_",
    "test_config_read",
    "test_known_faults",
)
"""Unit tests about the repository itself: they read files, which mutmut has changed."""

READS_SOURCES = "tests/unit/test_causes.py::test_every_cause_that_the_code_names_is_in_the_table"
"""The one test of that kind in a file of others."""

OWN_PROCESS = (
    "tests/airflow/test_operators_plan.py::test_a_refusals_last_line_is_its_sentence_and_an_error_keeps_its_traceback"
)
"""Starts a process in a file of others: it would import the project as it is, or nothing."""

ENGINE = tuple(f"tests/unit/test_{name}_engine.py" for name in ("census", "null", "putback", "sql", "sql_system"))
"""Tests on chDB, whose threads do not live on in a forked process: only :func:`judged_alone` runs them."""

OF_ENGINE = ("sql.", "config.rules", "verdicts.census")
"""Modules that they are about."""

PLUGINS = "plugins/backfill/"
"""Modules below it are judged by the tests in tests/airflow, and by those of tests/unit that import them."""

UNIT_OF_PLUGINS = tuple(f"tests/unit/test_{name}.py" for name in ("clickhouse_errors", "clickhouse_hosts", "retries"))
"""Pure parts of plugins/ have their tests there. Those of the command (cli/) start processes."""

NOT_OF_PLUGINS = (
    "test_costs",
    "test_dag_file",
    "test_deploy_role",
    "test_operators_dag",
    "test_package",
    "test_port_forward",
)
"""Tests in tests/airflow that start processes of their own, or read the repository's files."""

OWN_LOOPS: Mapping[str, tuple[str, ...]] = {"backfill.hooks.port_forward": ("tests/airflow/test_port_forward.py",)}
"""Tests on threads with an event loop, which a fork does not have; :func:`judged_alone` runs them."""

ALONE_SECONDS = 120.0
"""A mutant that has not failed a test by then is not judged."""

SETTINGS = """
[tool.mutmut]
source_paths = [{source}]
only_mutate = {only}
also_copy = {copied}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-n", "0", {more}]
use_setproctitle = false
use_git_change_detection = false
"""

KILLED, SURVIVED, UNTESTED, SLOW = "killed", "survived", "no test", "too slow"
WORDS: Mapping[int, str] = {1: KILLED, 2: KILLED, 3: KILLED, 0: SURVIVED, 5: UNTESTED, 33: UNTESTED}
"""Exit codes of mutmut and pytest (2: a test file cannot even be imported).

Every other one is a mutant whose tests did not end in time, or did not begin: it is not judged."""


NOT_FOUND = 4
"""Exit code of pytest when a test that is named is not there."""


def word_of(code: int) -> str:
    """Return what became of a mutant that was tried."""
    return WORDS.get(code, SLOW)


def made_of(only: str) -> str:
    """Return the digest of everything that the mutants of these modules and what is learned of the tests rest on."""
    digest = hashlib.sha256(only.encode())
    for name in COPIED:
        below = (ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]
        files = (path for path in below if path.is_file() and not {"__pycache__", "node_modules"} & {*path.parts})
        for path in sorted(files):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def make(work: Path, only: str) -> dict[str, int | None]:
    """Make all mutants and learn the tests, unless that was done of the very same files; return the mutants.

    Raises RuntimeError when there are none, or the tests fail without any change.
    """
    note, now = work / "made_of", made_of(only)
    if not note.exists() or note.read_text() != now:
        prepare(work, only)
        # No mutant has this name: mutmut makes all of them, runs the tests once and tries none.
        mutmut(work, ["none.of.them"])
    every = outcomes(work)
    if not every or not (work / "mutants" / "mutmut-stats.json").exists():
        raise RuntimeError(f"mutmut has made no mutant, or learned no test; see {work / 'mutmut.log'}")
    note.write_text(now)
    return every


def prepare(work: Path, only: str) -> None:
    """Make a fresh copy of the project with mutmut's settings for modules that match patterns, divided by commas."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(ROOT / name, work / name)
    source, more = "include", ["--deselect", READS_SOURCES]
    tests = [path for path in test_files("unit", NOT_OF_THE_RULES) if path not in ENGINE]
    if only.startswith(PLUGINS):
        # mutmut names a module by its path, Airflow imports it without the folder's name: of src/ mutmut knows that.
        source, more = "src", ["--deselect", OWN_PROCESS]
        tests = [*test_files("airflow", NOT_OF_PLUGINS), *UNIT_OF_PLUGINS]
        (work / "src").mkdir()
        shutil.move(work / "plugins" / "backfill", work / "src" / "backfill")
        only = only.replace(PLUGINS, "src/backfill/")
    copied = [name for name in COPIED if name not in (source, "tests", "pyproject.toml")]
    with (work / "pyproject.toml").open("a") as settings:
        settings.write(
            SETTINGS.format(
                source=json.dumps(source),
                only=json.dumps(only.split(",")),
                copied=json.dumps(copied),
                tests=json.dumps(tests),
                more=", ".join(map(json.dumps, more)),
            )
        )


def test_files(folder: str, left_out: tuple[str, ...]) -> list[str]:
    """Return the test files of a folder of tests/, without those whose names begin with one of ``left_out``."""
    found = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    return [path.relative_to(ROOT).as_posix() for path in found if not path.name.startswith(left_out)]


def mutmut(work: Path, names: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run mutmut for these mutants; its own output is kept in a file, since it is one line for each mutant."""
    # The copy must be what is imported, not the project that this process runs in.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (work / "mutmut.log").open("a") as log:
        return subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names],
            cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip


def judged_alone(work: Path, name: str) -> int:
    """Return the exit code of a mutant whose tests are run by a fresh process, as a fork cannot run all of them.

    A fork has imported every module before the mutant is switched on, so that it does not see what changes at import.
    """
    stats = json.loads((work / "mutants" / "mutmut-stats.json").read_text())
    tests = judges_of(stats["tests_by_mangled_function_name"], name)
    tests += ENGINE if module_of(name).startswith(OF_ENGINE) else OWN_LOOPS.get(module_of(name), ())
    if not tests:
        return 33
    code = run_tests(work, name, tests)
    # A test whose name is made of what the mutant has changed is not found: all of its file is run.
    return run_tests(work, name, sorted({test.partition("::")[0] for test in tests})) if code == NOT_FOUND else code


def judges_of(learned: Mapping[str, Iterable[str]], name: str) -> list[str]:
    """Return the tests that run a mutant's function; when at most one is known, those of its module, else its package.

    What runs at import is learned with whichever test comes first, and that one says nothing about it.
    """
    function = name.partition("__mutmut_")[0]
    module = function.rpartition(".")[0]
    found: set[str] = set()
    for scope in (function, module, module.rpartition(".")[0]):
        of_scope = (tests for known, tests in learned.items() if f"{known}.".startswith(f"{scope}."))
        found = {test for tests in of_scope for test in tests}
        if len(found) > 1:
            break
    return sorted(found)


def run_tests(work: Path, name: str, tests: Sequence[str]) -> int:
    """Return pytest's exit code for a mutant ('' for the code as it is), -1 when it has not ended in time."""
    copy = work / "mutants"
    paths = os.pathsep.join(map(str, (copy, copy / "src")))
    environment = os.environ | {"PYTHONPATH": paths, "MUTANT_UNDER_TEST": name}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--deselect", READS_SOURCES, *tests]
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, check=False, timeout=ALONE_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def outcomes(work: Path) -> dict[str, int | None]:
    """Return every mutant by name with its exit code, None for one that was not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((work / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def sample(names: Sequence[str], seed: int, number: int) -> list[str]:
    """Return ``number`` of the names, the same for the same seed; all of them when there are not more."""
    return sorted(random.Random(seed).sample(sorted(names), min(number, len(names))))


def module_of(name: str) -> str:
    """Return the module of a mutant's name, without the package's own."""
    return name.rpartition(".")[0].removeprefix("include.scorecard_backfill.")


def table(tried: Mapping[str, int]) -> str:
    """Return the outcomes by module as Markdown, and the names of the mutants that no test has noticed."""
    by_module: dict[str, Counter[str]] = defaultdict(Counter)
    for name, code in tried.items():
        by_module[module_of(name)][word_of(code)] += 1
    total = sum(by_module.values(), Counter())
    lines = ["| module | tried | killed | survived | no test | too slow |", "|---|---:|---:|---:|---:|---:|"]
    for module, found in [*sorted(by_module.items()), ("**all**", total)]:
        numbers = (found.total(), found[KILLED], found[SURVIVED], found[UNTESTED], found[SLOW])
        lines.append(f"| {module} | {' | '.join(map(str, numbers))} |")
    judged = total.total() - total[SLOW]
    share = total[KILLED] / max(1, judged)
    lines += ["", f"{total[KILLED]} of {judged} noticed ({share:.0%}); {total[SLOW]} not judged", ""]
    lines += [f"- `{name}`: {word_of(code)}" for name, code in sorted(tried.items()) if word_of(code) != KILLED]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Try a sample and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=300, help="mutants to try")
    parser.add_argument(
        "--only", default="include/scorecard_backfill/*", help="modules to change, as patterns, divided by commas"
    )
    asked = parser.parse_args()
    began = time.monotonic()
    every = make(WORK, asked.only)
    chosen = sample(list(every), asked.seed, asked.number)
    mutmut(WORK, chosen)
    found = outcomes(WORK)
    tried = {name: code for name in chosen if (code := found[name]) is not None}
    if not asked.only.startswith(PLUGINS) and (code := run_tests(WORK, "", ENGINE)):
        print(f"the tests on chDB fail without any change (exit code {code})", file=sys.stderr)
        return 1
    tried |= {name: judged_alone(WORK, name) for name, code in tried.items() if word_of(code) != KILLED}
    if len(tried) < len(chosen):
        print(f"{len(chosen) - len(tried)} mutants were not tried; see {WORK / 'mutmut.log'}", file=sys.stderr)
    text = (
        f"{len(tried)} of {len(every)} mutants, seed {asked.seed}, {time.monotonic() - began:.0f} s\n\n{table(tried)}"
    )
    (WORK / "table.md").write_text(text)
    print(text)
    return 0 if tried else 1


if __name__ == "__main__":
    sys.exit(main())
