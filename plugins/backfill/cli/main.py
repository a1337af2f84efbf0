"""From the arguments to the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import httpx

from backfill.cli.client import Client
from backfill.cli.commands import Commands
from backfill.cli.errors import NO, CommandError
from backfill.cli.login import CLUSTER_ENV, login_of
from backfill.cli.options import parser
from backfill.cli.output import Output, standard

INTERRUPTED = 130


def main(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
    output: Output | None = None,
    sleep: Callable[[float], None] | None = None,
) -> int:
    """Run the command and return its exit code. All but ``argv`` is for tests."""
    try:
        options = parser().parse_args(argv)
    except SystemExit as end:
        # argparse has printed help (0) or what is wrong (2).
        return int(end.code or 0)
    known = os.environ if env is None else env
    said = output or standard(as_json=options.json)
    cluster = options.cluster or known.get(CLUSTER_ENV, "")
    try:
        with Client(login_of(options, known), transport) as client:
            more = {} if sleep is None else {"sleep": sleep}
            return Commands(client, said, options, cluster, **more).run()
    except CommandError as error:
        said.fail(error)
        return error.code
    except KeyboardInterrupt:
        said.tell("Interrupted; what was started at the server goes on.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has had enough: nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return NO
