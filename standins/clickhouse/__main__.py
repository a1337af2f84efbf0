"""The command line: ``python -m standins.clickhouse --topology FILE.json --node NAME --data DIR``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

# The engine reads it when it is loaded; a server answers in UTC wherever it stands.
os.environ["TZ"] = "UTC"

from standins.clickhouse.node import Node
from standins.clickhouse.server import NodeServer
from standins.clickhouse.topology import TopologyError, load_topology

log = logging.getLogger("standins.clickhouse")

DRAIN_SECONDS = 3.0
"""How long statements that run may take to end at the stop."""


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m standins.clickhouse", description=__doc__)
    parser.add_argument("--topology", type=Path, required=True, help="JSON file: cluster, nodes")
    parser.add_argument("--node", required=True, help="name of this node in the topology")
    parser.add_argument("--data", type=Path, required=True, help="folder of this node's data, faults and record")
    parser.add_argument(
        "--keeper", type=Path, help="folder shared by all nodes (default: next to the topology, <name>.keeper)"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; exit code 0 then, 2 when the node cannot start."""
    options = parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    keeper = options.keeper or options.topology.with_suffix(".keeper")
    try:
        node = Node(load_topology(options.topology), keeper, options.node, options.data)
        server = NodeServer(node)
    except (TopologyError, OSError) as error:
        log.error("node %s cannot start: %s", options.node, error)
        return 2
    node.start()
    log.info("node %s answers on %s", options.node, node.address.url)
    if not asyncio.run(server.serve(DRAIN_SECONDS)):
        log.warning("statements still run after %s s; the node ends without them", DRAIN_SECONDS)
        # The engine must not be closed under a running statement: it crashes. Its files need no closing.
        logging.shutdown()
        os._exit(0)
    node.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
