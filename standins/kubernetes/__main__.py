"""The command line: ``python -m standins.kubernetes --help``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import socket
import sys
from pathlib import Path

from standins.kubernetes import seed
from standins.kubernetes.cluster import Cluster, Settings
from standins.kubernetes.errors import StatusError
from standins.kubernetes.images import ImagesFileError, load_images
from standins.kubernetes.kubeconfig import write_kubeconfig, write_private
from standins.kubernetes.server import ApiServer, HttpServer
from standins.kubernetes.store import ObjectStore

MANIFESTS = Path(__file__).parent / "manifests"
log = logging.getLogger("standins.kubernetes")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m standins.kubernetes", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder for objects, logs, requests")
    parser.add_argument("--context", required=True, help="name of the context in the kubeconfig")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="kubeconfig to write")
    parser.add_argument("--manifests", type=Path, default=MANIFESTS, help="folder of *.yaml to load")
    parser.add_argument("--images", type=Path, required=True, help="JSON file: image -> local program")
    parser.add_argument("--backoff-seconds", type=float, default=1.0, help="wait after a failed pod")
    parser.add_argument("--max-grace-seconds", type=float, default=2.0, help="most between TERM and KILL")
    parser.add_argument("--log-level", default="warning", help="level of the server's own log")
    return parser.parse_args(argv)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options ask for; their folder is made. Raises ImagesFileError, OSError."""
    options.data.mkdir(parents=True, exist_ok=True)
    images = load_images(options.images)
    return Settings(options.data, images, options.backoff_seconds, options.max_grace_seconds)


def saved_token(data: Path) -> str:
    """The token of the last start (a restart is no rotation), or the empty string."""
    saved = data / "token"
    return saved.read_text(encoding="utf-8") if saved.exists() else ""


async def serve(options: argparse.Namespace, sock: socket.socket) -> int:
    """Run the server until it is told to stop; returns the exit code."""
    settings = settings_of(options)
    cluster = Cluster(ObjectStore(options.data / "objects.sqlite"), settings)

    def save_token(token: str) -> None:
        write_private(options.data / "token", token)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        write_kubeconfig(options.kubeconfig, url, options.context, token)

    token = saved_token(options.data) or secrets.token_urlsafe(24)
    server = ApiServer(cluster, token, save_token)
    seed.load(cluster.store, server.api, options.manifests)
    http = HttpServer(server.app(), options.log_level, server.stopping)
    server.on_failure = lambda: setattr(http, "should_exit", True)
    save_token(token)
    await http.serve(sockets=[sock])
    return 1 if server.failed else 0


def main(argv: list[str]) -> int:
    """Check the inputs, serve, return the exit code: 0 after a stop, 1 after a failure, 2 for a bad input."""
    options = parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with socket.create_server(("127.0.0.1", options.port)) as sock:
            return asyncio.run(serve(options, sock))
    except StatusError as error:
        log.error("a manifest in %s was refused: %s", options.manifests, error.message)
    except (ImagesFileError, seed.ManifestError, OSError) as error:
        log.error("%s", error)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
