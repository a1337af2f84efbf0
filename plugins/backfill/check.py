"""Check the connections of all clusters, or of some: `python -m backfill.check [CLUSTER...]`.

Prints a table: what works, what does not and what to do. It reads the connections from the environment and the
secrets backend; those of Airflow's database are seen by the DAG `scorecard_backfill_check` only. Exit code 1 if
something is broken, 2 for an unknown cluster. `make check-connections` runs it for all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from backfill.operators.checks.table import check_cluster
from backfill.settings import load_all
from include.scorecard_backfill.config.load import ClusterError
from include.scorecard_backfill.verdicts.remedies import Line, markdown


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    items = {item.name: item for item in load_all()}
    unknown = sorted(set(argv) - set(items))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; clusters: {', '.join(sorted(items))}", file=sys.stderr)
        return 2
    lines: list[Line] = []
    for name in argv or sorted(items):
        item = items[name]
        if isinstance(item, ClusterError):
            lines.append(Line(name, "file", "broken", item.message, "Correct the file."))
        elif item.enabled or argv:
            lines += check_cluster(item)
    print(markdown(lines))
    return 1 if any(line.state == "broken" for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
