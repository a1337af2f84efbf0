"""The command line: every command with its help, parsed; nothing is done here."""

from __future__ import annotations

import argparse
from datetime import date

from backfill.cli import login
from include.scorecard_backfill.config.fields import MAX_CUSTOMER_CHARACTERS
from include.scorecard_backfill.planning.overrides import MAX_AGE

MAX_HOURS = int(MAX_AGE.total_seconds() // 3600)

CODES = """exit codes:
  0  yes, done
  1  the answer is no, or something has failed
  2  the command cannot be used like this
  3  Airflow cannot be reached, or does not allow it
"""

RESET = """Do a customer's windows again from their first stage on: those of the run that have ended and are not
verified (with DAY only the one that holds this UTC day). All their stages and the report are cleared, as by Airflow's
Clear. Each stage then looks first: a DELETE that was taken is not sent again, a Job that runs is adopted, otherwise a
new reindex Job is made. Verified windows, windows in work and windows that have not begun are left alone. `retry`
clears only what has failed, and is enough in most cases. To do a verified window again, start a new run for its days.
"""

WRITE_OFF = """Call a debt settled that will never be paid: the customer is gone, its database was dropped, or what
is stored cannot be read. No plan takes its days in any more. It needs the right to change limits, and no run of the
cluster may be under way. What was owed is kept with your name and the reason, in Airflow's audit log, too.
"""

UNDO = """Put back the rows of a run that did not come back, from the snapshots that were taken before the delete. It
starts the cluster's undo DAG, which shows how many rows are missing and asks in Airflow before it inserts anything.
"""


def a_day(text: str) -> date:
    """Return a UTC day. Raises ArgumentTypeError for anything but YYYY-MM-DD."""
    try:
        if len(text) != len("2026-01-31"):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write YYYY-MM-DD, such as 2026-01-31") from None


def a_customer(text: str) -> str:
    """Return a customer id. Raises ArgumentTypeError for a text that cannot be one."""
    if not text.strip() or len(text) > MAX_CUSTOMER_CHARACTERS:
        raise argparse.ArgumentTypeError(
            f"{text[:50]!r} is not a customer id: 1 to {MAX_CUSTOMER_CHARACTERS} characters"
        )
    return text


def some_hours(text: str) -> int:
    """Return a number of hours. Raises ArgumentTypeError outside of the bounds of an override."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of hours from 1 to {MAX_HOURS} is expected")
    return int(text)


def some_minutes(text: str) -> int:
    """Return a number of minutes. Raises ArgumentTypeError outside of one day."""
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 1_440:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of minutes from 0 to 1440 is expected")
    return int(text)


def a_reason(text: str) -> str:
    """Return why something is done. Raises ArgumentTypeError for a reason that says nothing."""
    if not 3 <= len(text.strip()) <= 500:
        raise argparse.ArgumentTypeError("a reason of 3 to 500 characters is expected, for those who find it")
    return text.strip()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    found = argparse.ArgumentParser(
        prog="python -m backfill",
        description="The scorecard backfills in a terminal: the page's words, the page's rights.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _shared()
    _status(commands, shared)
    _plan(commands, shared)
    _deeds(commands, shared)
    _pauses(commands, shared)
    _undo(commands, shared)
    _debts(commands, shared)
    return found


def _shared() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--cluster", help=f"cluster (or {login.CLUSTER_ENV}); not needed when there is one only")
    common.add_argument("--json", action="store_true", help="print the answer as JSON; errors as JSON to stderr")
    where = common.add_argument_group("Airflow", f"Passwords and tokens come from {login.PASSWORD_ENV}, "
                                      f"{login.TOKEN_ENV} or a file, never from the command line.")  # fmt: skip
    where.add_argument("--url", help=f"address of Airflow (or {login.URL_ENV})")
    where.add_argument("--user", help=f"user (or {login.USER_ENV}); the password is asked for in a terminal")
    where.add_argument("--token-file", metavar="FILE", help="file with an access token")
    return common


def _add(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, shared: argparse.ArgumentParser,
         short: str, long: str = "") -> argparse.ArgumentParser:  # fmt: skip
    added: argparse.ArgumentParser = commands.add_parser(
        name, parents=[shared], help=short, description=long or short, allow_abbrev=False
    )
    return added


def _run(to: argparse.ArgumentParser) -> None:
    to.add_argument("--run", metavar="RUN_ID", help="run; default: the newest one of the cluster")


def _yes(to: argparse.ArgumentParser) -> None:
    to.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can answer")


def _status(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    status = _add(commands, "status", shared, "how far, why not, what must be done; without --cluster all clusters")
    _run(status)
    status.add_argument("--all", action="store_true", dest="everything", help="every window, verified ones too")
    report = _add(commands, "report", shared, "what a run did: rows before, after and removed of each customer")
    _run(report)
    kind = report.add_mutually_exclusive_group()
    kind.add_argument("--csv", action="store_const", const="csv", dest="kind", help="one line for each window, as CSV")
    kind.add_argument("--markdown", action="store_const", const="md", dest="kind", help="report and plan as Markdown")


def _plan(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    plan = _add(commands, "plan", shared, "what a run would do: a dry run, nothing is changed")
    plan.add_argument("--customer", action="append", type=a_customer, default=[], metavar="ID", help="more than once")
    plan.add_argument("--all-customers", action="store_true", help="every customer of the cluster")
    plan.add_argument("--start", type=a_day, metavar="DAY", help="first UTC day; without both: the previous month")
    plan.add_argument("--end", type=a_day, metavar="DAY", help="the UTC day after the last one")
    plan.add_argument("--mode", choices=("cleanup", "reindex"), default="cleanup", help="default: cleanup")
    plan.add_argument("--window", choices=("auto", "month", "10d", "5d", "1d"), help="default: the cluster's file")
    plan.add_argument("--wait", type=some_minutes, default=15, metavar="MINUTES", help="for the plan; default: 15")


def _deeds(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    retry = _add(commands, "retry", shared, "clear what has failed in a run, of one customer when it is named",
                 "Clear the failed task instances of a run and its report: every stage is tried again.")  # fmt: skip
    retry.add_argument("--customer", type=a_customer, metavar="ID", help="only this customer's windows")
    _run(retry)
    reset = _add(commands, "reset", shared, "do a customer's windows that are not verified again from the start", RESET)
    reset.add_argument("customer", type=a_customer, metavar="CUSTOMER")
    reset.add_argument("day", type=a_day, nargs="?", metavar="DAY", help="only the window that holds this UTC day")
    _run(reset)
    _yes(reset)


def _pauses(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    pause = _add(commands, "pause", shared, "admit no further window for some hours; what is in work goes on")
    pause.add_argument("--reason", type=a_reason, required=True, help="for those who find the pause")
    pause.add_argument("--hours", type=some_hours, required=True, help=f"1 to {MAX_HOURS}")
    _add(commands, "resume", shared, "end a pause; other limits of the override stay in force")


def _undo(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    undo = _add(commands, "undo", shared, "put back the rows of a run that did not come back, from its snapshots", UNDO)
    undo.add_argument("--run", metavar="RUN_ID", required=True, help="run of the cleanup; always named")
    undo.add_argument("--customer", action="append", type=a_customer, default=[], metavar="ID", help="more than once")
    undo.add_argument("--all-customers", action="store_true", help="all customers of that run")
    undo.add_argument("--meant", action="store_true", help="also the rows that were meant to go: undoes the cleanup")
    _yes(undo)


def _debts(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    _add(commands, "debts", shared, "what was deleted and is not proven to be back, with the key of each debt")
    off = _add(commands, "write-off", shared, "call a debt settled that will never be paid", WRITE_OFF)
    off.add_argument("key", metavar="KEY", help="of the debt, as `debts` shows it")
    off.add_argument("--reason", type=a_reason, required=True, help="for those who look for these rows")
    _yes(off)
