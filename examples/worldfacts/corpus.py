"""Build the corpus and its questions: `python corpus.py --output data`.

Writes, deterministically:

    passages.tsv          id, text, title (the layout of DPR's psgs_w100.tsv), about 42,000 passages
    training_passages.tsv those that take part in training: all but the test's groups
    shipped_passages.tsv  all countries and enough cities and airports to make 10,000 passages
    train.jsonl dev.jsonl questions.jsonl questions_two_documents.jsonl questions_unanswerable.jsonl
                          the questions; see `questions.py`
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from common import SEED, Passage, write_jsonl
from places import (
    Airport,
    City,
    Country,
    count_names,
    fold,
    load_airports,
    load_cities,
    load_countries,
    with_article,
)
from questions import make_questions, split_groups
from wordings import SENTENCES

SHIPPED_PASSAGES = 10_000
#: Longer lists of neighbours are in the passage, but no question is about them.
NEIGHBOURS_ASKED = 4


def number(value: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,}"


def degrees(value: float, positive: str, negative: str) -> str:
    """48.857 -> 48.86° N."""
    return f"{abs(value):.2f}° {positive if value >= 0 else negative}"


def enumerate_names(names: Iterable[str]) -> str:
    """a, b and c."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def write_text(passage_id: str, kind: str, facts: list[str], fields: dict[str, str]) -> str:
    """The sentence "is" and then those of `facts` in random order, each in a random wording."""
    rng = random.Random(f"{SEED}:{passage_id}")
    order = rng.sample(facts, len(facts))
    if "others" in order:  # "other languages" can only follow the language
        order.remove("others")
        order.insert(order.index("language") + 1, "others")
    if "city" in order:  # "it serves" reads best right after the airport's place
        order.remove("city")
        order.insert(0, "city")
    sentences = [rng.choice(SENTENCES[kind][fact]).format(**fields) for fact in ("is", *order)]
    return " ".join(s[0].upper() + s[1:] if s.startswith("the ") else s for s in sentences)


def country_passages(country: Country, shared: bool) -> Iterator[Passage]:
    """Two passages: the land (capital, population, ...) and life there (currency, language, codes, ...)."""
    plain = country.the_name
    precise = f"the country {country.name}" if shared else plain
    group = f"country:{country.code}"
    fields = {"the_name": plain, "continent": country.continent}
    facts = {"country.continent": (precise, [country.continent])}
    stated = []
    for fact in ("capital", "largest_city", "population", "area"):
        value = getattr(country, fact)
        if value:
            fields[fact] = number(value) if isinstance(value, int) else value
            reference = precise if fact in ("population", "area") else plain
            answers = [fields[fact]]
            facts[f"country.{fact}"] = (reference, answers)
            stated.append(fact)
    if country.neighbours:
        fields["neighbours"] = enumerate_names(map(with_article, country.neighbours))
        stated.append("neighbours" if len(country.neighbours) > 1 else "neighbour")
        if len(country.neighbours) <= NEIGHBOURS_ASKED:
            facts["country.neighbours"] = (plain, [fields["neighbours"]])
    else:
        stated.append("alone")
    passage_id = f"country-{country.code.lower()}-land"
    text = write_text(passage_id, "country_land", stated, fields)
    yield Passage(passage_id, "country", group, country.name, text, 0.0, facts)

    if not (country.currency and country.currency_code):
        return
    facts = {
        "country.currency": (plain, [country.currency]),
        "country.currency_code": (plain, [country.currency_code]),
        "country.iso2": (plain, [country.code]),
        "country.iso3": (plain, [country.iso3]),
    }
    fields = {"the_name": plain, "currency": country.currency, "currency_code": country.currency_code}
    fields |= {"code": country.code, "iso3": country.iso3}
    stated = ["iso"]
    if country.languages:
        fields |= {
            "language": country.languages[0],
            "others": enumerate_names(country.languages[1:] or ("",)),
        }
        stated += ["language", "others"] if len(country.languages) > 1 else ["language"]
        facts["country.language"] = (plain, [country.languages[0]])
    for fact in ("phone", "domain"):
        value = getattr(country, fact)
        if value:
            fields[fact] = value
            stated.append(fact)
            facts[f"country.{fact}"] = (plain, [value])
    passage_id = f"country-{country.code.lower()}-life"
    text = write_text(passage_id, "country_life", stated, fields)
    yield Passage(passage_id, "country", group, country.name, text, 0.0, facts)


