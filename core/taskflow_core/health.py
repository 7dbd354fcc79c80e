"""`python -m taskflow_core.health`: asks this container's own process whether it makes progress; for HEALTHCHECK.

It imports nothing of the platform, because it runs every few seconds.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

VARIABLES = ("TASKFLOW_PROBE_PORT", "TASKFLOW_API_PORT")
TIMEOUT_S = 3


def main() -> int:
    """Return 0 when a process of this container answers /health/live with 200 on one of its ports, else 1."""
    ports = [int(port) for name in VARIABLES if (port := os.environ.get(name, "")).isdecimal() and int(port)]
    answers = [_answer(port) for port in ports]
    sys.stdout.write("\n".join(answers or ["neither " + " nor ".join(VARIABLES) + " is set"]) + "\n")
    return 0 if any(answer.endswith(" 200") for answer in answers) else 1


def _answer(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        return f"port {port}: {connection.getresponse().status}"
    except (OSError, HTTPException) as error:
        return f"port {port}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
