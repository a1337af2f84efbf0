import { type FC, useMemo, useState } from "react";
import { Link } from "react-router-dom";

import { post, useLook } from "./api";
import { count, minutes, moment, path, sumText } from "./format";
import { Page, Problem } from "./Page";
import { Dialog, type Question } from "./parts/Dialog";
import { type Column, Table } from "./parts/Table";
import { startSlot } from "./questions";
import { useRights } from "./RunTab";
import type { CustomerLine, DagHistory, DebtLine, RunLine } from "./types";

const SECONDS = 15;

const range = (days: [string, string] | null): string => (days ? `${days[0]}..${days[1]}` : "–");
const total = (rows: Record<string, number>): number => Object.values(rows).reduce((sum, value) => sum + value, 0);

/** The tab *Scorecards* of a DAG: its runs, and when each customer was last cleaned. */
export const DagTab: FC<{ dagId?: string }> = ({ dagId = "" }) => {
  const { data, error, refresh } = useLook<DagHistory>("dag", { dag_id: dagId }, () => SECONDS);
  const rights = useRights(dagId);
  const [question, setQuestion] = useState<Question | null>(null);
  const [done, setDone] = useState("");
  const runs = useMemo(() => runColumns(dagId), [dagId]);
  const debts = useMemo(() => debtColumns(dagId), [dagId]);
  const customers = useMemo(() => customerColumns(dagId), [dagId]);
  if (!data) return <Page>{error ? <Problem error={error} /> : <p role="status">Loading…</p>}</Page>;
  const { missed } = data;
  const start = (): void => {
    if (missed) setQuestion(startSlot(missed, (body) => post("actions/start-slot", { dag_id: dagId }, body)));
  };
  const close = (said: string): void => {
    setQuestion(null);
    if (said) {
      setDone(said);
      refresh();
    }
  };
  return (
    <Page>
      {error && <Problem error={error} />}
      {done && (
        <p className="bf-note bf-note-done" role="status">
          {done}
        </p>
      )}
      {missed && (
        <section aria-label="What needs a person">
          <div className="bf-note bf-look">
            <div>
              <strong>
                Missed: {missed.days[0]}..{missed.days[1]}
              </strong>
              <p>{missed.what}</p>
              {data.paused && <p>The DAG is paused in Airflow: unpause it before you start the run.</p>}
            </div>
            <div className="bf-buttons">
              {rights.start && !data.paused && (
                <button className="bf-button" onClick={start} type="button">
                  Start it now
                </button>
              )}
            </div>
          </div>
        </section>
      )}
      {data.debts.length > 0 && (
        <section aria-labelledby="bf-debts" className="bf-card">
          <h2 id="bf-debts">Deleted, not yet verified</h2>
          <p className="bf-muted">The next plan over these days takes them in.</p>
          <Table
            caption="Days that were deleted and are not verified"
            columns={debts}
            id={(row) => `${row.customer}-${row.start}-${row.end}`}
            rows={data.debts}
          />
        </section>
      )}
      <section aria-labelledby="bf-runs" className="bf-card">
        <h2 id="bf-runs">Runs</h2>
        {data.runs.length ? (
          <Table caption="Runs, the newest first" columns={runs} id={(row) => row.run_id} rows={data.runs} />
        ) : (
          <p className="bf-muted">No run yet.</p>
        )}
      </section>
      <section aria-labelledby="bf-customers" className="bf-card">
        <h2 id="bf-customers">Customers</h2>
        <p className="bf-muted">The last run of each customer that verified windows, among the runs above.</p>
        {data.customers.length > 0 && (
          <Table
            caption="Customers and when they were last cleaned"
            columns={customers}
            id={(row) => row.customer}
            rows={data.customers}
          />
        )}
      </section>
      <Dialog onClose={close} question={question} />
    </Page>
  );
};

function runColumns(dag: string): Column<RunLine>[] {
  return [
    {
      name: "run",
      head: "Run",
      rowHead: true,
      sort: (row) => row.run_id,
      cell: (row) => <Link to={`${path(dag, row.run_id)}/plugin/backfill`}>{row.run_id}</Link>,
    },
    { name: "verdict", head: "Verdict", sort: (row) => row.verdict, cell: (row) => <Verdict text={row.verdict} /> },
    { name: "mode", head: "Mode", sort: (row) => row.mode, cell: (row) => row.mode || "–" },
    { name: "days", head: "Days", sort: (row) => row.days?.[0] ?? null, cell: (row) => range(row.days) },
    {
      name: "customers",
      head: "Customers",
      number: true,
      sort: (row) => row.customers,
      cell: (row) => count(row.customers),
    },
    {
      name: "removed",
      head: "Rows removed",
      number: true,
      sort: (row) => total(row.removed),
      cell: (row) => sumText(row.removed),
    },
    { name: "started", head: "Started", sort: (row) => row.started, cell: (row) => moment(row.started) },
    {
      name: "minutes",
      head: "Took",
      number: true,
      sort: (row) => row.minutes,
      cell: (row) => (row.minutes === null ? "–" : minutes(row.minutes)),
    },
    { name: "who", head: "Asked by", sort: (row) => row.asked_by, cell: (row) => row.asked_by || "–" },
  ];
}

function debtColumns(dag: string): Column<DebtLine>[] {
  return [
    { name: "customer", head: "Customer", rowHead: true, sort: (row) => row.customer, cell: (row) => row.customer },
    { name: "days", head: "Days", sort: (row) => row.start, cell: (row) => range([row.start, row.end]) },
    { name: "since", head: "Since", sort: (row) => row.since, cell: (row) => moment(row.since) },
    { name: "what", head: "What", cell: (row) => (row.swept ? "swept, not yet verified" : "not yet proven to be back") },
    {
      name: "run",
      head: "Deleted by",
      cell: (row) => <Link to={`${path(dag, row.run_id)}/plugin/backfill`}>{row.run_id}</Link>,
    },
  ];
}

function customerColumns(dag: string): Column<CustomerLine>[] {
  return [
    { name: "customer", head: "Customer", rowHead: true, sort: (row) => row.customer, cell: (row) => row.customer },
    { name: "ended", head: "Last", sort: (row) => row.ended, cell: (row) => moment(row.ended) },
    { name: "mode", head: "Mode", sort: (row) => row.mode, cell: (row) => row.mode },
    { name: "days", head: "Days", sort: (row) => row.days?.[0] ?? null, cell: (row) => range(row.days) },
    {
      name: "windows",
      head: "Windows verified",
      number: true,
      sort: (row) => row.verified,
      cell: (row) => `${count(row.verified)} of ${count(row.windows)}`,
    },
    {
      name: "removed",
      head: "Rows removed",
      number: true,
      sort: (row) => total(row.removed),
      cell: (row) => sumText(row.removed),
    },
    {
      name: "run",
      head: "Run",
      cell: (row) => <Link to={`${path(dag, row.run_id)}/plugin/backfill`}>{row.run_id}</Link>,
    },
  ];
}

const looks: Record<string, string> = {
  complete: "verified",
  running: "working",
  "waiting for approval": "cut",
  incomplete: "failed",
  refused: "failed",
};

export const Verdict: FC<{ text: string }> = ({ text }) => (
  <span className={`bf-badge bf-${looks[text] ?? "not_started"}`}>{text}</span>
);