def city_passage(city: City, names: dict[str, Counter[str]], country_names: set[str]) -> Passage:
    """A city; questions use its name alone where no other place has it."""
    country, folded = city.country, fold(city.name)
    reference, told_by = city.name, ""
    if names[""][folded] > 1:
        suffix, told_by = (
            (f", {city.state}", "state") if city.state else (f" in {country.the_name}", "country")
        )
        reference = f"the city of {city.name}{suffix}" if folded in country_names else f"{city.name}{suffix}"
    fields = {
        "name": city.name,
        "place": f"{city.state}, {country.name}" if city.state else country.the_name,
        "country": country.the_name,
        "continent": country.continent,
        "population": number(city.population),
        "timezone": city.timezone,
        "latitude": degrees(city.latitude, "N", "S"),
        "longitude": degrees(city.longitude, "E", "W"),
    }
    facts = {
        "city.continent": (reference, [country.continent]),
        "city.population": (reference, [fields["population"]]),
        "city.timezone": (reference, [city.timezone]),
        "city.latitude": (reference, [fields["latitude"]]),
        "city.longitude": (reference, [fields["longitude"]]),
    }
    stated = ["population", "timezone", "position"]
    if told_by != "country":
        facts["city.country"] = (reference, [country.name])
        if city.is_capital:
            facts["city.capital_of"] = (reference, [country.name])
    if city.state and told_by != "state" and city.state != "District of Columbia":
        facts["city.state"] = (reference, [city.state])
    if city.is_capital:
        stated.append("capital_of")
    if city.nearest and city.nearest_km and city.nearest_direction:
        fields |= {"nearest": city.nearest, "distance": f"{number(city.nearest_km)} km"}
        fields["direction"] = city.nearest_direction
        facts["city.nearest"] = (reference, [city.nearest])
        facts["city.distance"] = (reference, [fields["distance"], number(city.nearest_km)])
        stated.append("nearest")
    passage_id = f"city-{city.key}"
    group = f"country:{country.code}" if city.is_capital else passage_id
    text = write_text(passage_id, "city", stated, fields)
    return Passage(passage_id, "city", group, city.name, text, -city.population, facts)


def airport_passage(airport: Airport, names: dict[str, Counter[str]]) -> Passage:
    """An airport; of several with one name the question gives the country or else the IATA code."""
    country, folded = airport.country, fold(airport.name)
    reference, told_by = airport.name, ""
    if names[""][folded] > 1:
        inside = names[country.code][folded]
        reference = (
            f"{airport.name} in {country.the_name}" if inside == 1 else f"{airport.name} ({airport.iata})"
        )
        told_by = "country" if inside == 1 else "code"
    fields = {
        "name": airport.name,
        "place": f"{airport.region}, {country.name}" if airport.region else country.the_name,
        "iata": airport.iata,
        "icao": airport.icao,
        "timezone": airport.timezone,
        "latitude": degrees(airport.latitude, "N", "S"),
        "longitude": degrees(airport.longitude, "E", "W"),
    }
    facts = {
        "airport.icao": (reference, [airport.icao]),
        "airport.timezone": (reference, [airport.timezone]),
        "airport.latitude": (reference, [fields["latitude"]]),
        "airport.longitude": (reference, [fields["longitude"]]),
        "airport.by_iata": ("", [airport.name]),
        "airport.by_icao": ("", [airport.name]),
    }
    stated = ["timezone", "position"]
    if told_by != "code":
        facts["airport.iata"] = (reference, [airport.iata])
    if told_by != "country":
        facts["airport.country"] = (reference, [country.name])
    if airport.region:
        facts["airport.region"] = (reference, [airport.region])
    if airport.city:
        fields["city"] = airport.city
        facts["airport.city"] = (reference, [airport.city])
        stated.append("city")
    if airport.elevation_ft:
        fields["elevation"] = f"{number(airport.elevation_ft)} feet"
        facts["airport.elevation"] = (reference, [fields["elevation"], number(airport.elevation_ft)])
        stated.append("elevation")
    passage_id = f"airport-{airport.iata.lower()}"
    text = write_text(passage_id, "airport", stated, fields)
    rank = random.Random(f"{SEED}:rank:{passage_id}").random() + (
        0 if airport.city and airport.elevation_ft else 1
    )
    codes = {"iata": airport.iata, "icao": airport.icao}
    return Passage(passage_id, "airport", passage_id, airport.name, text, rank, facts, codes)


