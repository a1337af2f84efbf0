"""The command line: as that of standins.kubernetes, with the same options."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from pathlib import Path

from standins.controlplane import build, certs
from standins.controlplane.calls import CallError
from standins.controlplane.parts import PartEnded, Wiring
from standins.controlplane.server import ControlPlane
from standins.kubernetes.__main__ import parse_args, saved_token, settings_of
from standins.kubernetes.images import ImagesFileError
from standins.kubernetes.kubeconfig import write_kubeconfig, write_private
from standins.kubernetes.seed import ManifestError
from standins.kubernetes.server import HttpServer
from standins.ports import free_ports

log = logging.getLogger("standins.controlplane")


async def serve(options: argparse.Namespace, programs: Path) -> int:
    """Run the control plane until it is told to stop; returns the exit code."""
    data: Path = options.data
    settings = settings_of(options)
    wiring = Wiring(programs, data, certs.ensure(data / "pki"), *free_ports(3))
    with socket.create_server(("127.0.0.1", options.port)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"

        def save_token(token: str) -> None:
            write_private(data / "token", token)
            authority = {"certificate-authority": str(wiring.certs.ca)}
            write_kubeconfig(data / "direct.yaml", wiring.api_url, options.context, token, **authority)
            write_kubeconfig(options.kubeconfig, url, options.context, token)

        plane = ControlPlane(wiring, settings, save_token)
        http = HttpServer(plane.app(), options.log_level, plane.stopping, lifespan="off")
        plane.on_failure = lambda: setattr(http, "should_exit", True)
        try:
            await plane.start(options.manifests, saved_token(data))
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
        return asyncio.run(serve(options, programs))
    except (build.BuildError, CallError, ImagesFileError, ManifestError, OSError) as error:
        log.error("%s", error)
    except (PartEnded, TimeoutError) as error:
        log.error("the control plane did not start: %s", error)
        return 1
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
