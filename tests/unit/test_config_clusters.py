"""The cluster files that ship, and what the model makes of them: names, zones, limits by day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.scorecard_backfill.config import (
    AdmissionConfig,
    AdmissionProfile,
    ClickHouseConfig,
    ClusterConfig,
    HealthConfig,
    Hysteresis,
    KubernetesConfig,
    MustBeZero,
    VerifyBand,
)
from include.scorecard_backfill.config.fields import RESERVED_ENV, known_zone
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, DEFAULTS_FILE, load_clusters, read_mapping

EIGHT = [
    "ap-southeast-2-prod",
    "ca-central-1-prod",
    "chat-prod",
    "eu-west-2-prod",
    "schwab-prod",
    "us-east-1-prod",
    "us-west-2-prod",
    "voice-prod",
]


def shipped() -> list[ClusterConfig]:
    loaded = load_clusters(CLUSTERS_FOLDER)
    assert all(isinstance(item, ClusterConfig) for item in loaded), [str(item) for item in loaded]
    return [item for item in loaded if isinstance(item, ClusterConfig)]


def test_all_eight_clusters_load_in_order_of_their_names() -> None:
    assert [cluster.name for cluster in shipped()] == EIGHT


@pytest.mark.parametrize("cluster", shipped(), ids=lambda cluster: cluster.name)
def test_a_shipped_cluster_is_safe_and_has_the_facts_of_production(cluster: ClusterConfig) -> None:
    under = cluster.name.replace("-", "_")
    assert cluster.clickhouse.conn_id == f"clickhouse_{under}"
    assert cluster.kubernetes.conn_id == f"kubernetes_{under}"
    assert cluster.temporal.conn_id == f"temporal_{under}"
    assert cluster.kubernetes.context == f"{cluster.name}_dev"
    assert (cluster.clickhouse.cluster, cluster.clickhouse.tables) == ("conversations", ("scorecard", "score"))
    assert (cluster.kubernetes.namespace, cluster.kubernetes.cronjob) == (
        "cresta-cron",
        "cron-batch-reindex-conversations",
    )
    assert (cluster.temporal.namespace, cluster.temporal.workflow_id_prefix) == ("ingestion", "reindexconversations")
    assert cluster.schedule.mode == "reindex"
    assert cluster.admission.max_parallel == 10
    assert cluster.zone == ZoneInfo(cluster.timezone)


@pytest.mark.parametrize("cluster", shipped(), ids=lambda cluster: cluster.name)
def test_no_shipped_file_makes_a_schedule_that_deletes(cluster: ClusterConfig) -> None:
    own = read_mapping(CLUSTERS_FOLDER / f"{cluster.name}.yaml")
    assert own.get("schedule", {}).get("mode", "reindex") == "reindex"
    assert read_mapping(CLUSTERS_FOLDER / DEFAULTS_FILE)["schedule"]["mode"] == "reindex"


def test_a_cluster_goes_through_json_and_back() -> None:
    for cluster in shipped():
        assert ClusterConfig.model_validate_json(cluster.model_dump_json()) == cluster


def test_records_are_frozen_and_closed() -> None:
    cluster = ClusterConfig(name="tiny")
    with pytest.raises(ValidationError, match="frozen"):
        cluster.admission.max_parallel = 99
    with pytest.raises(ValidationError, match="Extra inputs"):
        AdmissionConfig.model_validate({"max_paralel": 3})


def test_names_that_are_given_are_kept_and_empty_ones_follow_the_cluster() -> None:
    cluster = ClusterConfig.model_validate(
        {
            "name": "demo-1",
            "clickhouse": {"conn_id": "mine"},
            "kubernetes": {"conn_id": "", "context": "ctx"},
            "temporal": {},
        }
    )
    assert cluster.clickhouse.conn_id == "mine"
    assert (cluster.kubernetes.conn_id, cluster.kubernetes.context) == ("kubernetes_demo_1", "ctx")
    assert cluster.temporal.conn_id == "temporal_demo_1"
    made = ClusterConfig(name="demo-1", kubernetes=KubernetesConfig(poll_seconds=5))
    assert (made.kubernetes.conn_id, made.kubernetes.poll_seconds) == ("kubernetes_demo_1", 5)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a b", "a\n", "a" * 41, "é"])
def test_a_cluster_name_is_a_short_dns_label(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        ClusterConfig(name=name)


def limited(zone: str = "America/New_York") -> ClusterConfig:
    return ClusterConfig(
        name="demo",
        timezone=zone,
        admission=AdmissionConfig(
            max_parallel=10,
            weekday=AdmissionProfile(max_parallel=4),
            weekend=AdmissionProfile(max_parallel=20, windows_per_customer=3),
        ),
    )


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        # 2026-01-09 is a Friday. In New York (UTC-5) the weekend begins at 05:00 UTC and ends at 05:00 UTC of Monday.
        ("2026-01-10T04:59:59+00:00", (4, 1)),
        ("2026-01-10T05:00:00+00:00", (20, 3)),
        ("2026-01-12T04:59:59+00:00", (20, 3)),
        ("2026-01-12T05:00:00+00:00", (4, 1)),
        ("2026-01-10T00:00:00-05:00", (20, 3)),
    ],
)
def test_limits_of_the_weekend_begin_and_end_in_the_clusters_zone(moment: str, expected: tuple[int, int]) -> None:
    limits = limited().limits_at(datetime.fromisoformat(moment))
    assert (limits.max_parallel, limits.windows_per_customer) == expected


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(("UTC", "Australia/Sydney", "America/Los_Angeles")),
)
def test_every_moment_has_the_limits_of_its_local_day(moment: datetime, zone: str) -> None:
    cluster = limited(zone)
    weekend = moment.astimezone(ZoneInfo(zone)).strftime("%a") in ("Sat", "Sun")
    assert cluster.limits_at(moment).max_parallel == (20 if weekend else 4)
    assert cluster.limits_at(moment) == cluster.limits_at(moment.astimezone(ZoneInfo(zone)))


def test_limits_without_profile_are_the_clusters_and_need_an_aware_moment() -> None:
    cluster = ClusterConfig(name="demo")
    week = [cluster.limits_at(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n)) for n in range(7)]
    assert {(limits.max_parallel, limits.windows_per_customer) for limits in week} == {(10, 1)}
    with pytest.raises(ValueError, match="2026-01-01T00:00:00 has no time zone"):
        cluster.limits_at(datetime(2026, 1, 1))


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "/etc/localtime", "America", "a\0b"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="America/New_York"):
        known_zone(zone)


@pytest.mark.parametrize("name", sorted(RESERVED_ENV))
def test_the_windows_own_environment_cannot_be_set_by_a_file(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        KubernetesConfig(extra_env={name: "x"})
    assert KubernetesConfig(extra_env={"REINDEX_MODE": "process"}).extra_env == {"REINDEX_MODE": "process"}


def test_bands_and_limits_must_be_in_order() -> None:
    with pytest.raises(ValidationError, match=r"min_ratio 0\.9 is above max_ratio 0\.8"):
        VerifyBand(min_ratio=0.9, max_ratio=0.8)
    with pytest.raises(ValidationError, match="resume_below 6"):
        Hysteresis(stop_above=5, resume_below=6)
    with pytest.raises(ValidationError, match="resume_below 0"):
        Hysteresis(stop_above=0, resume_below=0)
    assert HealthConfig(active_parts=None).active_parts is None


def test_tables_bands_and_rules_agree() -> None:
    with pytest.raises(ValidationError, match="names a table twice"):
        ClickHouseConfig(tables=("score", "score"))
    with pytest.raises(ValidationError, match="id_columns has no entry for table 'scorecard_score'"):
        ClickHouseConfig(tables=("scorecard", "scorecard_score"))
    with pytest.raises(ValidationError, match="'scores' of verify_bands"):
        ClickHouseConfig(verify_bands={"scores": VerifyBand()})
    with pytest.raises(ValidationError, match="'other' of verify_bands or must_be_zero"):
        ClickHouseConfig(must_be_zero=(MustBeZero(table="other", column="type", equals=1),))
    with pytest.raises(ValidationError, match="equals"):
        MustBeZero.model_validate({"column": "deleted", "equals": True})
    config = ClickHouseConfig(verify_bands={"score": VerifyBand(min_ratio=0.5)})
    assert (config.band_of("score").min_ratio, config.band_of("scorecard").min_ratio) == (0.5, 0.7)


@pytest.mark.parametrize("name", ["a b", "a;b", "a`", "1a", "", "a" * 65, "é"])
def test_an_identifier_of_clickhouse_holds_nothing_that_needs_quoting(name: str) -> None:
    for field in ("cluster", "time_column", "customer_column", "volume_table"):
        with pytest.raises(ValidationError, match=field):
            ClickHouseConfig.model_validate({field: name})
