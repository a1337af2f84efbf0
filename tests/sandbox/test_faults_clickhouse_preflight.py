"""Preflight does what the stages will do, harmlessly, and names what is missing; a plan refuses what it cannot use."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException
from clickhouse_connect.driver.exceptions import ClickHouseError

from backfill.hooks.clickhouse import BackfillClickHouse
from tests.sandbox.faults_clickhouse_fixtures import Scene, scene
from tests.sandbox.test_faults_clickhouse_checks import plan, preflight, problems
from tests.standins.clickhouse_fixtures import cluster, nodes

__all__ = ["cluster", "nodes", "scene"]

READS = "GRANT SELECT ON *.* TO reader\nGRANT reader TO admin\n"


def said(scene: Scene) -> str:
    """What preflight finds, in one text; nothing may have been changed by it."""
    return "\n".join(preflight(scene))


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ("GRANT cleaner TO admin\nGRANT ALTER DELETE ON *.* TO cleaner\nGRANT CLUSTER ON *.* TO cleaner", ""),
        ("GRANT ALTER TABLE ON *.* TO admin\nGRANT CLUSTER ON *.* TO admin", ""),
        ("GRANT ALTER UPDATE ON *.* TO admin\nGRANT CLUSTER ON *.* TO admin", "ALTER DELETE"),
        ("GRANT ALTER DELETE ON other.* TO admin\nGRANT CLUSTER ON *.* TO admin", "ALTER DELETE"),
        ("GRANT ALTER DELETE ON *.* TO admin", "CLUSTER"),
        (
            "GRANT ALTER DELETE, CLUSTER ON *.* TO admin\nREVOKE ALTER DELETE ON {db}.* FROM admin",
            "ALTER DELETE",
        ),
    ],
)
def test_rights_are_asked_for_with_their_roles_and_revokes(scene: Scene, lines: str, missing: str) -> None:
    scene.fault(kind="grants", text=READS + lines.format(db=scene.database))
    found = said(scene)
    if not missing:
        assert found == ""
        return
    where = "*.*" if missing == "CLUSTER" else f"`{scene.database}`.`scorecard`"
    assert f"lacks the right {missing} ON {where}" in found


def test_an_old_server_is_read_by_its_grants_and_what_roles_give_is_not_refused(scene: Scene) -> None:
    scene.fault("node-1-1", kind="reply", match="^CHECK GRANT", code=62, message="Syntax error")
    assert said(scene) == ""
    scene.fault(kind="grants", text=READS + "GRANT cleaner TO admin\nGRANT ALTER DELETE ON *.* TO cleaner")
    assert said(scene) == ""
    scene.fault(kind="grants", text="GRANT SELECT ON *.* TO admin")
    scene.heal()
    scene.fault("node-1-1", kind="reply", match="^CHECK GRANT", code=62, message="Syntax error")
    scene.fault(kind="grants", text="GRANT SELECT ON *.* TO admin")
    assert "lacks the right CLUSTER ON *.*" in said(scene)


@pytest.mark.parametrize("settings", [{"limit": 1}, {"read_overflow_mode": "break", "max_rows_to_read": 5}])
def test_a_profile_that_cuts_answers_cuts_none_of_ours(scene: Scene, settings: dict[str, object]) -> None:
    scene.fill("2026-01-05")
    scene.sandbox.clear()
    scene.fault(kind="profile", settings=settings)
    hook = BackfillClickHouse(scene.config)
    if "limit" in settings:
        assert said(scene) == ""
        census = hook.census(list(scene.window().slices()), hook.topology())
        assert (census.unsettled, census.total[scene.database, "scorecard"].rows) == ("", 40)
    else:
        with pytest.raises(ClickHouseError, match="TOO_MANY_ROWS"):
            hook.census(list(scene.window().slices()), hook.topology())


def test_a_profile_that_may_not_be_overruled_is_named(scene: Scene) -> None:
    scene.fault(kind="profile", settings={"limit": 3}, fixed=True)
    found = said(scene)
    assert "limit" in found
    assert "nothing" not in found


def test_hosts_that_are_called_otherwise_than_they_are_listed(scene: Scene) -> None:
    for name in scene.sandbox.names:
        scene.fault(kind="overlay", table="clusters", where={"host_name": name}, set={"host_name": f"chi{name[4:]}"})
    assert said(scene) == ""
    hosts = BackfillClickHouse(scene.config).topology()
    assert [(host.name, host.listed, host.shard) for host in hosts] == [
        (name, f"chi{name[4:]}", int(name[5])) for name in scene.sandbox.names
    ]


def test_a_table_without_final_or_with_a_column_missing_is_refused_by_the_plan(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fill("2026-01-05")
    rule = {"kind": "overlay", "table": "columns", "drop": True}
    rule["where"] = {"database": scene.database, "table": "scorecard", "name": "scorecard_id"}
    scene.sandbox.node("node-2-2").add_faults(rule)
    with pytest.raises(AirflowFailException, match=r"scorecard has no column 'scorecard_id' on node-2-2"):
        plan(scene, monkeypatch)
    scene.heal()
    mine = {"database": scene.database, "name": "scorecard"}
    scene.fault(kind="overlay", table="tables", where=mine, set={"engine": "ReplicatedMergeTree"})
    with pytest.raises(AirflowFailException, match=r"cannot be counted FINAL; a ReplacingMergeTree is needed"):
        plan(scene, monkeypatch)
    assert scene.sent("ALTER") == []


def test_reindex_first_needs_a_column_and_the_engine_s_own_is_suggested(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scene.config.model_copy(update={"orders": ("delete_first", "reindex_first")})
    monkeypatch.setattr(Scene, "config", config)
    found = said(scene)
    assert "needs clickhouse.written_columns for scorecard; the engine's version column is updated_at" in found
    columns = {"scorecard": {"column": "updated_at"}}
    changed = config.clickhouse.model_validate({**config.clickhouse.model_dump(), "written_columns": columns})
    monkeypatch.setattr(Scene, "config", config.model_copy(update={"clickhouse": changed}))
    assert said(scene) == ""


def test_a_silent_host_lists_no_mutations_and_is_not_taken_for_one_without(scene: Scene) -> None:
    scene.fault("node-2-2", kind="silent", match="system.mutations")
    with pytest.raises(RuntimeError, match="3 of 4 hosts have listed their mutations"):
        BackfillClickHouse(scene.config).mutations()


def policy(scene: Scene, *nodes: str, **columns: object) -> None:
    """Have nodes (all by default) list a row policy on this customer's table."""
    row = {"database": scene.database, "table": "scorecard", "short_name": "p", "apply_to_all": 0, **columns}
    for node in nodes or scene.sandbox.names:
        scene.fault(node, kind="overlay", table="row_policies", add=[row])


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        ({"apply_to_all": 1}, ()),
        ({"apply_to_all": 1, "table": ""}, ()),
        ({"apply_to_list": ["admin"]}, ("node-2-2",)),
    ],
    ids=["all", "of the whole database", "on one host only"],
)
def test_a_row_policy_that_hides_rows_from_us_is_named(
    scene: Scene, columns: dict[str, object], places: tuple[str, ...]
) -> None:
    policy(scene, *places, **columns)
    found = said(scene)
    assert "row policies hide rows" in found
    assert f"p on {scene.database}.{columns.get('table', 'scorecard') or '*'}" in found
    assert (places or ("node-1-1",))[0] in found


