"""Start, stop and kill the parts of a sandbox with circus, each in a process group of its own.

circus and not honcho: honcho starts all parts at once and ends all when one ends; the sandbox starts in steps
(data need ClickHouse, workers need Temporal), and the killing tests end one part and start it again.

`Supervisor` is the side of the stack; `python -m sandbox.stack_supervisor` is the process that holds the
parts. It reads its configuration as one JSON line from standard input (so no password is on disk or in an
argument list), and ends everything when that pipe closes: also when the owner is killed with SIGKILL.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from circus.arbiter import Arbiter
from circus.client import CircusClient
from circus.exc import CallError, ConflictError
from circus.watcher import Watcher
from tornado.ioloop import IOLoop

from sandbox.stack_wait import tail, wait_for

START_DEADLINE_SECONDS = 20
STOP_DEADLINE_SECONDS = 40
# Between SIGTERM and SIGKILL of a part. Airflow's scheduler and triggerer need up to ~6 s.
GRACE_SECONDS = 10


class PartError(RuntimeError):
    """A part could not be started, or ended on its own; the text has the tail of its log."""


@dataclass(frozen=True)
class Part:
    """One process: what to run, with which environment, and where its output goes."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    cwd: Path


class Supervisor:
    """Owner's side. Use as a context manager; leaving the block stops every part."""

    def __init__(self, parts: Sequence[Part], env: Mapping[str, str], log: Path) -> None:
        self._parts = {part.name: part for part in parts}
        self._env = dict(env)
        self._log = log
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def control(self) -> str:
        """Endpoint for `PartControl`. Its folder can be entered by this user only."""
        if self._folder is None:
            raise RuntimeError("the supervisor has not been started")
        return f"ipc://{self._folder}/control"

    def __enter__(self) -> Supervisor:
        # Not below the state folder: a path of a Unix socket may have 107 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
        config = {
            "control": self.control,
            "events": f"ipc://{self._folder}/events",
            "parts": [asdict(part) for part in self._parts.values()],
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.stack_supervisor"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        try:
            self._pipe.write(json.dumps(config, default=str).encode() + b"\n")
            self._pipe.flush()
            wait_for(self._answers, START_DEADLINE_SECONDS, lambda: f"supervisor answers\n{tail(self._log)}")
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def _pipe(self) -> Any:
        assert self._process is not None
        return self._process.stdin

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise PartError(f"supervisor ended with code {self._process.returncode}\n{tail(self._log)}")
        with suppress(CallError):
            return bool(PartControl(self.control, timeout_seconds=1).states())
        return False

    def __exit__(self, *_exc: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.close()
            try:
                process.wait(STOP_DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                # What it still held is found by the token afterwards (stack_lock.sweep).
                process.kill()
                process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def start(self, *names: str) -> None:
        """Start parts that are not running."""
        control = PartControl(self.control)
        for name in names:
            control.start(name)

    def check(self) -> None:
        """Raise PartError when a part that was started has ended on its own."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise PartError(f"supervisor ended with code {self._process.returncode}\n{tail(self._log)}")
        for name in PartControl(self.control).broken():
            log = self._parts[name].log
            # What could not even be started says nothing itself.
            silent = not log.exists() or not log.stat().st_size
            more = f"\nend of {self._log}:\n{tail(self._log)}" if silent else ""
            raise PartError(f"{name} ended on its own; end of {log}:\n{tail(log)}{more}")


class PartControl:
    """Start, stop, kill single parts of a running stack, from any process of the same user.

    The start of a part is remembered beside the control socket, so that `Supervisor.check` tells a part that
    was stopped on purpose from one that broke.
    """

    def __init__(self, control: str, timeout_seconds: float = STOP_DEADLINE_SECONDS) -> None:
        self._control = control
        self._timeout = timeout_seconds

    def _call(self, command: str, **properties: Any) -> dict[str, Any]:
        client = CircusClient(endpoint=self._control, timeout=self._timeout)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        finally:
            client.stop()
        if answer.get("status") == "error":
            raise PartError(f"{command} {properties}: {answer.get('reason')}")
        return answer

    def states(self) -> dict[str, str]:
        """Return part -> `active`, `stopped`, `starting` or `stopping`."""
        return dict(self._call("status")["statuses"])

    def broken(self) -> list[str]:
        """Return the parts that were started and have ended without `stop` or `kill`."""
        started = _started(self._control)
        return [name for name, state in self.states().items() if state == "stopped" and name in started]

    def pids(self, name: str) -> list[int]:
        """Return the pids of a part (its process group has the same number); empty when it does not run."""
        return [int(pid) for pid in self._call("list", name=name)["pids"]]

    def start(self, name: str) -> None:
        """Start a part; one that runs is left alone."""
        self._call("start", name=name, waiting=True)
        _mark(self._control, name, started=True)

    def stop(self, name: str) -> None:
        """End a part with SIGTERM, and its whole process group with SIGKILL after that."""
        _mark(self._control, name, started=False)
        self._call("stop", name=name, waiting=True)

    def kill(self, name: str) -> None:
        """End the part's whole process group with SIGKILL, at once, and wait until it is gone."""
        _mark(self._control, name, started=False)
        for pid in self.pids(name):
            os.killpg(pid, signal.SIGKILL)
        wait_for(lambda: self.states()[name] == "stopped", STOP_DEADLINE_SECONDS, f"{name} is gone after SIGKILL")

    def freeze(self, name: str) -> None:
        """Hold a part and what it has started with SIGSTOP until `thaw`, as a machine does that is stalled."""
        # The leader first: what is held cannot start another one.
        for process in self._tree(name):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self, name: str) -> None:
        """Let a frozen part go on; its clock has gone on meanwhile."""
        for process in self._tree(name):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _tree(self, name: str) -> list[psutil.Process]:
        """The part's process and all below it, wherever they have put themselves."""
        found: list[psutil.Process] = []
        for pid in self.pids(name):
            with suppress(psutil.NoSuchProcess):
                leader = psutil.Process(pid)
                found += [leader, *leader.children(recursive=True)]
        return found


def _marks(control: str) -> Path:
    return Path(control.removeprefix("ipc://")).with_name("started")


def _started(control: str) -> set[str]:
    folder = _marks(control)
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _mark(control: str, name: str, *, started: bool) -> None:
    path = _marks(control) / name
    path.parent.mkdir(exist_ok=True)
    if started:
        path.touch()
    else:
        path.unlink(missing_ok=True)


def main() -> int:
    """Hold the parts until standard input closes or SIGTERM comes; 0 after an orderly end."""
    # While it stops its parts, circus goes on with its periodic look at them and logs each refusal with a
    # traceback.
    logging.getLogger("tornado.application").addFilter(_not_a_conflict)
    config = json.loads(sys.stdin.buffer.readline())
    watchers = [_watcher(part) for part in config["parts"]]
    arbiter = Arbiter(watchers, config["control"], config["events"], check_delay=0.5, proc_name="sandbox-supervisor")
    loop = IOLoop.current()
    os.set_blocking(sys.stdin.fileno(), False)

    def owner_gone(fd: int, _events: int) -> None:
        # BlockingIOError: woken without data, so the owner still holds its end.
        with suppress(BlockingIOError):
            if not os.read(fd, 1024):
                loop.remove_handler(fd)
                loop.add_callback(arbiter.stop)

    loop.add_handler(sys.stdin.fileno(), owner_gone, IOLoop.READ)
    arbiter.start()
    return 0


def _not_a_conflict(record: logging.LogRecord) -> bool:
    return not (record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], ConflictError))


def _watcher(part: dict[str, Any]) -> Watcher:
    groups: list[int] = []

    def remember(*, pid: int, **_kw: object) -> bool:
        groups.append(pid)
        return True

    def end_group(**_kw: object) -> bool:
        # circus signals the leader; what it left in its process group (circus gives each part one) ends here.
        while groups:
            with suppress(ProcessLookupError):
                os.killpg(groups.pop(), signal.SIGKILL)
        return True

    program, *args = part["argv"]
    stream = {"class": "FileStream", "filename": part["log"]}
    return Watcher(
        part["name"],
        # circus splits the program's name as a shell does, and nothing else.
        shlex.quote(program),
        args,
        env=part["env"],
        working_dir=part["cwd"],
        stdout_stream=stream,
        stderr_stream=stream,
        autostart=False,
        respawn=False,
        max_retry=1,
        graceful_timeout=GRACE_SECONDS,
        hooks={"after_spawn": (remember, False), "after_stop": (end_group, False)},
    )


if __name__ == "__main__":
    sys.exit(main())
