// The read model as include/scorecard_backfill/overview gives it; tests/unit compares the names of the fields.

export type State = "verified" | "working" | "waiting" | "cut" | "failed" | "not_started";
export type Stage = "admit" | "delete" | "wait_mutations" | "reindex" | "wait_workflows" | "verify" | "done";

export interface Numbers {
  before: number | null;
  after: number | null;
  removed: number | null;
  meant: number | null;
  short: number | null;
}

export interface WindowLink {
  kind: "job" | "workflow" | "mutation";
  text: string;
  href: string;
}

export interface WindowRow {
  key: string;
  label: string;
  customer: string;
  start: string;
  end: string;
  state: State;
  stage: Stage;
  task: string;
  index: number;
  since: string | null;
  reason: string;
  cause: string;
  todo: string;
  blocker: string;
  place: number | null;
  percent: number | null;
  conversations: number;
  tables: Record<string, Numbers>;
  attempts: number;
  part_of: string;
  parts: number;
  gone_since: string | null;
  may_end_job: boolean;
  links: WindowLink[];
}

export interface Counts {
  planned: number;
  verified: number;
  working: number;
  waiting: number;
  cut: number;
  failed: number;
  not_started: number;
}

export interface Span {
  low_minutes: number;
  high_minutes: number;
  from_moment: string;
  to_moment: string;
}

export interface Figures {
  percent: number;
  removed: Record<string, number>;
  conversations: number;
  conversations_done: number;
  per_minute: number | null;
  left: Span | null;
  left_note: string;
}

export interface Attention {
  kind: string;
  level: "act" | "look" | "note";
  what: string;
  todo: string;
  since: string | null;
  count: number;
  windows: string[];
}

export interface PlanRow {
  customer: string;
  databases: string[];
  windows: number;
  start: string;
  end: string;
  days: number;
  conversations: number;
  rows: Record<string, number>;
}

export interface PlanTable {
  rows: PlanRow[];
  total: PlanRow;
  tables: string[];
  hash: string;
  mode: string;
  notes: string[];
}

export interface ReportRow {
  customer: string;
  windows: number;
  verified: number;
  tables: Record<string, Numbers>;
}

export interface ReportTable {
  rows: ReportRow[];
  total: ReportRow;
  tables: string[];
}

export interface Who {
  asked_by: string;
  asked_at: string | null;
  approval: "not needed" | "waiting" | "approved" | "rejected" | "not reached";
  answered_by: string;
  answered_at: string | null;
}

export interface OverrideView {
  text: string;
  author: string;
  until: string;
  pause: boolean;
  max_parallel: number | null;
  per_customer: number | null;
  reason: string;
}

export interface Overview {
  dag_id: string;
  run_id: string;
  cluster: string;
  mode: string;
  state: string;
  headline: string;
  made_at: string;
  started: string | null;
  ended: string | null;
  days: [string, string] | null;
  who: Who;
  limits: Record<string, number>;
  override: OverrideView | null;
  parameters: Record<string, string>;
  counts: Counts;
  figures: Figures;
  attention: Attention[];
  windows: WindowRow[];
  plan: PlanTable;
  report: ReportTable;
}

export interface RunLine {
  run_id: string;
  mode: string;
  days: [string, string] | null;
  customers: number;
  removed: Record<string, number>;
  started: string | null;
  ended: string | null;
  minutes: number | null;
  verdict: string;
  asked_by: string;
}

export interface CustomerLine {
  customer: string;
  mode: string;
  ended: string | null;
  days: [string, string] | null;
  removed: Record<string, number>;
  verified: number;
  windows: number;
  run_id: string;
}

export interface DebtLine {
  customer: string;
  start: string;
  end: string;
  since: string | null;
  run_id: string;
  swept: boolean;
}

export interface Missed {
  slot: string;
  days: [string, string];
  what: string;
  mode: string;
  whom: string;
}

export interface DagHistory {
  dag_id: string;
  cluster: string;
  made_at: string;
  runs: RunLine[];
  customers: CustomerLine[];
  debts: DebtLine[];
  missed: Missed | null;
  paused: boolean;
}

export interface ClusterLine {
  dag_id: string;
  cluster: string;
  paused: boolean;
  next_run: string | null;
  run_id: string;
  state: string;
  headline: string;
  started: string | null;
  counts: Counts | null;
  attention: Attention[];
  missed: Missed | null;
}

export interface Clusters {
  made_at: string;
  clusters: ClusterLine[];
}

export interface Rights {
  retry: boolean;
  reset: boolean;
  end_job: boolean;
  pause: boolean;
  limit: boolean;
  start: boolean;
}

/** What a reset would clear, as the server says it. */
export interface Resets {
  done: string;
  windows: [string, string][];
  left: [string, string][];
  what: string;
}