def test_a_row_policy_of_others_is_none_of_ours_as_long_as_we_see_rows(scene: Scene) -> None:
    policy(scene, apply_to_list=["analyst"])
    policy(scene, database="another", table="", apply_to_all=1)
    assert problems(scene) == []
    scene.fill("2026-01-05")
    assert problems(scene) == []
    # Where users without a policy of their own see nothing, a count is 0 although parts hold rows.
    scene.fault("node-1-2", kind="overlay", table="parts", add=[
        {"database": scene.database, "table": "scorecard", "active": 1, "rows": 5}
    ])  # fmt: skip
    scene.sandbox.nodes()[0].query(
        f"ALTER TABLE `{scene.database}`.scorecard ON CLUSTER 'conversations' DELETE WHERE 1", mutations_sync=2
    )
    found = "\n".join(problems(scene))
    assert f"{scene.database}.scorecard on node-1-2" in found
    assert "users_without_row_policies_can_read_rows" in found


@pytest.mark.parametrize(
    "settings", [{"distributed_ddl_output_mode": "throw"}, {"mutations_sync": 2}, {"max_execution_time": 5}]
)
def test_settings_with_which_a_delete_is_sent_may_not_be_fixed(scene: Scene, settings: dict[str, object]) -> None:
    scene.fault(kind="profile", settings=settings, fixed=True)
    (found,) = preflight(scene)
    assert next(iter(settings)) in found
    assert "let this user change it" in found


def test_a_database_that_takes_no_on_cluster_is_refused_by_the_plan(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.fill("2026-01-05")
    mine = {"name": scene.database}
    scene.fault("node-2-1", kind="overlay", table="databases", where=mine, set={"engine": "Replicated"})
    with pytest.raises(
        AirflowFailException, match=r"database has engine Replicated on node-2-1, which refuses ON CLUSTER"
    ):
        plan(scene, monkeypatch)
    assert scene.sent("ALTER") == []


def test_a_user_that_is_shown_no_table_is_no_empty_cluster(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BackfillClickHouse, "tables", lambda *_: ({}, {}, []))
    assert "no database with one of the configured tables is shown to this user" in said(scene)
