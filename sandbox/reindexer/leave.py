"""The way out of a short process that used the Temporal SDK."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Flush the output and end the process with `code`, without tearing the interpreter down.

    A thread of the SDK's core may still be handing back a finished call when Python finalises. Measured with
    temporalio 1.35.0 on Python 3.11.7: 3 of 40 runs of the reindex Job, all work done, died by SIGABRT, SIGSEGV
    or SIGBUS ("PyGILState_Release: thread state must be current when releasing", runtime state: finalizing).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
