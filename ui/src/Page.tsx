import type { FC, PropsWithChildren } from "react";

import { ApiError } from "./api";
import style from "./style.css?inline";

/** Frame of every view: our few rules of style, on Airflow's variables. */
export const Page: FC<PropsWithChildren> = ({ children }) => (
  <div className="bf-page">
    <style>{style}</style>
    {children}
  </div>
);

export const Problem: FC<{ error: Error }> = ({ error }) => {
  // The tabs stand on every DAG of the installation.
  const notOurs = error instanceof ApiError && error.status === 404;
  return (
    <p className={notOurs ? "bf-muted" : "bf-note bf-act"} role={notOurs ? "status" : "alert"}>
      {error.message}
    </p>
  );
};
