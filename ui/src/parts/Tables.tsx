import { type FC, type ReactNode, useMemo } from "react";

import { count } from "../format";
import type { Overview, PlanRow, ReportRow } from "../types";
import { type Column, Lines, Table } from "./Table";

/** The plan by customer, with its total. */
export const Plan: FC<{ view: Overview }> = ({ view }) => {
  const { plan } = view;
  const columns = useMemo(() => planColumns(plan.tables, plan.mode), [plan.tables, plan.mode]);
  if (plan.rows.length === 0) return null;
  return (
    <section aria-labelledby="bf-plan" className="bf-card">
      <h2 id="bf-plan">Plan</h2>
      <p className="bf-muted">
        Digest <code>{plan.hash}</code>. Row figures are estimates (before FINAL).
      </p>
      <Table caption="Plan by customer" columns={columns} foot={plan.total} id={(row) => row.customer} rows={plan.rows} />
      {plan.notes.length > 0 && (
        <ul>
          {plan.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </section>
  );
};

function planColumns(tables: string[], mode: string): Column<PlanRow>[] {
  const word = mode === "cleanup" ? "to delete" : "now";
  return [
    { name: "customer", head: "Customer", rowHead: true, sort: (row) => row.customer, cell: (row) => row.customer },
    { name: "databases", head: "Databases", cell: (row) => <Lines items={row.databases} /> },
    { name: "windows", head: "Windows", number: true, sort: (row) => row.windows, cell: (row) => count(row.windows) },
    { name: "start", head: "From", sort: (row) => row.start, cell: (row) => row.start },
    { name: "end", head: "To (exclusive)", sort: (row) => row.end, cell: (row) => row.end },
    { name: "days", head: "Days", number: true, sort: (row) => row.days, cell: (row) => count(row.days) },
    {
      name: "conversations",
      head: "Conversations",
      number: true,
      sort: (row) => row.conversations,
      cell: (row) => count(row.conversations),
    },
    ...tables.map((table) => ({
      name: `rows-${table}`,
      head: `Rows ${word}: ${table}`,
      number: true,
      sort: (row: PlanRow) => row.rows[table] ?? 0,
      cell: (row: PlanRow) => count(row.rows[table] ?? 0),
    })),
  ];
}

/** What was done by customer, with its total. */
export const Report: FC<{ view: Overview }> = ({ view }) => {
  const { report } = view;
  const meant = Object.values(report.total.tables).some((numbers) => numbers.meant !== null);
  const columns = useMemo(() => reportColumns(meant), [meant]);
  if (report.rows.length === 0) return null;
  return (
    <section aria-labelledby="bf-report" className="bf-card">
      <h2 id="bf-report">Report</h2>
      <p className="bf-muted">Rows of verified windows only.</p>
      <Table
        caption="Report by customer"
        columns={columns}
        foot={report.total}
        id={(row) => row.customer}
        rows={report.rows}
      />
    </section>
  );
};

type Figure = "before" | "after" | "removed" | "meant";

function reportColumns(meant: boolean): Column<ReportRow>[] {
  const heads: [Figure, string][] = [
    ["before", "Before"],
    ["after", "After"],
    ["removed", "Removed"],
  ];
  if (meant) heads.push(["meant", "Meant to go"]);
  const each = (row: ReportRow, name: Figure): ReactNode => (
    <Lines items={Object.values(row.tables).map((numbers) => count(numbers[name]))} />
  );
  return [
    { name: "customer", head: "Customer", rowHead: true, sort: (row) => row.customer, cell: (row) => row.customer },
    {
      name: "verified",
      head: "Windows verified",
      number: true,
      sort: (row) => row.verified / row.windows,
      cell: (row) => `${count(row.verified)} of ${count(row.windows)}`,
    },
    { name: "tables", head: "Rows of", cell: (row) => <Lines items={Object.keys(row.tables)} /> },
    ...heads.map(([name, head]) => ({
      name,
      head,
      number: true,
      sort: (row: ReportRow) => Object.values(row.tables).reduce((sum, numbers) => sum + (numbers[name] ?? 0), 0),
      cell: (row: ReportRow) => each(row, name),
    })),
  ];
}
