import { type FC, type KeyboardEvent, useMemo, useRef, useState } from "react";

import { sign, stages, standing, states } from "../format";
import type { WindowRow } from "../types";

const DAY = 86_400_000;

interface Line {
  customer: string;
  cells: { row: WindowRow | null; days: number; key: string }[];
}

/** Windows that decide: those that were cut give way to their parts. */
export function leaves(rows: WindowRow[]): WindowRow[] {
  const cut = new Set(rows.map((row) => row.part_of).filter(Boolean));
  return rows.filter((row) => !cut.has(row.key) || row.stage === "done");
}

const days = (from: string, to: string): number => Math.round((Date.parse(to) - Date.parse(from)) / DAY);

function lines(rows: WindowRow[], first: string, last: string): Line[] {
  const grouped = new Map<string, WindowRow[]>();
  for (const row of leaves(rows)) grouped.set(row.customer, [...(grouped.get(row.customer) ?? []), row]);
  return [...grouped].map(([customer, listed]) => {
    const cells: Line["cells"] = [];
    let at = first;
    for (const row of listed.sort((a, b) => a.start.localeCompare(b.start))) {
      if (row.start > at) cells.push({ row: null, days: days(at, row.start), key: `${at}-` });
      cells.push({ row, days: Math.max(1, days(row.start, row.end)), key: row.key });
      at = row.end > at ? row.end : at;
    }
    if (at < last) cells.push({ row: null, days: days(at, last), key: `${at}-` });
    return { customer, cells };
  });
}

function months(first: string, total: number): { text: string; days: number }[] {
  const found: { text: string; days: number }[] = [];
  for (let n = 0; n < total; n += 1) {
    const text = new Date(Date.parse(first) + n * DAY).toISOString().slice(0, 7);
    const last = found.at(-1);
    if (last?.text === text) last.days += 1;
    else found.push({ text, days: 1 });
  }
  return found;
}

/** The day of the month, each fifth and the first only: there is no room for all. */
function dayOfMonth(first: string, offset: number): string {
  const day = new Date(Date.parse(first) + offset * DAY).getUTCDate();
  return offset === 0 || day === 1 || day % 5 === 0 ? String(day) : "";
}

