// What Airflow gives to its React apps as globals and we use of it.
declare module "react-router-dom" {
  import type { FC, PropsWithChildren } from "react";
  export const Link: FC<PropsWithChildren<{ to: string; className?: string; title?: string; "aria-label"?: string }>>;
}

declare module "*.css?inline" {
  const text: string;
  export default text;
}
