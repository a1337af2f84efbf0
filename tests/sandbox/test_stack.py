"""The stack: it starts complete, parts can be killed and started again, and no process survives its owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import httpx
import psutil
import pytest

from sandbox.data.truth import TABLES, read_truth
from sandbox.stack import main, running_stack
from sandbox.stack_layout import Options
from sandbox.stack_lock import StateInUseError, holder_pid, processes_of
from sandbox.stack_model import CLICKHOUSE_USER, TOKEN_VARIABLE, Cluster, Stack
from sandbox.stack_supervisor import PartControl, PartError
from sandbox.stack_wait import port_answers, wait_for

ROOT = Path(__file__).resolve().parents[2]
WEST = "sandbox-west"
STAND_INS = Options(clusters=(WEST,), airflow=False)
START_SECONDS = 90
STOP_SECONDS = 60

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def west(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run the stand-ins of one cluster, without Airflow."""
    with running_stack(tmp_path_factory.mktemp("west") / "state", STAND_INS) as running:
        yield running


@pytest.fixture
def cluster(west: Stack) -> Cluster:
    """Return the only cluster of `west`."""
    return west.cluster(WEST)


@pytest.fixture
def control(west: Stack) -> PartControl:
    """Return the control of `west`'s parts."""
    return PartControl(west.control)


def rows(west: Stack, url: str, sql: str) -> list[list[object]]:
    """Return the rows of a statement sent to one ClickHouse node."""
    answer = httpx.post(
        url,
        content=f"{sql} FORMAT JSONCompact",
        auth=(CLICKHOUSE_USER, west.clickhouse_password),
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    data: list[list[object]] = answer.json()["data"]
    return data


def count_rows(west: Stack, cluster: Cluster, database: str, table: str) -> int:
    """Count the rows of a table as clients see them: FINAL, over all shards."""
    ((count,),) = rows(west, cluster.clickhouse_url, f"SELECT count() FROM {database}.{table}_d FINAL")
    return int(str(count))


def token_of(stack: Stack) -> str:
    """Return the token that all processes of a stack carry."""
    return str(json.loads((stack.state / "stack.lock").read_text())["token"])


def gone(token: str) -> bool:
    """Say whether no process of a stack is left."""
    return not processes_of(token)


def test_all_parts_run_and_only_they(west: Stack, control: PartControl) -> None:
    expected = {"temporal", "kubernetes-west", "worker-west", "ch-west-0-0", "ch-west-1-0", "ch-west-2-0"}
    assert control.states() == dict.fromkeys(expected, "active")
    assert control.broken() == []
    assert {path.stem for path in west.logs.glob("*.log")} == expected | {"supervisor", "data-west"}


def test_data_is_loaded_as_the_truth_says(west: Stack, cluster: Cluster) -> None:
    truths = [profile.total(date.min, date.max) for profile in read_truth(cluster.truth)]
    assert len(truths) == 3
    # More than one block of an insert, or a stand-in that loses the second one would go unseen.
    assert max(truth.score.before for truth in truths) > 32_768
    for truth in truths:
        for table in TABLES:
            assert truth.table(table).before > 0
            assert count_rows(west, cluster, truth.database, table) == truth.table(table).before


def test_cluster_has_the_nodes_of_its_topology(west: Stack, cluster: Cluster) -> None:
    for node in cluster.nodes:
        columns = "shard_num, replica_num, port"
        where = "cluster = 'conversations' ORDER BY shard_num"
        found = rows(west, node.url, f"SELECT {columns} FROM system.clusters WHERE {where}")
        wanted = [(n.shard, n.replica, n.port) for n in cluster.nodes]
        assert [tuple(int(str(cell)) for cell in row) for row in found] == wanted


def test_wrong_password_is_refused(cluster: Cluster) -> None:
    answer = httpx.post(cluster.clickhouse_url, content="SELECT 1", auth=(CLICKHOUSE_USER, "no"), trust_env=False)
    assert answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


def test_secrets_are_in_one_file_that_only_the_owner_can_read(west: Stack) -> None:
    assert west.credentials.stat().st_mode & 0o777 == 0o600
    for path in west.state.rglob("*"):
        if path.is_file() and path != west.credentials and path.suffix in (".json", ".yaml", ".log"):
            assert west.clickhouse_password not in path.read_text(errors="replace"), path
    for process in processes_of(token_of(west)):
        assert west.clickhouse_password not in " ".join(process.cmdline())


def test_killed_node_is_gone_and_comes_back_with_its_data(west: Stack, cluster: Cluster, control: PartControl) -> None:
    node = cluster.nodes[1]
    count = f"SELECT count() FROM {read_truth(cluster.truth)[0].database}.scorecard"
    before = rows(west, node.url, count)
    control.kill(node.name)
    try:
        assert control.states()[node.name] == "stopped"
        assert control.pids(node.name) == []
        assert not port_answers(node.port)
        assert control.broken() == [], "killed on purpose is not broken"
    finally:
        control.start(node.name)
    wait_for(lambda: port_answers(node.port), START_SECONDS, f"{node.name} answers again")
    assert rows(west, node.url, count) == before


def test_frozen_part_is_silent_and_goes_on_where_it_was(cluster: Cluster, control: PartControl) -> None:
    node = cluster.nodes[2]
    pids = control.pids(node.name)
    control.freeze(node.name)
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{node.url}/ping", timeout=1, trust_env=False)
        assert control.states()[node.name] == "active"
        assert control.broken() == []
    finally:
        control.thaw(node.name)
    assert httpx.get(f"{node.url}/ping", timeout=START_SECONDS, trust_env=False).text == "Ok.\n"
    assert control.pids(node.name) == pids


def test_part_that_dies_by_itself_is_reported_and_stays_down(control: PartControl) -> None:
    (pid,) = control.pids("worker-west")
    os.kill(pid, signal.SIGKILL)
    try:
        wait_for(lambda: control.broken() == ["worker-west"], STOP_SECONDS, "the worker is reported as broken")
        assert control.states()["worker-west"] == "stopped"
    finally:
        control.start("worker-west")
    assert control.broken() == []


def test_stop_ends_the_whole_process_group(control: PartControl) -> None:
    (pid,) = control.pids("temporal")
    control.stop("temporal")
    try:
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)
    finally:
        control.start("temporal")


