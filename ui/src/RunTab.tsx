import { type FC, type ReactNode, useCallback, useEffect, useState } from "react";

import { get, post, send, useLook } from "./api";
import { Page, Problem } from "./Page";
import { Dialog, type Question } from "./parts/Dialog";
import { Facts } from "./parts/Facts";
import { Matrix } from "./parts/Matrix";
import { Notes } from "./parts/Notes";
import { Progress } from "./parts/Progress";
import { Plan, Report } from "./parts/Tables";
import { Windows } from "./parts/Windows";
import * as questions from "./questions";
import type { Attention, Overview, Resets, Rights, WindowRow } from "./types";

const NONE: Rights = { retry: false, reset: false, end_job: false, pause: false, limit: false, start: false };
const GOING_SECONDS = 3;
const ENDED_SECONDS = 30;

export function useRights(dag: string): Rights {
  const [rights, setRights] = useState<Rights>(NONE);
  useEffect(() => {
    const stop = new AbortController();
    // Without an answer nothing is offered; the look itself says what is wrong.
    get<Rights>("me", { dag_id: dag }, stop.signal).then(setRights, () => setRights(NONE));
    return () => stop.abort();
  }, [dag]);
  return rights;
}

/** The tab *Backfill* of a run: everything on one page, so that no question needs a further click. */
export const RunTab: FC<{ dagId?: string; runId?: string }> = ({ dagId = "", runId = "" }) => {
  const { data, error, refresh } = useLook<Overview>("run", { dag_id: dagId, run_id: runId }, (view) =>
    view?.ended ? ENDED_SECONDS : GOING_SECONDS,
  );
  const rights = useRights(dagId);
  const [question, setQuestion] = useState<Question | null>(null);
  const [done, setDone] = useState("");
  const [refused, setRefused] = useState("");
  const [chosen, setChosen] = useState("");

  const at = { dag_id: dagId, run_id: runId };
  const retry = useCallback(
    (customer: string) =>
      setQuestion(questions.retry(customer, (body) => post("actions/retry", { dag_id: dagId, run_id: runId }, body))),
    [dagId, runId],
  );
  const reset = useCallback(
    (customer: string) => {
      const query = { dag_id: dagId, run_id: runId };
      setRefused("");
      send<Resets>("actions/reset", query, { customer })
        .then((shown) =>
          setQuestion(questions.reset(customer, shown, (body) => post("actions/reset", query, body))),
        )
        .catch((problem: unknown) => setRefused(problem instanceof Error ? problem.message : String(problem)));
    },
    [dagId, runId],
  );
  const endJob = useCallback(
    (row: WindowRow) =>
      setQuestion(questions.endJob(row, (body) => post("actions/end-job", { dag_id: dagId, run_id: runId }, body))),
    [dagId, runId],
  );
  const close = (said: string): void => {
    setQuestion(null);
    if (said) {
      setDone(said);
      refresh();
    }
  };

  if (!data) return <Page>{error ? <Problem error={error} /> : <p role="status">Loading…</p>}</Page>;
  const now = Date.parse(data.made_at);
  const pause = (): void => setQuestion(questions.pause((body) => post("actions/pause", at, body)));
  const resume = (): void => setQuestion(questions.resume((body) => post("actions/resume", at, body)));
  const limit = (): void => setQuestion(questions.limit(data, (body) => post("actions/limit", at, body)));

  const action = (note: Attention): ReactNode => {
    if ((note.kind === "failed" || note.kind === "refused") && rights.retry)
      return <Button onClick={() => retry("")} text="Retry what failed" />;
    if (note.kind === "paused" && rights.pause) return <Button onClick={resume} text="Resume" />;
    return null;
  };
  return (
    <Page>
      {error && <Problem error={error} />}
      {refused && (
        <p className="bf-note bf-act" role="alert">
          {refused}
        </p>
      )}
      {done && (
        <p className="bf-note bf-note-done" role="status">
          {done}
        </p>
      )}
      <Notes action={action} dag={dagId} notes={data.attention} now={now} run={runId} />
      <Progress now={now} view={data} />
      {(rights.pause || rights.limit) && (
        <div aria-label="Actions" className="bf-buttons" role="group">
          {rights.pause && !data.override?.pause && <Button onClick={pause} text="Pause admission" />}
          {rights.pause && data.override?.pause && <Button onClick={resume} text="Resume admission" />}
          {rights.limit && <Button onClick={limit} text="Change limit" />}
        </div>
      )}
      {nothingDone(data) && <Plan view={data} />}
      <Matrix chosen={chosen} onChoose={setChosen} rows={data.windows} />
      <Windows
        chosen={chosen}
        now={now}
        onEndJob={endJob}
        onReset={reset}
        onRetry={retry}
        rights={rights}
        view={data}
      />
      {!nothingDone(data) && <Report view={data} />}
      {!nothingDone(data) && <Plan view={data} />}
      <Facts view={data} />
      <Dialog onClose={close} question={question} />
    </Page>
  );
};

/** Then the plan is what people come for, and a report would be a table of nothing. */
const nothingDone = (view: Overview): boolean =>
  ["waiting for approval", "dry run", "rejected", "refused"].includes(view.state);

const Button: FC<{ text: string; onClick: () => void }> = ({ text, onClick }) => (
  <button className="bf-button" onClick={onClick} type="button">
    {text}
  </button>
);
