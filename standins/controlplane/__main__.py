"""The command line: as that of standins.kubernetes, with the same options."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import uvicorn

from standins.controlplane import build, certs
from standins.controlplane.calls import CallError
from standins.controlplane.parts import PartEnded, Wiring, free_ports
from standins.controlplane.server import ControlPlane, Seeds
from standins.kubernetes.__main__ import DEFAULT_NAMESPACE, listen, parse_args
from standins.kubernetes.cluster import Settings
from standins.kubernetes.images import ImagesFileError, load_images
from standins.kubernetes.kubeconfig import kubeconfig, write_kubeconfig, write_private
from standins.kubernetes.seed import ManifestError
from standins.kubernetes.server import SHUTDOWN_SECONDS, HttpServer

log = logging.getLogger("standins.controlplane")


async def serve(options: argparse.Namespace, programs: Path, last_token: str) -> int:
    """Run the control plane until it is told to stop; returns the exit code."""
    data: Path = options.data
    wiring = Wiring(programs, data, certs.ensure(data / "pki"), *free_ports(3))
    settings = Settings(data, options.images, options.backoff_seconds, options.max_grace_seconds)
    with listen(options.port) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"

        def save_token(token: str) -> None:
            write_private(data / "token", token)
            direct = kubeconfig(wiring.api_url, options.context, DEFAULT_NAMESPACE, token)
            direct["clusters"][0]["cluster"]["certificate-authority"] = str(wiring.certs.ca)
            write_kubeconfig(data / "direct.yaml", direct)
            write_kubeconfig(options.kubeconfig, kubeconfig(url, options.context, DEFAULT_NAMESPACE, token))

        plane = ControlPlane(wiring, settings, save_token)
        config = uvicorn.Config(
            plane.app(),
            log_level=options.log_level,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        http = HttpServer(config, plane.stopping)
        plane.on_failure = lambda: setattr(http, "should_exit", True)
        seeds = Seeds(options.manifests, os.environ.get("SANDBOX_CLICKHOUSE_PASSWORD"))
        try:
            await plane.start(seeds, last_token)
            await http.serve(sockets=[sock])
        finally:
            await plane.stop()
        return 1 if plane.failed else 0


def main(argv: list[str]) -> int:
    """Check the inputs, serve, return the exit code: 0 after a stop, 1 after a failure, 2 for a bad input."""
    options = parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        programs = build.ensure()
        load_images(options.images)
        options.data.mkdir(parents=True, exist_ok=True)
        saved = options.data / "token"
        last_token = saved.read_text(encoding="utf-8") if saved.exists() else ""
        return asyncio.run(serve(options, programs, last_token))
    except (build.BuildError, CallError, ImagesFileError, ManifestError, OSError) as error:
        log.error("%s", error)
    except (PartEnded, TimeoutError) as error:
        log.error("the control plane did not start: %s", error)
        return 1
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
