import { ClustersPage } from "./ClustersPage";
import { DagTab } from "./DagTab";
import { RunTab } from "./RunTab";

// Airflow looks for a component under the name of the view (plugins/backfill/api/plugin.py).
Object.assign(globalThis, {
  Backfill: RunTab,
  Scorecards: DagTab,
  "Scorecard backfills": ClustersPage,
});
