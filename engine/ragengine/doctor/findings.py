"""What a diagnosis consists of.  Nothing here imports more than Python itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Device: TypeAlias = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    ``value`` is for programs (what JSON can hold), ``text`` for people.  ``problem`` is a sentence about what
    is wrong; with ``fatal`` no question can be answered on the asked device for it.
    """

    name: str
    value: Any
    text: str = ""
    problem: str = ""
    fatal: bool = False

    def __str__(self) -> str:
        return self.text or str(self.value)


@dataclass(frozen=True)
class Section:
    """Findings about one subject, in order."""

    title: str
    findings: tuple[Finding, ...]


@dataclass
class Diagnosis:
    """All that was found for ``device``."""

    device: Device
    sections: list[Section] = field(default_factory=list)

    def examine(self, title: str, findings: Callable[[], Iterator[Finding]]) -> None:
        """Add a section; whatever goes wrong on the way is one of its findings."""
        found: list[Finding] = []
        try:
            found.extend(findings())
        except Exception as reason:
            found.append(failed(title, reason))
        self.sections.append(Section(title, tuple(found)))

    @property
    def reasons(self) -> list[str]:
        """Why no question can be answered; empty where one can be."""
        return list(dict.fromkeys(finding.problem for finding in self._findings() if finding.fatal))

    @property
    def warnings(self) -> list[str]:
        """What is wrong, or will be, and does not keep a question from its answer."""
        return [finding.problem for finding in self._findings() if finding.problem and not finding.fatal]

    def to_dict(self) -> dict[str, Any]:
        """For programs; findings by their section and name."""
        return {
            "device": self.device,
            "usable": not self.reasons,
            "reasons": self.reasons,
            "warnings": self.warnings,
            **{
                part.title: {finding.name: finding.value for finding in part.findings}
                for part in self.sections
            },
        }

    def _findings(self) -> Iterator[Finding]:
        for part in self.sections:
            yield from part.findings


def failed(name: str, reason: BaseException) -> Finding:
    """A finding for something that raised."""
    sentence = " ".join(str(reason).split()) or "no reason was given."
    if type(reason).__module__ != "ragengine.errors":
        sentence = f"{name} failed with {type(reason).__name__}: {sentence}"
    return Finding("fault", sentence, problem=sentence, fatal=True)


def sizes(**named: int) -> str:
    """Bytes for people: ``free 1.2 GiB, total 8.0 GiB``."""
    return ", ".join(f"{name} {gib(size)}" for name, size in named.items())


def gib(size: int) -> str:
    """Bytes as GiB, or MiB where that is less than a tenth of one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
