import { type FC, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { Link } from "react-router-dom";

import { ago, count, moment, plural, standing, states, taskPath } from "../format";
import type { Overview, Rights, State, WindowRow } from "../types";
import { type Column, Lines, Table } from "./Table";

type Filter = State | "all" | "gone";

interface Props {
  view: Overview;
  now: number;
  rights: Rights;
  chosen: string;
  onEndJob: (row: WindowRow) => void;
  onRetry: (customer: string) => void;
  onReset: (customer: string) => void;
}

/** The windows as a table with filter, sort and search. */
export const Windows: FC<Props> = ({ view, now, rights, chosen, onEndJob, onRetry, onReset }) => {
  const [filter, setFilter] = useState<Filter>("all");
  const [search, setSearch] = useState("");
  const section = useRef<HTMLElement>(null);

  // A window that was chosen in the matrix must be seen, whatever is filtered.
  useEffect(() => {
    if (!chosen) return;
    setFilter("all");
    setSearch("");
    requestAnimationFrame(() => {
      const row = document.getElementById(`bf-row-${chosen}`);
      row?.scrollIntoView({ block: "center" });
      row?.querySelector<HTMLElement>("a, button")?.focus({ preventScroll: true });
    });
  }, [chosen]);

  const shown = useMemo(() => {
    const wanted = search.trim().toLowerCase();
    return view.windows.filter(
      (row) =>
        (filter === "all" || (filter === "gone" ? row.gone_since !== null : row.state === filter)) &&
        (!wanted || [row.label, row.reason, row.cause, standing(row)].some((t) => t.toLowerCase().includes(wanted))),
    );
  }, [view.windows, filter, search]);
  const columns = useMemo(
    () => windowColumns({ view, now, rights, onEndJob, onRetry, onReset }),
    [view, now, rights, onEndJob, onRetry, onReset],
  );
  const gone = view.windows.filter((row) => row.gone_since !== null).length;

  if (view.windows.length === 0) return null;
  return (
    <section aria-labelledby="bf-windows" className="bf-card" ref={section}>
      <h2 id="bf-windows">Windows</h2>
      <div className="bf-filters" role="search">
        <label>
          State{" "}
          <select onChange={(event) => setFilter(event.target.value as Filter)} value={filter}>
            <option value="all">all ({count(view.windows.length)})</option>
            {(Object.keys(states) as State[]).map((state) => {
              const found = view.windows.filter((row) => row.state === state).length;
              return (
                found > 0 && (
                  <option key={state} value={state}>
                    {states[state].word} ({count(found)})
                  </option>
                )
              );
            })}
            {gone > 0 && <option value="gone">deleted, not yet reindexed ({count(gone)})</option>}
          </select>
        </label>
        <label>
          Search{" "}
          <input
            onChange={(event) => setSearch(event.target.value)}
            placeholder="customer, day, reason"
            type="search"
            value={search}
          />
        </label>
        <span className="bf-muted" role="status">
          {plural(shown.length, "window")}
        </span>
      </div>
      <Table caption="Windows" chosen={chosen} columns={columns} id={(row) => row.key} rows={shown} />
    </section>
  );
};

function windowColumns({ now, ...look }: Omit<Props, "chosen">): Column<WindowRow>[] {
  const { view } = look;
  const each = (row: WindowRow, name: "before" | "after" | "removed"): ReactNode => (
    <Lines items={Object.values(row.tables).map((numbers) => count(numbers[name]))} />
  );
  const total = (row: WindowRow, name: "before" | "after" | "removed"): number | null => {
    const known = Object.values(row.tables).map((numbers) => numbers[name]);
    return known.length === 0 || known.includes(null) ? null : known.reduce<number>((sum, n) => sum + (n ?? 0), 0);
  };
  return [
    {
      name: "window",
      head: "Window",
      rowHead: true,
      sort: (row) => row.label,
      cell: (row) => (
        <>
          {row.part_of && <span aria-hidden="true">↳ </span>}
          {row.task ? (
            <Link title="The task in Airflow" to={taskPath(view.dag_id, view.run_id, row)}>
              {row.customer}
            </Link>
          ) : (
            row.customer
          )}
          <div className="bf-muted bf-nowrap">
            {row.start}..{row.end}
          </div>
        </>
      ),
    },
    {
      name: "state",
      head: "State",
      sort: (row) => `${row.state} ${row.stage}`,
      cell: (row) => (
        <>
          <span className={`bf-badge bf-${row.state}`}>{standing(row)}</span>
          {row.gone_since && <div className="bf-warn">deleted {ago(row.gone_since, now)} ago, not yet reindexed</div>}
        </>
      ),
    },
    {
      name: "since",
      head: "Since",
      sort: (row) => row.since,
      cell: (row) =>
        row.since && (
          <time className="bf-nowrap" dateTime={row.since} title={moment(row.since)}>
            {ago(row.since, now)}
          </time>
        ),
    },
    {
      name: "reason",
      head: "Why",
      cell: (row) => (
        <>
          {row.place !== null && row.state === "waiting" && <div>place {row.place} in the queue</div>}
          {row.cause && <code>{row.cause}</code>} {row.reason}
          {row.todo && <div>{row.todo}</div>}
          {row.blocker && <div className="bf-muted">waits for {row.blocker}</div>}
        </>
      ),
    },
    { name: "table", head: "Rows of", cell: (row) => <Lines items={Object.keys(row.tables)} /> },
    {
      name: "before",
      head: "Before",
      number: true,
      sort: (row) => total(row, "before"),
      cell: (row) => each(row, "before"),
    },
    {
      name: "after",
      head: "After",
      number: true,
      sort: (row) => total(row, "after"),
      cell: (row) => each(row, "after"),
    },
    {
      name: "removed",
      head: "Removed",
      number: true,
      sort: (row) => total(row, "removed"),
      cell: (row) => each(row, "removed"),
    },
    { name: "attempts", head: "Jobs", number: true, sort: (row) => row.attempts, cell: (row) => row.attempts || "–" },
    {
      name: "links",
      head: "Look at",
      cell: (row) => <Look {...look} row={row} />,
    },
  ];
}

const kinds = { job: "Job", workflow: "workflow", mutation: "mutation" } as const;

const Look: FC<Omit<Props, "chosen" | "now"> & { row: WindowRow }> = ({
  row,
  view,
  rights,
  onEndJob,
  onRetry,
  onReset,
}) => (
  <div className="bf-links">
    {row.task && (
      <Link aria-label={`Task and log of ${row.label}`} to={taskPath(view.dag_id, view.run_id, row)}>
        task and log
      </Link>
    )}
    {row.links.map((link) =>
      link.href ? (
        <a href={link.href} key={link.text} rel="noreferrer" target="_blank" title={link.text}>
          {kinds[link.kind]}
        </a>
      ) : (
        <Copy key={link.text} kind={kinds[link.kind]} of={row.label} text={link.text} />
      ),
    )}
    {row.may_end_job && rights.end_job && (
      <button aria-label={`End the Job of ${row.label}`} className="bf-link" onClick={() => onEndJob(row)} type="button">
        end Job
      </button>
    )}
    {row.state === "failed" && rights.retry && (
      <button
        aria-label={`Retry what failed of ${row.customer}`}
        className="bf-link"
        onClick={() => onRetry(row.customer)}
        type="button"
      >
        retry {row.customer}
      </button>
    )}
    {row.state === "failed" && rights.reset && (
      <button
        aria-label={`Reset ${row.customer}: choose windows to be done again from the first stage on`}
        className="bf-link"
        onClick={() => onReset(row.customer)}
        type="button"
      >
        reset {row.customer}
      </button>
    )}
  </div>
);

/** Copy a text. Where the page is not served by HTTPS a browser has no clipboard but the old command. */
async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    const before = document.activeElement;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (before instanceof HTMLElement) before.focus();
    return done;
  }
}

/** A name to look for elsewhere: one press copies it. */
const Copy: FC<{ kind: string; text: string; of: string }> = ({ kind, text, of }) => {
  const [done, setDone] = useState(false);
  return (
    <button
      aria-label={`Copy the name of the ${kind} of ${of}: ${text}`}
      className="bf-link"
      onClick={() => void copied(text).then(setDone)}
      title={text}
      type="button"
    >
      {done ? `${kind} copied` : kind}
    </button>
  );
};
