import { type FC, useMemo } from "react";
import { Link } from "react-router-dom";

import { useLook } from "./api";
import { Verdict } from "./DagTab";
import { moment, path } from "./format";
import { Page, Problem } from "./Page";
import { type Column, Lines, Table } from "./parts/Table";
import type { Clusters, ClusterLine } from "./types";

const SECONDS = 10;

/** The entry in the menu: all clusters at once. */
export const ClustersPage: FC = () => {
  const { data, error } = useLook<Clusters>("clusters", {}, () => SECONDS);
  const columns = useMemo(clusterColumns, []);
  if (!data) return <Page>{error ? <Problem error={error} /> : <p role="status">Loading…</p>}</Page>;
  return (
    <Page>
      {error && <Problem error={error} />}
      <section aria-labelledby="bf-clusters" className="bf-card">
        <h1 id="bf-clusters">Scorecard backfills</h1>
        {data.clusters.length ? (
          <Table caption="Clusters" columns={columns} id={(row) => row.dag_id} rows={data.clusters} />
        ) : (
          <p className="bf-muted">There is no cluster that you may see.</p>
        )}
      </section>
    </Page>
  );
};

const dagTab = (dag: string): string => `${path(dag)}/plugin/scorecards`;

function clusterColumns(): Column<ClusterLine>[] {
  return [
    {
      name: "cluster",
      head: "Cluster",
      rowHead: true,
      sort: (row) => row.cluster,
      cell: (row) => <Link to={dagTab(row.dag_id)}>{row.cluster}</Link>,
    },
    {
      name: "state",
      head: "Last run",
      sort: (row) => row.state,
      cell: (row) => (row.state ? <Verdict text={row.state} /> : "no run yet"),
    },
    {
      name: "headline",
      head: "How far",
      cell: (row) =>
        row.run_id && <Link to={`${path(row.dag_id, row.run_id)}/plugin/backfill`}>{row.headline || row.run_id}</Link>,
    },
    {
      name: "notes",
      head: "What needs a person",
      cell: (row) => (
        <Lines
          items={[
            ...row.attention.filter((note) => note.level === "act").map((note) => note.what),
            row.missed && (
              <Link title={row.missed.what} to={dagTab(row.dag_id)}>
                Missed: {row.missed.days[0]}..{row.missed.days[1]}
              </Link>
            ),
          ]}
        />
      ),
    },
    { name: "started", head: "Started", sort: (row) => row.started, cell: (row) => moment(row.started) },
    {
      name: "next",
      head: "Next schedule",
      sort: (row) => row.next_run,
      cell: (row) => (row.paused ? "paused" : row.next_run ? moment(row.next_run) : "none"),
    },
  ];
}
