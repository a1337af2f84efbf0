"""Source store and blocks for ClickHouse: what is written can be read, in the right shape."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from sandbox.data.__main__ import main
from sandbox.data.generate import APPEAL, Conversation, generate
from sandbox.data.loader import ClickHouseTarget, Paths, load
from sandbox.data.source import SourceReader, list_profiles
from sandbox.data.spec import ClusterSpec, rates_spec
from sandbox.data.tables import Block, columns_of, create_statements, load_blocks, reindex_blocks
from sandbox.data.truth import read_truth

SPEC = rates_spec("store", {"acme": 40, "acme/chat": 10, "globex.eu/voice-1": 20}, stragglers=2)


@dataclass
class FakeTarget:
    """Keeps what it is told."""

    statements: list[str] = field(default_factory=list)
    blocks: list[tuple[str, Block]] = field(default_factory=list)

    def command(self, statement: str) -> None:
        self.statements.append(statement)

    def insert(self, database: str, block: Block) -> None:
        self.blocks.append((database, block))

    def keys(self, database: str, table: str) -> list[object]:
        return [key for name, block in self.blocks if (name, block.table) == (database, table)
                for key in block.columns[0]]  # fmt: skip


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[SourceReader]:
    paths = Paths(tmp_path, "store")
    load(SPEC, paths, None)
    with closing(SourceReader(paths.source)) as opened:
        yield opened


def read_all(reader: SourceReader, customer: str, profile: str, start: str, end: str, size: int) -> list[str]:
    ids: list[str] = []
    after = (start, "")
    while batch := reader.batch(customer, profile, after, end, size):
        assert 0 < batch.conversations <= size
        assert all(card.scorecard_type != APPEAL for card in batch.scorecards)
        assert {s.scorecard.scorecard_id for s in batch.scores} == {c.scorecard_id for c in batch.scorecards}
        ids += [card.scorecard_id for card in batch.scorecards]
        after = batch.last
    return ids


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_give_each_ordinary_scorecard_once(reader: SourceReader, size: int) -> None:
    start, end = "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"
    expected = [
        card.scorecard_id
        for conversation in generate(SPEC, SPEC.profiles[0])
        if conversation.started_ms is not None and conversation.started_ms >= 1767225600000
        for card in conversation.scorecards
        if card.scorecard_type != APPEAL
    ]
    found = read_all(reader, "acme", "voice", start, end, size)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(expected)
    assert reader.count("acme", "voice", start, end) == 40


def test_start_is_inclusive_and_end_exclusive(reader: SourceReader) -> None:
    first, last = "2026-01-01T00:00:00.000Z", "2026-01-31T23:59:59.999Z"
    assert reader.count("acme", "voice", first, "2026-01-01T00:00:00.001Z") == 1
    assert reader.count("acme", "voice", last, "2026-02-01T00:00:00.000Z") == 1
    assert reader.count("acme", "voice", first, first) == 0
    assert read_all(reader, "acme", "voice", first, first, 10) == []


def test_profiles_are_found_by_exact_customer(reader: SourceReader) -> None:
    everyone = [("acme", "chat"), ("acme", "voice"), ("globex.eu", "voice-1")]
    assert reader.profiles(None) == everyone
    assert reader.profiles(["acme"]) == everyone[:2]
    assert reader.profiles([]) == []
    assert reader.profiles(["acm"]) == []


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.sqlite"):
        list_profiles(tmp_path / "no.sqlite", None)


def test_missing_conversations_keep_their_scorecards(tmp_path: Path) -> None:
    paths = Paths(tmp_path, "store")
    load(SPEC, paths, None)
    with closing(sqlite3.connect(paths.source)) as db:
        orphans = db.execute(
            "SELECT count(*) FROM scorecards WHERE conversation_id NOT IN (SELECT conversation_id FROM conversations)"
        ).fetchone()
    assert orphans == (3,)


def test_load_is_repeatable_and_loads_every_version(tmp_path: Path) -> None:
    spec = rates_spec("twice", {"acme": 200})
    first, second = FakeTarget(), FakeTarget()
    paths = Paths(tmp_path, "twice")
    truths = load(spec, paths, first)
    assert load(spec, paths, second) == truths == read_truth(paths.truth)
    assert (second.statements, second.blocks) == (first.statements, first.blocks)
    assert first.statements[0].startswith("DROP DATABASE IF EXISTS `acme_voice` ON CLUSTER")
    total = truths[0].total(date.min, date.max)
    keys = first.keys("acme_voice", "scorecard")
    assert len(set(keys)) == total.scorecard.before < len(keys)
    assert len(set(first.keys("acme_voice", "score"))) == total.score.before


def test_older_versions_are_older_and_not_in_the_block_of_the_newer() -> None:
    spec = ClusterSpec("old", 1, rates_spec("old", {"acme": 50}).profiles, duplicate_share=1.0)
    conversations: list[Conversation] = list(generate(spec, spec.profiles[0]))
    blocks = list(load_blocks(spec.profiles[0], conversations, 10_000))
    old, _, new, _ = blocks
    assert [b.table for b in blocks] == ["scorecard", "score", "scorecard", "score"]
    assert old.columns[:-1] == new.columns[:-1]
    assert all(a < b for a, b in zip(old.columns[-1], new.columns[-1], strict=True))  # type: ignore[operator]


def test_blocks_are_cut_at_the_limit() -> None:
    profile = SPEC.profiles[0]
    blocks = list(load_blocks(profile, generate(SPEC, profile), 16))
    assert max(block.rows for block in blocks) == 16
    assert all(len({len(column) for column in block.columns}) == 1 for block in blocks)
    assert all(len(block.columns) == len(columns_of(block.table)) for block in blocks)


def test_no_rows_make_an_empty_block() -> None:
    cards, scores = reindex_blocks("acme", "voice", [], [], 0)
    assert (cards.rows, scores.rows) == (0, 0)
    assert len(scores.columns) == len(columns_of("score"))


def test_statements_make_local_tables_and_twins() -> None:
    statements = "\n".join(create_statements(SPEC.profiles[2]))
    assert "`globex_eu_voice_1`.`scorecard` ON CLUSTER 'conversations'" in statements
    assert "ENGINE = ReplacingMergeTree(updated_at) PARTITION BY toYYYYMM(scorecard_time)" in statements
    assert "Distributed('conversations', 'globex_eu_voice_1', 'score', cityHash64(conversation_id))" in statements
    assert "scorecard_score" not in statements


def test_a_bad_clickhouse_url_is_refused() -> None:
    with pytest.raises(ValueError, match="must look like"):
        ClickHouseTarget("localhost:8123")


def test_command_writes_files_without_clickhouse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cluster", "mine", "--state", str(tmp_path), "--customer", "acme/chat=9", "--seed", "3"]
    assert main([*arguments, "--first-day", "2026-01-01", "--end-day", "2026-02-01"]) == 0
    assert "mine: 1 databases, 9 conversations" in capsys.readouterr().out
    assert list_profiles(tmp_path / "source" / "mine.sqlite", None) == [("acme", "chat")]


@pytest.mark.parametrize("extra", [["--customer", "acme"], ["--customer", "acme=x"], []])
def test_command_refuses_bad_arguments(tmp_path: Path, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--cluster", "nowhere", "--state", str(tmp_path), *extra])
    assert "nowhere" in capsys.readouterr().err or extra
