import { moment } from "./format";
import type { Question } from "./parts/Dialog";
import type { Missed, Overview, Resets, WindowRow } from "./types";

type Send = (body: unknown) => Promise<string>;

const MAX_HOURS = 336;

const reason = { name: "reason", label: "Reason (for the log and for others)", type: "text", value: "", required: true } as const;
const hours = (value: number) =>
  ({ name: "hours", label: "For how many hours", type: "number", value: String(value), min: 1, max: MAX_HOURS, required: true }) as const;

export const retry = (customer: string, send: Send): Question => ({
  title: customer ? `Retry what failed of ${customer}?` : "Retry what failed?",
  text: (
    <p>
      The failed tasks{customer ? ` of ${customer}` : ""} and the report are cleared and run again. Windows that are
      verified or in work are left alone; the approval that was given stays given.
    </p>
  ),
  button: "Retry",
  act: () => send(customer ? { customer } : {}),
});

/** The same words as the command's `reset`; `shown` is what the server would clear. */
export const reset = (customer: string, shown: Resets, send: Send): Question => ({
  title: `Do windows of ${customer} again from the first stage on?`,
  text: (
    <>
      <p>{shown.what}</p>
      {shown.left.length > 0 && (
        <ul className="bf-muted">
          {shown.left.map(([label, why]) => (
            <li key={label}>
              left alone: {label}: {why}
            </li>
          ))}
        </ul>
      )}
    </>
  ),
  choices: shown.windows,
  button: "Reset",
  danger: true,
  act: (_, keys) => send({ customer, keys }),
});

export const startSlot = (missed: Missed, send: Send): Question => ({
  title: `Start the run of ${moment(missed.slot)} now?`,
  text: (
    <p>
      One run is started as the schedule would have done: mode {missed.mode}, {missed.whom}, {missed.days[0]} to{" "}
      {missed.days[1]} (exclusive).
      {missed.mode === "cleanup" && " It asks for approval before it deletes anything."}
    </p>
  ),
  button: "Start",
  act: () => send({ slot: missed.slot }),
});

export const pause = (send: Send): Question => ({
  title: "Pause admission?",
  text: <p>No further window of this cluster is started. Windows in work go on to their end.</p>,
  button: "Pause",
  fields: [reason, hours(8)],
  act: (values) => send({ reason: values["reason"], hours: Number(values["hours"]) }),
});

export const resume = (send: Send): Question => ({
  title: "Resume admission?",
  text: <p>Waiting windows start again as slots become free. Another limit that is in force stays.</p>,
  button: "Resume",
  act: () => send({}),
});

export const limit = (view: Overview, send: Send): Question => ({
  title: "Change the limit of windows at once?",
  text: (
    <p>
      Now {view.limits["max_parallel"]}. It holds for every run of this cluster until it ends; windows in work are not
      stopped by a lower one.
    </p>
  ),
  button: "Change",
  fields: [
    {
      name: "max_parallel",
      label: "Windows at once",
      type: "number",
      value: String(view.limits["max_parallel"] ?? 1),
      min: 1,
      max: 200,
      required: true,
    },
    reason,
    hours(24),
  ],
  act: (values) =>
    send({
      max_parallel: Number(values["max_parallel"]),
      reason: values["reason"],
      hours: Number(values["hours"]),
    }),
});

export const endJob = (row: WindowRow, send: Send): Question => ({
  title: `End the Job of ${row.label}?`,
  text: (
    <p>
      The task that waits for it is marked as failed, and the Job is deleted with its pod. Rows that were deleted are
      not back until the window is retried.
    </p>
  ),
  button: "End the Job",
  danger: true,
  act: () => send({ key: row.key }),
});
