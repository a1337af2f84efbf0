"""The table of causes: whole, obeyed by everybody who decides by a cause, and what the runbook says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs import generate
from include.scorecard_backfill import life
from include.scorecard_backfill.planning.learned import Customer, Outcome, learn
from include.scorecard_backfill.planning.replan import too_big
from include.scorecard_backfill.verdicts.causes import CAUSES, CLEARS, SIZE, cause_of, decisive
from include.scorecard_backfill.verdicts.workflows import Execution, Status, judge
from tests.kit import build

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "include").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
DOCUMENTS = sorted(generate.BLOCKS)


def words_of(node: ast.AST) -> list[str]:
    """The words among the constants of an expression."""
    values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
    return [value for value in values if isinstance(value, str) and value.isidentifier()]


def named_causes(path: Path) -> Iterator[tuple[int, str]]:
    """Line and word of each cause that a file names: `failed(cause, ..)`, `Verdict("failed", .., cause)`, `cause=`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        given = [k.value for k in node.keywords if k.arg == "cause"]
        if name == "failed":
            given += node.args[:1]
        if name == "Verdict" and node.args and words_of(node.args[0]) == ["failed"]:
            given += node.args[2:3]
        yield from ((node.lineno, word) for value in given for word in words_of(value))


def test_every_cause_that_the_code_names_is_in_the_table() -> None:
    found = [(path.name, line, word) for path in SOURCES for line, word in named_causes(path)]
    assert {"killed", "deadline", "breaker", "configuration", "too_few_workflows"} <= {word for _, _, word in found}
    assert [entry for entry in found if entry[2] not in CAUSES] == []
    assert [row for row in life.TABLE if row.cause and row.cause not in CAUSES] == []


@pytest.mark.parametrize("cause", CAUSES.values(), ids=lambda c: c.name)
def test_a_cause_says_what_happened_and_what_to_do(cause: object) -> None:
    assert isinstance(cause, type(next(iter(CAUSES.values()))))
    assert cause.name.isidentifier()
    assert cause.name == cause.name.lower()
    assert cause.repeat in CLEARS
    assert cause.stages
    for text in (cause.means, cause.do):
        assert text[0].isupper()
        assert text.endswith(".")
        # Cells of the runbook's table.
        assert "|" not in text
        assert "\n" not in text
    # What is cut by itself must come to a good end by a clear, too, once it is a single day.
    assert cause.repeat == "reindex" if cause.size else True


def test_a_deadlock_is_size_and_can_be_repeated() -> None:
    assert {"heartbeat_timeout", "start_to_close_timeout", "workflow_timeout", "deadlock"} == SIZE
    assert cause_of("deadlock").repeat == "reindex"


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_cutting_and_learning_agree_about_size(name: str) -> None:
    window = build.window(days=31)
    is_cut = too_big([window], [build.failure(window, name)]) == [window]
    is_learned = learn({}, [Outcome("acme", 1_000, cause=name)])["acme"] != Customer()
    assert (is_cut, is_learned) == (CAUSES[name].size, CAUSES[name].size)


@pytest.mark.parametrize("name", sorted(SIZE))
def test_one_workflow_that_was_too_big_decides_for_its_window(name: str) -> None:
    ends: list[tuple[str, Status, str]] = [("a", "canceled", "canceled"), ("b", "failed", name)]
    found = {i: Execution(i, status, cause=cause) for i, status, cause in ends}
    assert judge(["a", "b"], found).cause == name


@given(st.lists(st.sampled_from(["", "other", *CAUSES])))
def test_what_decides_is_one_of_them(names: list[str]) -> None:
    chosen = decisive(names)
    assert chosen in names or (chosen == "" and not any(names))
    assert chosen in SIZE or not set(names) & SIZE


def test_an_unknown_cause_is_neither_size_nor_repeated_blindly() -> None:
    found = cause_of("from_another_version")
    assert (found.name, found.size, found.repeat) == ("from_another_version", False, "look")
    assert cause_of("").name == "unknown"


def test_each_repetition_has_its_causes() -> None:
    repeated = {name: cause.repeat for name, cause in CAUSES.items()}
    assert {repeated[name] for name in ("killed", "not_picked_up", "rows_left")} == {"delete"}
    assert {repeated[name] for name in ("lost_rows", "empty_day", "stale_rows")} == {"reindex"}


@pytest.mark.parametrize(("file", "name"), DOCUMENTS)
def test_generated_tables_are_fresh(file: str, name: str) -> None:
    text = (ROOT / "docs" / file).read_text(encoding="utf-8")
    assert text == generate.filled(text, name, generate.BLOCKS[file, name]()), "run: python docs/generate.py"


def test_a_block_that_is_not_there_once_is_refused() -> None:
    with pytest.raises(ValueError, match="0 blocks"):
        generate.filled("# nothing\n", "causes", "")
