"""The log: one JSON object a line on standard error."""

import datetime
import json
import logging
import sys
from typing import Any

log = logging.getLogger("ragengine_serve")
"""What the server tells; values go into ``extra={"fields": {...}}``."""


class JsonLines(logging.Formatter):
    """A record as a JSON object: time, level, message, the record's fields, a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; ASCII, so that no terminal obeys what it quotes."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        content: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def configure_logging(level: str) -> None:
    """Send the logs of the server, the engine and uvicorn to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("ragengine_serve", level), ("ragengine", level), ("uvicorn", "warning")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least.upper())
