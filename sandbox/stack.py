"""Start the whole sandbox without Docker, and end it without leaving a process.

    python -m sandbox.stack up --state .sandbox [--clusters east,west] [--port-base auto] [--seed 1] [--no-airflow]
    python -m sandbox.stack down --state .sandbox
    python -m sandbox.stack status --state .sandbox
    python -m sandbox.stack part {start,stop,kill} NAME --state .sandbox

`up` stays in the foreground until Ctrl-C or SIGTERM; each start begins with fresh data. What runs is in
<state>/stack.json, what the parts print in <state>/logs/<part>.log. Tests use `running_stack`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from sandbox.stack_airflow import airflow_command, database_path
from sandbox.stack_layout import (
    Layout,
    Options,
    airflow_process_env,
    cluster_names,
    components,
    data_command,
    kubernetes_part,
    make_layout,
    parts,
    service_parts,
    worker_part,
    write_files,
)
from sandbox.stack_lock import StateInUseError, holder_pid, left_over_token, state_lock, sweep
from sandbox.stack_model import AIRFLOW_USER, Stack
from sandbox.stack_steps import (
    OneShot,
    airflow_ready,
    http_answers,
    log_says,
    tcp_answers,
    use_wal,
    wait_ready,
)
from sandbox.stack_supervisor import PartControl, PartError, Supervisor
from sandbox.stack_variants import add_arguments, build_control_plane, remove_database, variant_of
from sandbox.stack_wait import DeadlineExceededError, wait_for

# Each about five times what two busy cores need.
STANDINS_DEADLINE_SECONDS = 90
REAL_KUBERNETES_DEADLINE_SECONDS = 240
DATA_DEADLINE_SECONDS = 120
MIGRATE_DEADLINE_SECONDS = 150
AIRFLOW_DEADLINE_SECONDS = 180
DOWN_DEADLINE_SECONDS = 90
OWNED = ("airflow", "clickhouse", "faults", "kubernetes", "logs", "redis", "source", "temporal", "truth")

Say = Callable[[str], None]


def _silent(_text: str) -> None:
    """Say nothing."""


@contextmanager
def running_stack(state: Path, options: Options | None = None, say: Say = _silent) -> Iterator[Stack]:
    """Run a sandbox over a state folder for the time of the block.

    What an earlier run left in the folder is removed first. Raises StateInUseError when the folder is in use,
    PartError or DeadlineExceededError when a part does not start; in every case all processes are ended
    before the exception leaves.
    """
    state = state.resolve()
    token = uuid.uuid4().hex
    started = time.monotonic()

    def timed(text: str) -> None:
        say(f"[{time.monotonic() - started:5.1f} s] {text}")

    with state_lock(state, token):
        _remove_old(state)
        parts_running = ExitStack()
        try:
            yield _start(parts_running, make_layout(state, options or Options(), token), timed)
        finally:
            # Ctrl-C again during the clean-up would leave processes behind; it is over in seconds.
            with _ignored_signals():
                timed("stopping")
                _stop(parts_running, state, token, timed)


def _stop(parts_running: ExitStack, state: Path, token: str, say: Say) -> None:
    try:
        parts_running.close()
    finally:
        (state / "stack.json").unlink(missing_ok=True)
        for line in sweep(token):
            say(f"had to kill {line}")
        say("stopped")


def _start(stack: ExitStack, layout: Layout, say: Say) -> Stack:
    variant = layout.options.variant
    if variant.kubernetes == "real":
        build_control_plane()
    write_files(layout)
    if layout.options.airflow and variant.database == "postgres":
        stack.callback(remove_database, layout.state)
        layout.services.make_database(layout.logs / "initdb.log")
    env = airflow_process_env(layout)
    services = service_parts(layout)
    supervisor = Supervisor([*services, *parts(layout, env)], layout.base_env(), layout.logs / "supervisor.log")
    supervisor = stack.enter_context(supervisor)
    _start_services(supervisor, layout, [part.name for part in services])
    migrate = _migrate(stack, layout, env) if layout.options.airflow else None
    _start_standins(supervisor, layout, say)
    loads = _load_data(stack, layout)
    supervisor.start(*(worker_part(cluster) for cluster in layout.clusters))
    if migrate is not None:
        migrate.wait(MIGRATE_DEADLINE_SECONDS)
        if variant.database == "sqlite":
            use_wal(database_path(layout.airflow_home))
        supervisor.start(*components(layout))
        say("Airflow's database is ready; its components start")
    for load in loads:
        load.wait(DATA_DEADLINE_SECONDS)
    say("data is loaded")
    _wait_workers(supervisor, layout)
    if migrate is not None:
        dags = layout.options.dag_ids or [cluster.dag_id for cluster in layout.clusters]
        check = airflow_ready(layout.airflow_url, layout.airflow_password, dags)
        wait_ready({"api-server": check}, supervisor.check, layout.logs, AIRFLOW_DEADLINE_SECONDS)
    say("ready")
    record = Stack(
        state=layout.state,
        pid=os.getpid(),
        airflow_url=layout.airflow_url if layout.options.airflow else "",
        temporal_address=layout.temporal_address,
        clusters=layout.clusters,
        control=supervisor.control,
        credentials=layout.state / "credentials.json",
        airflow_password=layout.airflow_password,
        clickhouse_password=layout.clickhouse_password,
    )
    record.save()
    return record


def _start_services(supervisor: Supervisor, layout: Layout, names: list[str]) -> None:
    checks: dict[str, Callable[[], bool]] = {"redis": tcp_answers(layout.services.broker_port)}
    if "postgres" in names:
        checks["postgres"] = layout.services.database_ready()
    supervisor.start(*names)
    wanted = {name: checks[name] for name in names}
    wait_ready(wanted, supervisor.check, layout.logs, STANDINS_DEADLINE_SECONDS)


def _migrate(stack: ExitStack, layout: Layout, env: dict[str, str]) -> OneShot:
    shot = OneShot("airflow-db", airflow_command("db", "migrate"), env, layout.logs / "airflow-db.log")
    stack.callback(shot.end)
    return shot


def _start_standins(supervisor: Supervisor, layout: Layout, say: Say) -> None:
    checks: dict[str, Callable[[], bool]] = {"temporal": tcp_answers(layout.temporal_port)}
    for cluster in layout.clusters:
        checks[kubernetes_part(cluster)] = http_answers(f"{cluster.kubernetes_url}/version")
        checks |= {node.name: http_answers(f"{node.url}/ping") for node in cluster.nodes}
    supervisor.start(*checks)
    real = layout.options.variant.kubernetes == "real"
    deadline = REAL_KUBERNETES_DEADLINE_SECONDS if real else STANDINS_DEADLINE_SECONDS
    wait_ready(checks, supervisor.check, layout.logs, deadline)
    say("Temporal, ClickHouse and Kubernetes answer")


def _load_data(stack: ExitStack, layout: Layout) -> list[OneShot]:
    shots = []
    for cluster in layout.clusters:
        name = f"data-{cluster.short}"
        shot = OneShot(name, data_command(layout, cluster), layout.base_env(), layout.logs / f"{name}.log")
        stack.callback(shot.end)
        shots.append(shot)
    return shots


def _wait_workers(supervisor: Supervisor, layout: Layout) -> None:
    names = [worker_part(cluster) for cluster in layout.clusters]
    checks = {name: log_says(layout.logs / f"{name}.log", "worker ready") for name in names}
    wait_ready(checks, supervisor.check, layout.logs, STANDINS_DEADLINE_SECONDS)


def _remove_old(state: Path) -> None:
    remove_database(state)
    for name in OWNED:
        if (state / name).exists():
            shutil.rmtree(state / name)
    for name in ("stack.json", "credentials.json"):
        (state / name).unlink(missing_ok=True)


@contextmanager
def _ignored_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM inside the block; in other threads than the main one nothing can be done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that context managers are left in order."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    old = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def login_lines(stack: Stack) -> list[str]:
    """Return what a person needs to open the UI; without Airflow where the addresses of the stand-ins are."""
    if not stack.airflow_url:
        return [f"Stand-ins only, without Airflow; addresses: {stack.state / 'stack.json'}"]
    return [
        f"Airflow: {stack.airflow_url}  (user {AIRFLOW_USER}, password in {stack.credentials})",
        *(f"DAG:     {stack.airflow_url}/dags/{cluster.dag_id}" for cluster in stack.clusters),
    ]


def _up(args: argparse.Namespace) -> int:
    options = Options(
        clusters=cluster_names(args.clusters),
        port_base=None if args.port_base == "auto" else int(args.port_base),
        seed=args.seed,
        airflow=args.airflow,
        variant=variant_of(args),
    )
    with signals_as_exit(), running_stack(args.state, options, print) as stack:
        print("\n".join([*login_lines(stack), "Ctrl-C ends everything."]), flush=True)
        hold(stack)
    return 0


def hold(stack: Stack) -> None:
    """Stay until a signal comes; raises PartError as soon as a part ends that nobody stopped."""
    while True:
        broken = PartControl(stack.control).broken()
        if broken:
            raise PartError(f"{', '.join(broken)} ended; see {stack.logs}")
        time.sleep(1)


def _down(args: argparse.Namespace) -> int:
    pid = holder_pid(args.state)
    if pid is not None:
        print(f"ending the sandbox of process {pid}, which takes some seconds", flush=True)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: holder_pid(args.state) is None, DOWN_DEADLINE_SECONDS, f"process {pid} ends the sandbox")
        print(f"ended the sandbox of process {pid}")
        return 0
    token = left_over_token(args.state)
    killed = sweep(token) if token else []
    print("\n".join(f"killed {line}" for line in killed) or f"no sandbox runs over {args.state}")
    return 0


def _status(args: argparse.Namespace) -> int:
    stack = Stack.load(args.state)
    for name, state in sorted(PartControl(stack.control).states().items()):
        print(f"{name:<16} {state}")
    print("\n".join(login_lines(stack)))
    return 0


def _part(args: argparse.Namespace) -> int:
    control = PartControl(Stack.load(args.state).control)
    actions = {"start": control.start, "stop": control.stop, "kill": control.kill}
    actions[args.action](args.name)
    print(f"{args.name}: {control.states()[args.name]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="up|down|status|part")
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--state", type=Path, default=Path(".sandbox"), help="folder of everything that is written")
    up = commands.add_parser("up", parents=[state], help="start, and stay until Ctrl-C")
    up.add_argument("--clusters", default="east,west", help="east, west or both (default)")
    up.add_argument("--port-base", default="auto", help="first of the ports, or auto: any free ones (default)")
    up.add_argument("--seed", type=int, default=1, help="seed of the data generator")
    up.add_argument("--airflow", action=argparse.BooleanOptionalAction, default=True, help="with Airflow (default)")
    add_arguments(up)
    up.set_defaults(run=_up)
    commands.add_parser("down", parents=[state], help="end a running sandbox").set_defaults(run=_down)
    commands.add_parser("status", parents=[state], help="what runs, and where").set_defaults(run=_status)
    part = commands.add_parser("part", parents=[state], help="start, stop or kill one part")
    part.add_argument("action", choices=["start", "stop", "kill"])
    part.add_argument("name", help="as `status` shows it")
    part.set_defaults(run=_part)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 = done, 1 = failed (the reason is on standard error), 130 = Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `status | head`: nobody reads any more. Without this Python complains again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PartError, DeadlineExceededError, StateInUseError, OSError, ValueError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
