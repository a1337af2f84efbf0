import { type FC, type ReactNode, useMemo, useState } from "react";

export interface Column<T> {
  name: string;
  head: string;
  cell: (row: T) => ReactNode;
  /** What it is sorted by; without it the column cannot be sorted. */
  sort?: (row: T) => number | string | null;
  number?: boolean;
  rowHead?: boolean;
}

interface Props<T> {
  caption: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  chosen?: string;
  foot?: T;
  page?: number;
}

/** A real table that sorts by its heads and becomes a list of cards on a narrow screen. */
export function Table<T>({ caption, columns, rows, id, chosen, foot, page = 100 }: Props<T>): ReactNode {
  const [by, setBy] = useState<{ name: string; down: boolean } | null>(null);
  const [pages, setPages] = useState(1);
  const sorted = useMemo(() => sort(rows, columns, by), [rows, columns, by]);
  const chosenAt = chosen ? sorted.findIndex((row) => id(row) === chosen) : -1;
  const shown = sorted.slice(0, Math.max(pages * page, chosenAt + 1));
  return (
    <>
      <div aria-label={caption} className="bf-scroll" role="region" tabIndex={0}>
        <table className="bf-table" role="table">
          <caption className="bf-hidden">{caption}</caption>
          <thead role="rowgroup">
            <tr role="row">
              {columns.map((column) => (
                <Head by={by} column={column} key={column.name} onSort={setBy} />
              ))}
            </tr>
          </thead>
          <tbody role="rowgroup">
            {shown.map((row) => (
              <Row chosen={id(row) === chosen} columns={columns} id={id(row)} key={id(row)} row={row} />
            ))}
          </tbody>
          {foot !== undefined && (
            <tfoot role="rowgroup">
              <Row chosen={false} columns={columns} id="total" row={foot} />
            </tfoot>
          )}
        </table>
      </div>
      {shown.length < sorted.length && (
        <button className="bf-button" onClick={() => setPages(pages + 1)} type="button">
          Show {Math.min(page, sorted.length - shown.length)} more of {sorted.length}
        </button>
      )}
    </>
  );
}

function Head<T>({
  column,
  by,
  onSort,
}: {
  column: Column<T>;
  by: { name: string; down: boolean } | null;
  onSort: (by: { name: string; down: boolean }) => void;
}): ReactNode {
  const mine = by?.name === column.name;
  const sorted = mine ? (by.down ? "descending" : "ascending") : "none";
  return (
    <th
      {...(column.sort ? { "aria-sort": sorted } : {})}
      className={column.number ? "bf-number" : undefined}
      role="columnheader"
      scope="col"
    >
      {column.sort ? (
        <button onClick={() => onSort({ name: column.name, down: mine ? !by.down : false })} type="button">
          {column.head}
          <span aria-hidden="true">{mine ? (by.down ? " ▾" : " ▴") : ""}</span>
        </button>
      ) : (
        column.head
      )}
    </th>
  );
}

function Row<T>({
  row,
  columns,
  id,
  chosen,
}: {
  row: T;
  columns: Column<T>[];
  id: string;
  chosen: boolean;
}): ReactNode {
  return (
    <tr className={chosen ? "bf-chosen" : undefined} id={`bf-row-${id}`} role="row">
      {columns.map((column) => {
        const content = column.cell(row);
        const look = column.number ? "bf-number" : undefined;
        return column.rowHead ? (
          <th className={look} data-head={column.head} key={column.name} role="rowheader" scope="row">
            {content}
          </th>
        ) : (
          <td className={look} data-head={column.head} key={column.name} role="cell">
            {content}
          </td>
        );
      })}
    </tr>
  );
}

function sort<T>(rows: T[], columns: Column<T>[], by: { name: string; down: boolean } | null): T[] {
  const value = columns.find((column) => column.name === by?.name)?.sort;
  if (!by || !value) return rows;
  const sign = by.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return 0;
    // What is not known comes last, whatever the direction.
    if (x === null) return 1;
    if (y === null) return -1;
    return x < y ? -sign : sign;
  });
}

export const Lines: FC<{ items: ReactNode[] }> = ({ items }) => (
  <>
    {items.map((item, n) => (
      <div key={n}>{item}</div>
    ))}
  </>
);
