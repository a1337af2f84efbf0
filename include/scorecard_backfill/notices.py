"""What people are told about a run, and when: facts -> messages, one for each cause and run.

Nothing is sent here. A notice has a key; a key that was told in this run is not told again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from include.scorecard_backfill.config.notify import About, Channel
from include.scorecard_backfill.plural import number_of
from include.scorecard_backfill.records import Failure, plain
from include.scorecard_backfill.verdicts.causes import cause_of, what_to_do

LONGEST_TEXT = 1_500
"""Characters of a message: what a phone shows, and below the limit of every service."""

NOTE_PREFIX = "Refused: "
"""How the note of a refused run begins: by it our own notes are told from what people write."""

LONGEST_NOTE = 1_000
"""Characters that Airflow keeps of a run's note; PostgreSQL refuses a longer one."""

QUIET_REASONS = frozenset({"queue"})
"""Waits that are as they should be: a window whose turn has not come."""


@dataclass(frozen=True, slots=True)
class Run:
    """The run that a notice is about. ``link``: address of its page, '' when Airflow's address is not known."""

    cluster: str
    run_id: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message. ``cause`` tells it from others of its kind; ``subject`` is one line, ``text`` the whole."""

    about: About
    cause: str
    run: Run
    subject: str
    text: str

    @property
    def key(self) -> str:
        """What is told once in a run."""
        return f"{self.about}:{self.cause}"

    def to_json(self) -> dict[str, str]:
        """Return what a webhook is sent. ``text`` is what chat services show of an unknown sender."""
        return {
            "about": self.about,
            "cause": self.cause,
            "cluster": self.run.cluster,
            "run_id": self.run.run_id,
            "link": self.run.link,
            "subject": self.subject,
            "text": f"{self.subject}\n{self.text}",
        }


def _notice(about: About, cause: str, run: Run, what: str, lines: Iterable[str]) -> Notice:
    text = "\n".join(line for line in (*lines, f"Run {run.run_id}", run.link) if line)
    return Notice(about, cause, run, f"{run.cluster}: {what}", text[:LONGEST_TEXT])


def approval_notice(run: Run, digest: str, windows: int, customers: int) -> Notice:
    """Return the message that a plan waits for a person; a changed plan (another digest) is told again."""
    what = f"the plan of {number_of(windows, 'window')} of {number_of(customers, 'customer')} waits for approval"
    return _notice("approval", digest, run, what, ["Nothing has been deleted. Read it under Required Actions."])


def failure_notice(run: Run, label: str, failure: Failure, *, cut: bool = False) -> Notice | None:
    """Return the message that a window has failed, None when nobody needs to know.

    ``cut``: a later pass cuts a window that failed by its size, and does it again by itself.
    """
    if cut and cause_of(failure.cause).size:
        return None
    todo = failure.what_to_do or what_to_do(failure.cause)
    if failure.cause == "breaker":
        return _notice("breaker", "", run, "no further window is started, too many have failed", [failure.reason, todo])
    lines = [f"{label}: {failure.text}", todo, "Others that fail by the same cause are not told again in this run."]
    return _notice("failed", failure.cause, run, f"a window has failed ({failure.cause} in {failure.stage})", lines)


def wait_notice(run: Run, label: str, stage: str, word: str, reason: str, minutes: float, limit: int) -> Notice | None:
    """Return the message that a wait takes longer than ``limit`` minutes, None while it does not.

    ``word`` is the wait's reason in one word; a window whose turn has not come is none.
    """
    if minutes < limit or word in QUIET_REASONS:
        return None
    what = f"{stage} waits for more than {limit} minutes"
    return _notice("waits", f"{stage}:{word}", run, what, [f"{label}: {reason}"])


def finished_notice(run: Run, report: Mapping[str, Any]) -> Notice | None:
    """Return the message that a run has ended, None for a dry run; another outcome after a retry is told again."""
    if report.get("dry_run"):
        return None
    if refused := str(report.get("refused") or ""):
        return _notice("finished", "refused", run, "the run was refused, nothing was deleted", [refused])
    planned, verified = int(report["planned"]), int(report["verified"])
    removed = [f"{table}: {numbers['before']:,} rows before, {numbers['after']:,} after, {numbers['removed']:,} removed"
               for table, numbers in report.get("total", {}).items()]  # fmt: skip
    verdict = "complete" if report["complete"] else "NOT complete"
    debts = len(report.get("debts") or ())
    owed = [f"{debts} windows are deleted and not verified."] if debts else []
    what = f"{verdict}, {verified} of {planned} windows verified"
    return _notice("finished", f"{verified}/{planned}", run, what, [*removed, *owed])


def rejection(left: object) -> str:
    """Return the sentence of a plan that was rejected, from what the approval has left; '' for nothing."""
    found = plain(left)
    if not isinstance(found, Mapping):
        return ""
    return f"The plan was rejected by {found.get('by') or 'somebody'}; nothing was deleted."


def run_note(sentence: str) -> str:
    """Return the note of a run that was refused: text that every database of Airflow takes.

    The sentence repeats what was sent as a parameter, and that may hold what a database refuses (NUL, half of a pair of
    surrogates).
    """
    text = f"{NOTE_PREFIX}{sentence.strip()}".replace("\0", "�").encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_NOTE else f"{text[: LONGEST_NOTE - 1]}…"


def addressed(channels: Iterable[Channel], notice: Notice, told: Collection[str]) -> list[Channel]:
    """Return the channels that a notice goes to: those that are about it, none when it was told already."""
    return [] if notice.key in told else [channel for channel in channels if notice.about in channel.about]