/** Customers x days: one cell for each window over its days. The arrow keys walk through it, Enter opens the row. */
export const Matrix: FC<{ rows: WindowRow[]; chosen: string; onChoose: (key: string) => void }> = ({
  rows,
  chosen,
  onChoose,
}) => {
  const first = rows.reduce((least, row) => (row.start < least ? row.start : least), "9999");
  const last = rows.reduce((most, row) => (row.end > most ? row.end : most), "");
  const total = days(first, last);
  const grid = useMemo(() => lines(rows, first, last), [rows, first, last]);
  const [active, setActive] = useState("");
  const table = useRef<HTMLTableElement>(null);
  const known = grid.some((line) => line.cells.some((cell) => cell.row?.key === active));
  const entry = known ? active : (grid[0]?.cells.find((cell) => cell.row)?.row?.key ?? "");

  const move = (event: KeyboardEvent<HTMLTableElement>): void => {
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
    };
    const step = steps[event.key];
    const from = event.target instanceof HTMLElement ? event.target.dataset["at"] : undefined;
    if (!step || from === undefined) return;
    event.preventDefault();
    const [y = 0, x = 0] = from.split(":").map(Number);
    const next = nearest(y + step[0], x, step[1]);
    if (next) {
      setActive(next.dataset["key"] ?? "");
      next.focus();
    }
  };
  const nearest = (y: number, x: number, dx: number): HTMLElement | undefined => {
    const buttons = [...(table.current?.querySelectorAll<HTMLElement>(`button[data-at^="${y}:"]`) ?? [])];
    const place = (button: HTMLElement): number => Number(button.dataset["at"]?.split(":")[1]);
    if (dx > 0) return buttons.find((button) => place(button) > x);
    if (dx < 0) return buttons.reverse().find((button) => place(button) < x);
    return buttons.reduce<HTMLElement | undefined>(
      (best, button) => (best && Math.abs(place(best) - x) <= Math.abs(place(button) - x) ? best : button),
      undefined,
    );
  };

  if (rows.length === 0) return null;
  return (
    <section aria-labelledby="bf-matrix" className="bf-card">
      <h2 id="bf-matrix">Customers and days</h2>
      <Legend />
      <div aria-labelledby="bf-matrix" className="bf-scroll" role="region" tabIndex={0}>
        <table className="bf-matrix" onKeyDown={move} ref={table}>
          <caption className="bf-hidden">One cell for each window; the arrow keys move, Enter shows its row.</caption>
          <colgroup>
            <col className="bf-name" />
            {Array.from({ length: total }, (_, n) => (
              <col key={n} />
            ))}
          </colgroup>
          <thead>
            <tr>
              <th scope="col">Customer</th>
              {months(first, total).map((month) => (
                <th colSpan={month.days} key={month.text} scope="colgroup">
                  {month.text}
                </th>
              ))}
            </tr>
            {total <= 62 && (
              <tr aria-hidden="true">
                <td />
                {Array.from({ length: total }, (_, n) => (
                  <td className="bf-day" key={n}>
                    {dayOfMonth(first, n)}
                  </td>
                ))}
              </tr>
            )}
          </thead>
          <tbody>
            {grid.map((line, y) => {
              let x = 0;
              return (
                <tr key={line.customer}>
                  <th scope="row" title={line.customer}>
                    {line.customer}
                  </th>
                  {line.cells.map((cell) => {
                    const at = `${y}:${x}`;
                    x += cell.days;
                    return cell.row === null ? (
                      <td colSpan={cell.days} key={cell.key} />
                    ) : (
                      <td colSpan={cell.days} key={cell.key}>
                        <Cell
                          at={at}
                          chosen={cell.row.key === chosen}
                          days={cell.days}
                          onChoose={onChoose}
                          row={cell.row}
                          tab={cell.row.key === entry}
                        />
                      </td>
                    );
                  })}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
};

const Cell: FC<{
  row: WindowRow;
  at: string;
  days: number;
  tab: boolean;
  chosen: boolean;
  onChoose: (key: string) => void;
}> = ({ row, at, days: width, tab, chosen, onChoose }) => {
  const said = `${row.label}: ${standing(row)}${row.reason ? `; ${row.reason}` : ""}`;
  return (
    <button
      aria-label={said}
      className={`bf-cell bf-${row.state}${chosen ? " bf-chosen" : ""}${row.gone_since ? " bf-gone" : ""}`}
      data-at={at}
      data-key={row.key}
      onClick={() => onChoose(row.key)}
      tabIndex={tab ? 0 : -1}
      title={said}
      type="button"
    >
      {row.percent !== null && row.state === "working" && (
        <span className="bf-fill" style={{ width: `${row.percent}%` }} />
      )}
      <span>
        {sign(row)}
        {width > 3 && row.state === "working" && row.percent !== null ? ` ${row.percent} %` : ""}
      </span>
    </button>
  );
};

const Legend: FC = () => (
  <ul aria-label="Legend" className="bf-legend bf-muted">
    {(["verified", "waiting", "failed", "not_started"] as const).map((state) => (
      <li key={state}>
        <span aria-hidden="true" className={`bf-sign bf-${state}`}>
          {states[state].sign}
        </span>
        {states[state].word}
      </li>
    ))}
    {(["delete", "wait_mutations", "reindex", "wait_workflows", "verify"] as const).map((stage) => (
      <li key={stage}>
        <span aria-hidden="true" className="bf-sign bf-working">
          {stages[stage].sign}
        </span>
        {stages[stage].word}
      </li>
    ))}
    <li>
      <span aria-hidden="true" className="bf-sign bf-working bf-gone" />
      deleted, not yet reindexed
    </li>
  </ul>
);
