"""The table of mutants: the same sample for the same seed, and nothing that no test noticed is called noticed."""

from __future__ import annotations

import pytest

from tests.kit.mutants import (
    ENGINE,
    NOT_OF_THE_RULES,
    OWN_LOOPS,
    READS_SOURCES,
    ROOT,
    UNIT_OF_PLUGINS,
    judges_of,
    made_of,
    sample,
    table,
    word_of,
)

TRIED = {
    "include.scorecard_backfill.life.x_next_step__mutmut_1": 1,
    "include.scorecard_backfill.life.x_next_step__mutmut_2": 0,
    "include.scorecard_backfill.sql.census.x_leg__mutmut_1": 36,
    "include.scorecard_backfill.sql.census.x_leg__mutmut_2": 33,
}


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    names = [f"m{n}" for n in range(50)]
    assert sample(names, 1, 5) == sample(names[::-1], 1, 5) != sample(names, 2, 5)
    assert sample(names, 1, 99) == sorted(names)


@pytest.mark.parametrize(
    ("code", "word"), [(1, "killed"), (0, "survived"), (33, "no test"), (36, "too slow"), (-9, "too slow")]
)
def test_what_became_of_a_mutant(code: int, word: str) -> None:
    assert word_of(code) == word


def test_the_table_counts_by_module_and_names_what_nobody_noticed() -> None:
    text = table(TRIED)
    assert "| life | 2 | 1 | 1 | 0 | 0 |" in text
    assert "| sql.census | 2 | 0 | 0 | 1 | 1 |" in text
    assert "| **all** | 4 | 1 | 1 | 1 | 1 |" in text
    assert "1 of 3 noticed (33%); 1 not judged" in text
    assert [line.rpartition(": ")[2] for line in text.splitlines() if line.startswith("- `")] == [
        "survived", "too slow", "no test",
    ]  # fmt: skip


def test_tests_that_are_left_out_exist() -> None:
    files = [path.name for path in (ROOT / "tests" / "unit").glob("test_*.py")]
    assert [start for start in NOT_OF_THE_RULES if not any(name.startswith(start) for name in files)] == []
    path, _, name = READS_SOURCES.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_the_tests_on_the_engine_are_all_of_them() -> None:
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "unit").glob("test_*_engine.py"))
    assert sorted(ENGINE) == found


def test_pure_tests_of_the_plugins_are_all_of_them() -> None:
    files = sorted((ROOT / "tests" / "unit").glob("test_*.py"))
    found = [path.relative_to(ROOT).as_posix() for path in files if "\nfrom backfill" in path.read_text()]
    assert list(UNIT_OF_PLUGINS) == found
    assert all((ROOT / path).exists() for paths in OWN_LOOPS.values() for path in paths)


LEARNED = {"a.life.x_step": ["t1", "t2"], "a.life.x_row": ["t0"], "a.jobs.fields.x_rows": ["t0"],
           "a.jobs.rules.x_all": ["t3", "t4"], "a.lifeboat.x": ["t9"]}  # fmt: skip


@pytest.mark.parametrize(
    ("mutant", "tests"),
    [
        ("a.life.x_step__mutmut_7", ["t1", "t2"]),
        # Known with one test only, the one that came first after the import: the module judges, else the package.
        ("a.life.x_row__mutmut_1", ["t0", "t1", "t2"]),
        ("a.life.x_new__mutmut_1", ["t0", "t1", "t2"]),
        ("a.jobs.fields.x_rows__mutmut_1", ["t0", "t3", "t4"]),
        ("b.x.x_nobody__mutmut_1", []),
    ],
)
def test_what_runs_at_import_is_judged_by_the_tests_of_its_module_or_package(mutant: str, tests: list[str]) -> None:
    assert judges_of(LEARNED, mutant) == tests


def test_mutants_are_of_these_files_and_modules() -> None:
    assert made_of("a/*") == made_of("a/*") != made_of("b/*")
