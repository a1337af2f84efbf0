import type { FC, ReactNode } from "react";
import { Link } from "react-router-dom";

import { ago, moment, path } from "../format";
import type { Attention } from "../types";

const words: Record<Attention["level"], string> = { act: "To do", look: "Worth a look", note: "For information" };

/** What needs a person, on top. */
export const Notes: FC<{
  notes: Attention[];
  now: number;
  dag: string;
  run: string;
  action?: (note: Attention) => ReactNode;
}> = ({ notes, now, dag, run, action }) =>
  notes.length === 0 ? null : (
    <section aria-label="What needs a person">
      <ul className="bf-notes">
        {notes.map((note) => (
          <li className={`bf-note bf-${note.level}`} key={note.kind}>
            <div>
              <strong>
                <span className="bf-hidden">{words[note.level]}: </span>
                {note.what}
              </strong>
              {note.since && (
                <span className="bf-muted">
                  {" "}
                  since <time dateTime={note.since}>{moment(note.since)}</time> ({ago(note.since, now)})
                </span>
              )}
              {note.todo && <p>{note.todo}</p>}
              {note.windows.length > 0 && (
                <p className="bf-muted">
                  {note.windows.join(", ")}
                  {note.count > note.windows.length && `, and ${note.count - note.windows.length} more`}
                </p>
              )}
            </div>
            <div className="bf-buttons">
              {note.kind === "approval" && (
                <Link className="bf-button bf-primary" to={`${path(dag, run)}/tasks/approve/required_actions`}>
                  Approve or reject
                </Link>
              )}
              {action?.(note)}
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
