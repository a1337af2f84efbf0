"""What each command does: look, show, act. The words are the page's, what happens is decided at the server."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping

from backfill.cli.client import Client, Missing
from backfill.cli.errors import NO, OK, CommandError, refused, usage
from backfill.cli.output import Output
from backfill.cli.text import attention_lines, cluster_lines, plan_lines, report_lines, run_lines
from backfill.settings import UNDO_DAG_ID_PREFIX
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.overview.history import ClusterLine, Clusters
from include.scorecard_backfill.overview.model import Attention, Overview
from include.scorecard_backfill.overview.owed import OwedList

POLL_SECONDS = 2.0
"""As old as the page's answers may be."""

ENDED_WELL = ("complete", "nothing to do", "dry run")
ENDED = (*ENDED_WELL, "incomplete", "rejected", "refused")
NO_FAILURE = ("approval", "paused")
"""What a person must do without anything having failed."""


class Commands:
    """The commands of one call. ``sleep`` is for tests."""

    def __init__(self, client: Client, output: Output, options: Namespace, cluster: str = "",
                 sleep: Callable[[float], None] = time.sleep) -> None:  # fmt: skip
        self.client = client
        self.output = output
        self.options = options
        self.cluster = cluster
        self.sleep = sleep

    def run(self) -> int:
        """Do the command and return its exit code. Raises CommandError."""
        commands: Mapping[str, Callable[[], int]] = {
            "status": self.status, "report": self.report, "plan": self.plan, "retry": self.retry,
            "reset": self.reset, "pause": self.pause, "resume": self.resume, "undo": self.undo,
            "debts": self.debts, "write-off": self.write_off,
        }  # fmt: skip
        return commands[self.options.command]()

    def status(self) -> int:
        """Show all clusters, or one run."""
        if not self.cluster and not self.options.run:
            found = self.client.look(Clusters, "/clusters")
            self.output.show(_clusters(found), found.model_dump_json())
            return NO if any(_failed(c.state, c.attention) for c in found.clusters) else OK
        view = self._view()
        self.output.show(run_lines(view, everything=self.options.everything), view.model_dump_json())
        return NO if _failed(view.state, view.attention) else OK

    def report(self) -> int:
        """Print a run's report, or a file of it as the page offers them; no while not every window is verified."""
        if self.options.kind and self.output.as_json:
            raise usage("Give one of --json, --csv and --markdown.")
        line, run_id = self._place()
        view = self.client.look(Overview, "/run", dag_id=line.dag_id, run_id=run_id)
        if self.options.kind:
            self.output.file(self.client.text("/export", dag_id=line.dag_id, run_id=run_id, kind=self.options.kind))
        else:
            self.output.show(report_lines(view), view.model_dump_json())
        return OK if view.state in ENDED_WELL else NO

    def plan(self) -> int:
        """Start a dry run, wait for its plan and show it."""
        conf = _plan_conf(self.options)
        line = self._line()
        # The page's answer may be older than a click on the switch.
        if line.paused and self.client.dag(line.dag_id).get("is_paused"):
            raise refused(f"The DAG {line.dag_id} is paused in Airflow: a dry run would not start. Unpause it first.")
        busy = line.run_id and line.state not in ("", *ENDED)
        if busy:
            raise refused(f"{line.cluster} has a run that has not ended ({line.run_id}): a dry run would wait for it.")
        run_id = self.client.trigger(line.dag_id, conf)
        self.output.tell(f"dry run {run_id}")
        view = self._planned(line.dag_id, run_id)
        lines = [view.headline, *attention_lines(view.attention), "", *plan_lines(view)]
        self.output.show(lines, view.model_dump_json())
        return NO if view.state == "refused" else OK

    def retry(self) -> int:
        """Clear what has failed."""
        line, run_id = self._place()
        return self._done(self.client.act("/actions/retry", {"customer": self.options.customer},
                                          dag_id=line.dag_id, run_id=run_id))  # fmt: skip

    def reset(self) -> int:
        """Show which windows would be done again, ask, and clear exactly these."""
        line, run_id = self._place()
        day = self.options.day.isoformat() if self.options.day else None
        place, body = {"dag_id": line.dag_id, "run_id": run_id}, {"customer": self.options.customer, "day": day}
        shown = self.client.act("/actions/reset", body, **place)
        windows = [tuple(pair) for pair in shown.get("windows") or ()]
        lines = [
            f"Run {run_id} of {line.cluster}: these windows are done again from the first stage on:",
            *(f"  {label}" for _, label in windows),
            *(f"  left alone: {label}: {why}" for label, why in shown.get("left") or ()),
            str(shown.get("what", "")),
        ]
        self.output.confirm(lines, yes=self.options.yes)
        return self._done(self.client.act("/actions/reset", {**body, "keys": [key for key, _ in windows]}, **place))

    def pause(self) -> int:
        """Pause admission."""
        body = {"reason": self.options.reason, "hours": self.options.hours}
        return self._done(self.client.act("/actions/pause", body, dag_id=self._line().dag_id))

    def resume(self) -> int:
        """End a pause."""
        return self._done(self.client.act("/actions/resume", {}, dag_id=self._line().dag_id))

    def undo(self) -> int:
        """Say what the undo does, ask, and start it; Airflow asks again with the numbers."""
        chosen = _customers(self.options)
        line = self._line()
        dag_id = f"{UNDO_DAG_ID_PREFIX}{line.cluster}"
        try:
            paused = bool(self.client.dag(dag_id).get("is_paused"))
        except Missing:
            raise refused(f"{line.cluster} has no undo: its file takes no snapshots (snapshot.enabled).") from None
        whom = "all its customers" if self.options.all_customers else ", ".join(self.options.customer)
        also = "also the rows that were meant to go: it undoes the cleanup itself"
        what = also if self.options.meant else "only the rows that should have come back"
        lines = [
            f"Undo of run {self.options.run} of {line.cluster}, for {whom}: {what}.",
            f"{dag_id} looks at the snapshots, shows the numbers and asks in Airflow before it inserts anything.",
            *(["That DAG is paused: it starts once somebody unpauses it."] if paused else []),
        ]
        self.output.confirm(lines, yes=self.options.yes)
        conf = {"run_id": self.options.run, **chosen, "meant": self.options.meant}
        run_id = self.client.trigger(dag_id, conf)
        where = f"{self.client.url}/dags/{dag_id}/runs"
        return self._done(
            {"done": f"Undo {run_id} was started; it asks at {where} before it inserts anything.", "run_id": run_id}
        )

    def debts(self) -> int:
        """Show what the cluster owes."""
        line = self._line()
        found = self.client.look(OwedList, "/debts", dag_id=line.dag_id)
        lines = [text for one in found.debts for text in (f"{one.key}  {one.text}", f"  {one.remedy}") if text.strip()]
        self.output.show(lines or [f"{line.cluster} owes nothing."], found.model_dump_json())
        return OK

    def write_off(self) -> int:
        """Show a debt, ask, and write it off."""
        line = self._line()
        found = self.client.look(OwedList, "/debts", dag_id=line.dag_id)
        one = next((debt for debt in found.debts if debt.key == self.options.key), None)
        if one is None:
            raise refused(f"{line.cluster} has no open debt {self.options.key}; see `debts`.")
        lines = [
            f"{line.cluster}, {one.key}: {one.text}",
            "Written off, no plan takes these days in any more and no report names them: rows that are missing stay"
            " missing. What was owed, your name and the reason are kept.",
        ]
        self.output.confirm(lines, yes=self.options.yes)
        body = {"key": one.key, "digest": one.digest, "reason": self.options.reason}
        return self._done(self.client.act("/actions/write-off", body, dag_id=line.dag_id))

    def _done(self, answer: ForeignJson) -> int:
        self.output.show([str(answer.get("done", ""))], answer)
        return OK

    def _line(self) -> ClusterLine:
        """Return the cluster that is meant."""
        found = self.client.look(Clusters, "/clusters").clusters
        named = [c for c in found if c.cluster == self.cluster]
        known = ", ".join(c.cluster for c in found) or "none that you may see"
        if named:
            return named[0]
        if self.cluster:
            raise usage(f"Cluster {self.cluster!r} is not known at {self.client.url}; known: {known}.")
        if len(found) != 1:
            raise usage(f"Which cluster? Give --cluster; known: {known}.")
        return found[0]

    def _place(self) -> tuple[ClusterLine, str]:
        """Return cluster and run id, the newest run when none is named."""
        line = self._line()
        run_id = self.options.run or line.run_id
        if not run_id:
            raise refused(f"{line.cluster} has no run yet.")
        return line, run_id

    def _view(self) -> Overview:
        line, run_id = self._place()
        return self.client.look(Overview, "/run", dag_id=line.dag_id, run_id=run_id)

    def _planned(self, dag_id: str, run_id: str) -> Overview:
        """Wait until the dry run has its plan. Raises CommandError after --wait minutes."""
        for _ in range(max(1, int(self.options.wait * 60 / POLL_SECONDS))):
            view = self.client.look(Overview, "/run", dag_id=dag_id, run_id=run_id)
            if view.state in ENDED:
                return view
            self.sleep(POLL_SECONDS)
        raise CommandError(
            f"Dry run {run_id} has no plan after {self.options.wait} minutes; it goes on. Look again with"
            f" `status --run {run_id}`.",
            NO,
        )


