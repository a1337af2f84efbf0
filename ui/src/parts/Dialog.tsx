import { type FC, type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";

export interface Question {
  title: string;
  /** What will happen, in one or two sentences. */
  text: ReactNode;
  button: string;
  danger?: boolean;
  fields?: Field[];
  /** What it is done to; all are ticked at first, and one at least must be. */
  choices?: [string, string][];
  act: (values: Record<string, string>, chosen: string[]) => Promise<string>;
}

export interface Field {
  name: string;
  label: string;
  type: "text" | "number";
  value: string;
  min?: number;
  max?: number;
  required?: boolean;
}

const CHOICE = "choice";

/** Asks once, says what it will do, and then what was done. The browser's own dialog keeps the focus inside. */
export const Dialog: FC<{ question: Question | null; onClose: (done: string) => void }> = ({ question, onClose }) => {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");

  useEffect(() => {
    if (question && !dialog.current?.open) {
      setError("");
      dialog.current?.showModal();
    }
    if (!question) dialog.current?.close();
  }, [question]);

  const send = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    if (!question) return;
    const data = new FormData(event.currentTarget);
    const values = Object.fromEntries([...data].map(([name, value]) => [name, String(value).trim()]));
    const ticked = data.getAll(CHOICE).map(String);
    if (question.choices && ticked.length === 0) {
      setError("Nothing is chosen.");
      return;
    }
    setBusy(true);
    setError("");
    question
      .act(values, ticked)
      .then(onClose)
      .catch((problem: unknown) => setError(problem instanceof Error ? problem.message : String(problem)))
      .finally(() => setBusy(false));
  };

  return (
    <dialog aria-labelledby="bf-question" className="bf-dialog" onClose={() => onClose("")} ref={dialog}>
      {question && (
        <form onSubmit={send}>
          <h2 id="bf-question">{question.title}</h2>
          <div>{question.text}</div>
          {question.choices && (
            <fieldset className="bf-choices">
              <legend className="bf-hidden">Windows</legend>
              {question.choices.map(([value, label]) => (
                <label key={value}>
                  <input defaultChecked name={CHOICE} type="checkbox" value={value} /> {label}
                </label>
              ))}
            </fieldset>
          )}
          {question.fields?.map((field) => (
            <label key={field.name}>
              {field.label}
              <input
                defaultValue={field.value}
                max={field.max}
                maxLength={500}
                min={field.min}
                minLength={field.type === "text" && field.required ? 3 : undefined}
                name={field.name}
                required={field.required ?? false}
                type={field.type}
              />
            </label>
          ))}
          {error && (
            <p className="bf-note bf-act" role="alert">
              {error}
            </p>
          )}
          <div className="bf-buttons">
            <button className={`bf-button ${question.danger ? "bf-danger" : "bf-primary"}`} disabled={busy} type="submit">
              {question.button}
            </button>
            <button className="bf-button" onClick={() => onClose("")} type="button">
              Cancel
            </button>
          </div>
        </form>
      )}
    </dialog>
  );
};
