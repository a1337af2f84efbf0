import { useCallback, useEffect, useRef, useState } from "react";

// Relative to Airflow's <base>, so that a base_url with a path works, too.
const root = (): string => new URL("scorecard-backfill/", document.baseURI).href;

export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export function address(path: string, query: Record<string, string> = {}): string {
  const search = new URLSearchParams(query).toString();
  return `${root()}${path}${search ? `?${search}` : ""}`;
}

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) return (await response.json()) as T;
  throw new ApiError(response.status, await sentence(response));
}

async function sentence(response: Response): Promise<string> {
  const fallback: Record<number, string> = {
    401: "You are not logged in any more. Reload the page to log in again.",
    403: "You do not have the right to see this.",
  };
  try {
    const body = (await response.json()) as { detail?: unknown };
    if (typeof body.detail === "string") return body.detail;
    if (Array.isArray(body.detail)) {
      return body.detail.map((one: { loc?: unknown[]; msg?: string }) => `${one.loc?.at(-1)}: ${one.msg}`).join("; ");
    }
  } catch {
    // Not JSON: a proxy's page. The status says enough.
  }
  return fallback[response.status] ?? `The server answered ${response.status} ${response.statusText}.`;
}

export async function get<T>(path: string, query: Record<string, string>, signal?: AbortSignal): Promise<T> {
  return answer<T>(await fetch(address(path, query), signal ? { signal } : {}));
}

export async function send<T extends { done: string }>(
  path: string,
  query: Record<string, string>,
  body: unknown,
): Promise<T> {
  const response = await fetch(address(path, query), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return answer<T>(response);
}

export const post = async (path: string, query: Record<string, string>, body: unknown): Promise<string> =>
  (await send(path, query, body)).done;

export interface Look<T> {
  data: T | null;
  error: ApiError | Error | null;
  refresh: () => void;
}

/** Looks again every `seconds(data)` while the browser's tab is visible; a failed look keeps what was seen before. */
export function useLook<T>(path: string, query: Record<string, string>, seconds: (data: T | null) => number): Look<T> {
  const [data, setData] = useState<T | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [asked, setAsked] = useState(0);
  const interval = useRef(seconds);
  interval.current = seconds;
  const key = JSON.stringify(query);

  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let seen: T | null = null;

    const later = (): void => {
      clearTimeout(timer);
      timer = setTimeout(look, interval.current(seen) * 1000);
    };
    const look = (): void => {
      if (document.hidden) return;
      get<T>(path, JSON.parse(key) as Record<string, string>, stop.signal)
        .then((found) => {
          seen = found;
          setData(found);
          setError(null);
          later();
        })
        .catch((problem: unknown) => {
          if (stop.signal.aborted) return;
          setError(problem instanceof Error ? problem : new Error(String(problem)));
          // What is not there or not allowed does not change by asking again.
          if (!(problem instanceof ApiError && problem.status < 500)) later();
        });
    };
    const wake = (): void => {
      if (!document.hidden) look();
    };
    look();
    document.addEventListener("visibilitychange", wake);
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
    };
  }, [path, key, asked]);

  return { data, error, refresh: useCallback(() => setAsked((n) => n + 1), []) };
}
