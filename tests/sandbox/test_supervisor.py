"""The supervisor of the sandbox's parts, with parts of its own: a path with blanks, a part that cannot be started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sandbox.stack_supervisor import Part, PartError, Supervisor
from sandbox.stack_wait import wait_for

SECONDS = 60


def part(folder: Path, program: Path) -> Part:
    """A Python that says where it is and stays."""
    says = "import sys, time; print(sys.executable, flush=True); time.sleep(600)"
    return Part("one", (str(program), "-c", says), dict(os.environ), folder / "one.log", folder)


def test_a_checkout_whose_path_holds_a_blank(tmp_path: Path) -> None:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    program = folder / "python"
    program.symlink_to(sys.executable)
    with Supervisor([part(folder, program)], dict(os.environ), folder / "supervisor.log") as supervisor:
        supervisor.start("one")
        log = folder / "one.log"
        wait_for(lambda: log.exists() and log.read_text(), SECONDS, "the part says where it is")
        supervisor.check()
        assert log.read_text().strip() == str(program)


def test_a_part_that_cannot_be_started_is_explained_by_the_supervisors_log(tmp_path: Path) -> None:
    parts = [part(tmp_path, tmp_path / "not there")]
    with Supervisor(parts, dict(os.environ), tmp_path / "supervisor.log") as supervisor:
        supervisor.start("one")

        def reason() -> str:
            try:
                supervisor.check()
            except PartError as error:
                return str(error)
            return ""

        said = wait_for(reason, SECONDS, "the part is missed")
    assert "one ended on its own" in said
    assert "No such file or directory" in said