def build_passages() -> list[Passage]:
    """All passages: countries, then cities by population, then airports by code."""
    countries = load_countries()
    cities, airports = load_cities(countries), load_airports(countries)
    names = count_names(countries, cities, airports)
    country_names = {fold(country.name) for country in countries.values()}
    passages = [
        passage
        for country in countries.values()
        for passage in country_passages(country, shared=names[""][fold(country.name)] > 1)
    ]
    passages += [city_passage(city, names, country_names) for city in cities]
    passages += [airport_passage(airport, names) for airport in airports]
    for passage in passages:
        for fact, (_, answers) in passage.facts.items():
            assert all(answer in passage.text for answer in answers), (passage.id, fact)
    assert len({p.id for p in passages}) == len(passages)
    return passages


def choose_shipped(passages: list[Passage]) -> list[Passage]:
    """All countries, all capitals, the largest cities and as many airports."""
    fixed = [p for p in passages if p.group.startswith("country:")]
    chosen = {p.id for p in fixed}
    room = SHIPPED_PASSAGES - len(fixed)
    cities = [p for p in passages if p.kind == "city" and p.id not in chosen]
    airports = sorted((p for p in passages if p.kind == "airport"), key=lambda p: p.rank)
    chosen |= {p.id for p in sorted(cities, key=lambda p: p.rank)[: room * 6 // 10]}
    chosen |= {p.id for p in airports[: SHIPPED_PASSAGES - len(chosen)]}
    return [p for p in passages if p.id in chosen]


def write_tsv(path: Path, passages: Iterable[Passage]) -> None:
    """Write passages as `id<TAB>text<TAB>title`."""
    lines = ["id\ttext\ttitle"] + [f"{p.id}\t{p.text}\t{p.title}" for p in passages]
    assert all(line.count("\t") == 2 for line in lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def build(output: Path) -> None:
    """Write every file of the corpus into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    passages = build_passages()
    shipped, splits = choose_shipped(passages), split_groups(passages)
    training = [p for p in passages if splits[p.group] != "test"]
    write_tsv(output / "passages.tsv", passages)
    write_tsv(output / "training_passages.tsv", training)
    write_tsv(output / "shipped_passages.tsv", shipped)
    words = sorted(len(p.text.split()) for p in passages)
    click.echo(
        f"{len(passages):,} passages of {words[0]} to {words[-1]} words, median {words[len(words) // 2]}"
    )
    click.echo(f"{len(training):,} take part in training")
    click.echo(f"{len(shipped):,} shipped: {dict(Counter(p.kind for p in shipped))}")
    for name, rows in make_questions(passages, shipped, splits).items():
        write_jsonl(output / f"{name}.jsonl", rows)
        click.echo(f"{name}: {len(rows):,} questions")


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def main(output: Path) -> None:
    """Build the corpus."""
    build(output)


if __name__ == "__main__":
    main()