def _clusters(found: Clusters) -> list[str]:
    if not found.clusters:
        return ["No cluster that you may see."]
    lines = cluster_lines(found.clusters)
    for one in found.clusters:
        lines += [f"{one.cluster}: {text}" for text in attention_lines(one.attention)]
    return lines


def _failed(state: str, attention: tuple[Attention, ...]) -> bool:
    """Return True when something has failed, as opposed to a question or a pause."""
    must = any(a.level == "act" and a.kind not in NO_FAILURE for a in attention)
    return must or state in ("incomplete", "rejected", "refused")


def _customers(options: Namespace) -> ForeignJson:
    """Return whom a run is for. Raises CommandError for nobody, or for some and all at once."""
    if bool(options.customer) == options.all_customers:
        raise usage("For whom? Give --customer (more than once) or --all-customers, one of the two.")
    return {"customers": options.customer, "all_customers": options.all_customers}


def _plan_conf(options: Namespace) -> ForeignJson:
    """Return the form of a dry run. Raises CommandError for half a pair of days."""
    conf = {**_customers(options), "mode": options.mode, "dry_run": True}
    if (options.start is None) != (options.end is None):
        raise usage("Give both --start and --end, or neither for the previous calendar month; the end is exclusive.")
    if options.start is not None:
        if options.start >= options.end:
            raise usage(f"--end {options.end} is not after --start {options.start}; the end is exclusive.")
        conf |= {"start_date": options.start.isoformat(), "end_date": options.end.isoformat()}
    if options.window:
        conf |= {"window": options.window}
    return conf