def test_status_whose_reader_is_gone_ends_without_a_word(west: Stack) -> None:
    status = f"'{sys.executable}' -m sandbox.stack status --state '{west.state}' | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", status], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_status_and_part_work_from_another_process(west: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["part", "stop", "kubernetes-west", "--state", str(west.state)]) == 0
    try:
        assert main(["status", "--state", str(west.state)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "kubernetes-west  stopped" in lines
    finally:
        assert main(["part", "start", "kubernetes-west", "--state", str(west.state)]) == 0


def test_unknown_part_is_an_error_with_its_name(west: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["part", "stop", "no-such-part", "--state", str(west.state)]) == 1
    assert "no-such-part" in capsys.readouterr().err


def test_second_stack_over_the_same_folder_is_refused(west: Stack) -> None:
    refused = pytest.raises(StateInUseError, match=rf"already runs over .*\(pid {os.getpid()}\)")
    with refused, running_stack(west.state, STAND_INS):
        pytest.fail("two stacks over one folder")
    assert Stack.load(west.state) == west


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("ten years")
    with pytest.raises(StateInUseError, match="not a state folder"), running_stack(tmp_path, STAND_INS):
        pytest.fail("started over a folder with other files")
    assert thesis.read_text() == "ten years"


def test_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = Options(clusters=(WEST,), port_base=port, airflow=False)
        with pytest.raises(OSError, match=f"port {port} is taken"), running_stack(tmp_path / "state", options):
            pytest.fail("started on a taken port")
    assert holder_pid(tmp_path / "state") is None


def test_part_that_cannot_start_ends_all_and_shows_its_log(tmp_path: Path) -> None:
    seen: list[str] = []
    bad = Options(clusters=(WEST,), data_arguments={WEST: ("--scale", "-1")}, airflow=False)
    stack = running_stack(tmp_path / "state", bad, lambda _text: seen.append(_token(tmp_path / "state")))
    with pytest.raises(PartError, match=r"(?s)data-west failed with code 2.*scale is -1\.0"), stack:
        pytest.fail("started with bad arguments")
    assert seen[0]
    assert gone(seen[0])
    assert not (tmp_path / "state" / "stack.json").exists()


def _token(state: Path) -> str:
    text = (state / "stack.lock").read_text()
    return str(json.loads(text)["token"]) if text else ""


@contextmanager
def owner(state: Path) -> Iterator[tuple[subprocess.Popen[bytes], Stack]]:
    """Run `stack up` as a process of its own until it is ready; whatever is left of it afterwards is killed."""
    log = state.with_name("owner.log")
    command = [sys.executable, "-m", "sandbox.stack", "up", "--no-airflow", "--clusters", "west", "--state", str(state)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env=_environment(), preexec_fn=_as_from_a_terminal
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return (state / "stack.json").exists()

        wait_for(ready, START_SECONDS, lambda: f"stack is up\n{log.read_text()}")
        yield process, Stack.load(state)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert main(["down", "--state", str(state)]) == 0


def _as_from_a_terminal() -> None:
    # A job in a script's background has SIGINT ignored, and so have the processes that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_owner_ends_everything_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with owner(tmp_path / "state") as (process, stack):
        token = token_of(stack)
        assert len(processes_of(token)) >= 6
        process.send_signal(number)
        code = process.wait(STOP_SECONDS)
        assert code == {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 130}[number]
        assert gone(token)
        assert not (stack.state / "stack.json").exists()
        assert holder_pid(stack.state) is None
        assert "had to kill" not in (tmp_path / "owner.log").read_text()


def test_sigkill_of_the_owner_leaves_no_process(tmp_path: Path) -> None:
    with owner(tmp_path / "state") as (process, stack):
        token = token_of(stack)
        started = processes_of(token)
        assert len(started) >= 6
        process.kill()
        process.wait()
        wait_for(lambda: gone(token), STOP_SECONDS, lambda: f"these end by themselves: {processes_of(token)}")
        ports = [stack.clusters[0].kubernetes_port, *(node.port for node in stack.clusters[0].nodes)]
        assert not any(port_answers(port) for port in ports)


def test_next_start_ends_what_an_owner_and_its_supervisor_left(tmp_path: Path) -> None:
    with owner(tmp_path / "state") as (process, stack):
        token = token_of(stack)
        (supervisor,) = psutil.Process(process.pid).children()
        # Without owner and supervisor nobody is left to end the parts.
        supervisor.suspend()
        process.kill()
        supervisor.kill()
        process.wait()
        assert processes_of(token)
        with running_stack(stack.state, STAND_INS) as again:
            assert gone(token)
            assert token_of(again) != token


def test_down_ends_a_stack_of_another_process(tmp_path: Path) -> None:
    with owner(tmp_path / "state") as (process, stack):
        token = token_of(stack)
        assert main(["down", "--state", str(stack.state)]) == 0
        process.wait(STOP_SECONDS)
        assert gone(token)


def test_every_process_carries_the_token(west: Stack) -> None:
    """The sweep finds by the token only, so every descendant must have it."""
    found = processes_of(token_of(west))
    family = {child.pid for process in found for child in process.children(recursive=True)}
    assert family <= {process.pid for process in found}, f"without {TOKEN_VARIABLE}"
