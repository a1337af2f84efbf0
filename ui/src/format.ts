import type { Stage, State, WindowRow } from "./types";

const numbers = new Intl.NumberFormat("en-US");

export const count = (value: number | null | undefined): string =>
  value === null || value === undefined ? "–" : numbers.format(value);

export const plural = (value: number, one: string, many = `${one}s`): string =>
  `${count(value)} ${value === 1 ? one : many}`;

/** Minutes as people say them: 45 min, 2 h 10 min, 3 d 4 h. */
export function minutes(value: number): string {
  const whole = Math.max(0, Math.round(value));
  if (whole < 1) return "under a minute";
  if (whole < 60) return `${whole} min`;
  if (whole < 48 * 60) return whole % 60 ? `${Math.floor(whole / 60)} h ${whole % 60} min` : `${whole / 60} h`;
  const hours = Math.round(whole / 60);
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

export function ago(iso: string | null, now: number): string {
  return iso === null ? "–" : minutes((now - Date.parse(iso)) / 60000);
}

/** A moment in UTC, the zone of all days here. */
export function moment(iso: string | null): string {
  if (iso === null) return "–";
  return `${new Date(iso).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function clock(iso: string, now: number): string {
  const text = new Date(iso).toISOString();
  const today = new Date(now).toISOString().slice(0, 10);
  return text.slice(0, 10) === today ? text.slice(11, 16) : text.slice(0, 16).replace("T", " ");
}

export const states: Record<State, { word: string; sign: string }> = {
  verified: { word: "verified", sign: "✓" },
  working: { word: "in work", sign: "▸" },
  waiting: { word: "waiting", sign: "·" },
  cut: { word: "cut smaller", sign: "✂" },
  failed: { word: "failed", sign: "✕" },
  not_started: { word: "not started", sign: "–" },
};

export const stages: Record<Stage, { word: string; sign: string }> = {
  admit: { word: "waiting for its turn", sign: "·" },
  delete: { word: "deleting", sign: "D" },
  wait_mutations: { word: "waiting for mutations", sign: "M" },
  reindex: { word: "reindex Job", sign: "J" },
  wait_workflows: { word: "workflows", sign: "W" },
  verify: { word: "verifying", sign: "V" },
  done: { word: "done", sign: "✓" },
};

/** State and, while it is under way or has failed, the stage. */
export function standing(row: WindowRow): string {
  const word = states[row.state].word;
  if (row.state === "working" || row.state === "failed") {
    const part = row.percent !== null ? `, ${row.percent} %` : "";
    return `${word}: ${stages[row.stage].word}${part}`;
  }
  return word;
}

export function sign(row: WindowRow): string {
  return row.state === "working" ? stages[row.stage].sign : states[row.state].sign;
}

export const path = (dag: string, run?: string): string =>
  `/dags/${encodeURIComponent(dag)}${run === undefined ? "" : `/runs/${encodeURIComponent(run)}`}`;

/** Airflow's page of the task at which a window is. */
export function taskPath(dag: string, run: string, row: WindowRow): string {
  return `${path(dag, run)}/tasks/${encodeURIComponent(row.task)}/mapped/${row.index}`;
}

export const sumText = (rows: Record<string, number>): string =>
  Object.entries(rows)
    .map(([table, value]) => `${table} ${count(value)}`)
    .join(", ") || "–";
