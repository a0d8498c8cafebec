"""How shards on other machines are asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ragengine.errors import InputError
from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import read_plain

if TYPE_CHECKING:
    import ssl

_LARGEST_KEY_FILE: Final = 4096
_LARGEST_CA_FILE: Final = 4 << 20
_LONGEST: Final = 86_400.0


@dataclass(frozen=True)
class RemoteOptions:
    """How shards on other machines are asked.  Checks itself when made.

    timeout      seconds that a shard may take for one request, all its replicas together
    hedge_after  seconds after which the next replica is asked, too; the first answer counts
    rest         seconds for which a replica that failed, or was overtaken, is asked after the others; where
                 answers may lack shards, also for which one that did not answer is not asked, twice as long
                 after each further failure (:class:`~ragengine.retrieval.sharding.breaker.Breaker`)
    key_file     a file with the key that the servers ask for (``--api-key-file`` there); None: they need none
    ca_file      certificates (PEM) of the authorities that vouch for servers at ``https://``, in the place of
                 those of the system; a server's own certificate, where it signed it itself

    Raises:
        InputError: a number is out of its range.
    """

    timeout: float = 5.0
    hedge_after: float = 0.25
    rest: float = 5.0
    key_file: str | Path | None = None
    ca_file: str | Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("timeout", 0.001), ("hedge_after", 0.0), ("rest", 0.0)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= _LONGEST:
                raise InputError(
                    f"{name} of shards is {short_repr(value)}; it must be {least:g} to {_LONGEST:g} seconds."
                )

    def key(self) -> str | None:
        """The key in ``key_file``: its only line, or its first that is neither empty nor a comment.

        Raises:
            InputError: the file cannot be read or holds no key.
        """
        if self.key_file is None:
            return None
        try:
            lines = (
                read_plain(Path(self.key_file), _LARGEST_KEY_FILE, links=True).decode("ascii").splitlines()
            )
        except (OSError, ValueError) as reason:
            raise InputError(
                f"The key of the shards cannot be read from {self.key_file}: {one_line(reason)}."
            ) from reason
        keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
        if not keys or not keys[0].isprintable():
            raise InputError(f"{self.key_file} holds no key of the shards; write it on a line of its own.")
        return keys[0]

    def tls_context(self) -> "ssl.SSLContext":
        """What checks the certificates, and the host names, of servers at ``https://``.

        Raises:
            InputError: ``ca_file`` cannot be read or holds no certificate.
        """
        import ssl

        if self.ca_file is None:
            return ssl.create_default_context()
        try:
            trusted = read_plain(Path(self.ca_file), _LARGEST_CA_FILE, links=True).decode("ascii")
            return ssl.create_default_context(cadata=trusted)
        except (OSError, ValueError) as reason:  # ssl.SSLError is one of the system's
            raise InputError(
                f"The certificates for the shards cannot be read from {self.ca_file}: {one_line(reason)}; "
                "give a file in PEM format."
            ) from reason
