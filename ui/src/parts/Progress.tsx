import type { FC } from "react";

import { clock, count, minutes, plural, states, sumText } from "../format";
import type { Overview, State } from "../types";

/** Runs that have done nothing and will do nothing: a bar of what is left would ask for something. */
const idle: Overview["state"][] = ["dry run", "rejected", "refused", "nothing to do"];

const order: State[] = ["verified", "working", "cut", "waiting", "failed", "not_started"];

/** The bar of the planned windows, and the figures that answer "how far" and "how long". */
export const Progress: FC<{ view: Overview; now: number }> = ({ view, now }) => {
  const { counts, figures } = view;
  const shown = order.filter((state) => counts[state] > 0);
  return (
    <section aria-label="Progress" className="bf-card">
      <p className="bf-headline" role="status">
        {view.headline}
      </p>
      {counts.planned > 0 && !idle.includes(view.state) && (
        <>
          <div
            aria-label={`${figures.percent} % of the windows are verified`}
            aria-valuemax={100}
            aria-valuemin={0}
            aria-valuenow={figures.percent}
            className="bf-bar"
            role="progressbar"
          >
            {shown.map((state) => (
              <span className={`bf-${state}`} key={state} style={{ flexGrow: counts[state] }} />
            ))}
          </div>
          <ul className="bf-legend" aria-label="Windows by state">
            {shown.map((state) => (
              <li key={state}>
                <span aria-hidden="true" className={`bf-sign bf-${state}`}>
                  {states[state].sign}
                </span>
                {count(counts[state])} {states[state].word}
              </li>
            ))}
          </ul>
        </>
      )}
      {idle.includes(view.state) ? <Ended now={now} view={view} /> : <Figures now={now} view={view} />}
    </section>
  );
};

const Ended: FC<{ view: Overview; now: number }> = ({ view, now }) =>
  view.ended && (
    <p className="bf-muted">
      Ended {timeLeft(view, now)}, {timeNote(view, now)}.
    </p>
  );

const Figures: FC<{ view: Overview; now: number }> = ({ view, now }) => {
  const { counts, figures } = view;
  return (
    <dl className="bf-figures">
      <div>
        <dt>Verified</dt>
        <dd>
          {figures.percent} %<small>{`${count(counts.verified)} of ${plural(counts.planned, "window")}`}</small>
        </dd>
      </div>
      <div>
        <dt>Rows removed</dt>
        <dd>
          {Object.keys(figures.removed).length ? count(sum(figures.removed)) : "–"}
          <small>{Object.keys(figures.removed).length ? sumText(figures.removed) : "no window is verified yet"}</small>
        </dd>
      </div>
      <div>
        <dt>Conversations per minute</dt>
        <dd>
          {figures.per_minute === null ? "–" : count(Math.round(figures.per_minute))}
          <small>{`${count(figures.conversations_done)} of ${count(figures.conversations)} written again`}</small>
        </dd>
      </div>
      <div>
        <dt>{view.ended ? "Ended" : "Time left"}</dt>
        <dd>
          {timeLeft(view, now)}
          <small>{timeNote(view, now)}</small>
        </dd>
      </div>
    </dl>
  );
};

const sum = (rows: Record<string, number>): number => Object.values(rows).reduce((total, value) => total + value, 0);

function timeLeft(view: Overview, now: number): string {
  if (view.ended) return `${clock(view.ended, now)} UTC`;
  const left = view.figures.left;
  if (left === null) return "–";
  return left.low_minutes === left.high_minutes
    ? minutes(left.low_minutes)
    : `${minutes(left.low_minutes)} to ${minutes(left.high_minutes)}`;
}

function timeNote(view: Overview, now: number): string {
  if (view.ended && view.started) return `took ${minutes((Date.parse(view.ended) - Date.parse(view.started)) / 60000)}`;
  const left = view.figures.left;
  if (left === null) return view.figures.left_note;
  const [from, to] = [clock(left.from_moment, now), clock(left.to_moment, now)];
  const when = from === to ? `at about ${from}` : `between ${from} and ${to}`;
  return `ends ${when} UTC; ${view.figures.left_note}`;
}
