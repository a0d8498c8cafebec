"""How shards on other machines are asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ragengine.errors import InputError
from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import read_plain

_LARGEST_KEY_FILE: Final = 4096
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

    Raises:
        InputError: a number is out of its range.
    """

    timeout: float = 5.0
    hedge_after: float = 0.25
    rest: float = 5.0
    key_file: Path | None = None

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
            lines = read_plain(self.key_file, _LARGEST_KEY_FILE, links=True).decode("ascii").splitlines()
        except (OSError, ValueError) as reason:
            raise InputError(
                f"The key of the shards cannot be read from {self.key_file}: {one_line(reason)}."
            ) from reason
        keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
        if not keys or not keys[0].isprintable():
            raise InputError(f"{self.key_file} holds no key of the shards; write it on a line of its own.")
        return keys[0]
