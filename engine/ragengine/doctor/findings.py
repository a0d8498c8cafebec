"""What a diagnosis consists of: sections of findings, some of which are problems."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ragengine.runtime.devices import Device


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    name      what it is about
    value     for programs: a JSON value
    text      for people, by default the value
    problem   a sentence about what is wrong; empty if nothing is
    fatal     whether the problem prevents answers on the chosen device
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
    """Everything that was found for ``device``, in sections."""

    device: Device
    sections: list[Section] = field(default_factory=list)

    def examine(self, title: str, findings: Callable[[], Iterator[Finding]]) -> None:
        """Add a section; an exception on the way becomes its last finding."""
        found: list[Finding] = []
        try:
            found.extend(findings())
        except Exception as reason:  # whatever a broken installation raises, the report goes on
            found.append(failed(title, reason))
        self.sections.append(Section(title, tuple(found)))

    @property
    def reasons(self) -> list[str]:
        """Why no question can be answered; empty if one can be."""
        return list(dict.fromkeys(finding.problem for finding in self._findings() if finding.fatal))

    @property
    def warnings(self) -> list[str]:
        """Problems that do not prevent answers, or not yet."""
        return [finding.problem for finding in self._findings() if finding.problem and not finding.fatal]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: findings by section and name."""
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
    sentence = " ".join(str(reason).split()) or "it gives no reason."
    if type(reason).__module__ != "ragengine.errors":
        sentence = f"{name} failed with {type(reason).__name__}: {sentence}"
    return Finding("error", sentence, problem=sentence, fatal=True)


def sizes(**named: int) -> str:
    """Bytes for people: ``free 1.2 GiB, total 8.0 GiB``."""
    return ", ".join(f"{name} {gib(size)}" for name, size in named.items())


def gib(size: int) -> str:
    """Bytes as GiB, or MiB where that is less than a tenth of one."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
