"""How much a word of a question tells: rare words name what is asked for, common ones only ask."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ragengine.grounding.words import distinct_words

MOST_WORDS = 2000
_SEEN_TWICE = 2  # a word of one question may be a name
_COMMON = 0.01  # share of the passages that a common word is in at least


@dataclass(frozen=True)
class Rarity:
    """The weight of each word, from 0 (in every question or passage) to 1.

    common  the weights under 1, by folded word; every other word weighs 1
    """

    common: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, questions: Iterable[str], passages: Counter[str], count: int) -> "Rarity":
        """The weights by inverse document frequency, scaled to 1 for a word that is seen nowhere.

        w = min(log((Q + 1) / (q + 1)) / log(Q + 1), log((N + 1) / (n + 1)) / log(N + 1)) for a word that q of
        Q questions and n of N passages have; the first counts from two questions on, the second from a
        hundredth of the passages on.

        Args:
            questions: texts of questions.
            passages: in how many passages each folded word is.
            count: how many passages were counted.
        """
        asked: Counter[str] = Counter()
        total = 0
        for question in questions:
            asked.update(distinct_words(question))
            total += 1
        weights: dict[str, float] = {}
        for counts, whole, least in ((asked, total, _SEEN_TWICE), (passages, count, _COMMON * count)):
            for word, times in counts.items():
                if times >= least and whole > 1:
                    weight = math.log((whole + 1) / (times + 1)) / math.log(whole + 1)
                    weights[word] = min(weight, weights.get(word, 1.0))
        kept = sorted(weights.items(), key=lambda item: (item[1], item[0]))[:MOST_WORDS]
        return cls({word: round(weight, 4) for word, weight in sorted(kept)})

    def weight(self, word: str) -> float:
        """The weight of a folded word."""
        return self.common.get(word, 1.0)
