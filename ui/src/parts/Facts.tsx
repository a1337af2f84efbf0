import type { FC } from "react";

import { address } from "../api";
import { moment, plural } from "../format";
import type { Overview } from "../types";

/** Who asked, who approved, what is in force; and the run as a file. */
export const Facts: FC<{ view: Overview }> = ({ view }) => {
  const { who, override } = view;
  const query = { dag_id: view.dag_id, run_id: view.run_id };
  return (
    <section aria-labelledby="bf-facts" className="bf-card">
      <h2 id="bf-facts">Who, and with what</h2>
      <dl className="bf-facts">
        <div>
          <dt>Asked by</dt>
          <dd>
            {who.asked_by || "not known"}, {moment(who.asked_at)}
          </dd>
        </div>
        <div>
          <dt>Approval</dt>
          <dd>
            {who.approval}
            {who.answered_by && ` by ${who.answered_by}`}
            {who.answered_at && `, ${moment(who.answered_at)}`}
          </dd>
        </div>
        <div>
          <dt>Days</dt>
          <dd>{view.days ? `${view.days[0]}..${view.days[1]} (end exclusive)` : "–"}</dd>
        </div>
        <div>
          <dt>Limits in force</dt>
          <dd>
            {plural(view.limits["max_parallel"] ?? 1, "window")} at once, {view.limits["per_customer"]} of a customer, stops
            after {plural(view.limits["max_failures"] ?? 1, "failure")}
          </dd>
        </div>
        <div>
          <dt>Override</dt>
          <dd>{override ? `${overrideText(override)} ${override.text}` : "none"}</dd>
        </div>
      </dl>
      <details>
        <summary>Parameters of the run</summary>
        <dl className="bf-facts">
          {Object.entries(view.parameters).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </details>
      <p>
        Download: <a href={address("export", { ...query, kind: "csv" })}>windows as CSV</a>,{" "}
        <a href={address("export", { ...query, kind: "json" })}>everything as JSON</a>,{" "}
        <a href={address("export", { ...query, kind: "md" })}>plan and report as Markdown</a>
      </p>
    </section>
  );
};

function overrideText(override: NonNullable<Overview["override"]>): string {
  const parts = [
    override.pause ? "paused" : "",
    override.max_parallel ? `${plural(override.max_parallel, "window")} at once` : "",
    override.per_customer ? `${plural(override.per_customer, "window")} of a customer` : "",
  ];
  return parts.filter(Boolean).join(", ");
}
