"""Where the server of a shard is."""

import re
from dataclasses import dataclass
from typing import Final

_ADDRESS: Final = (
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[A-Za-z0-9._~-]{1,100}){0,8})/?"
)


@dataclass(frozen=True)
class Address:
    """``http://host:port/path`` in its parts; ``path`` is where a proxy has the server, or empty."""

    text: str
    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, text: str) -> "Address":
        """The address of a text such as ``http://host:8000``, without a user, a query or a fragment.

        Raises:
            ValueError: it is none; the text ends a sentence.
        """
        found = re.fullmatch(_ADDRESS, text)
        port = int(found["port"] or (443 if found["scheme"] == "https" else 80)) if found else 0
        if found is None or not 0 < port < 1 << 16:
            raise ValueError(f"{text!a:.200} is not an address such as http://host:8000")
        host = found["host"].strip("[]")
        return cls(text.rstrip("/"), found["scheme"] == "https", host, port, found["path"])
