"""The sentences that state a fact and the questions that ask for it.

Keys of `QUESTIONS` are the question types. `{x}` in a question is the place asked about, told apart from
others of its name where that is needed; the other fields are those of the fact.
"""

from __future__ import annotations

#: kind -> fact -> sentences. The first sentence of a passage states the fact "is".
SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "country_land": {
        "is": (
            "{the_name} is a country or territory in {continent}.",
            "{the_name} belongs to the continent of {continent}.",
            "{the_name} is part of {continent}.",
        ),
        "capital": (
            "Its capital is {capital}.",
            "The capital is {capital}.",
            "It is governed from its capital, {capital}.",
        ),
        "largest_city": (
            "The most populous city is {largest_city}.",
            "Its largest city is {largest_city}.",
            "More people live in {largest_city} than in any other of its cities.",
        ),
        "population": (
            "It has a population of {population}.",
            "About {population} people live there.",
            "GeoNames counts {population} inhabitants.",
        ),
        "area": (
            "It covers an area of {area} square kilometres.",
            "Its area is {area} square kilometres.",
            "The land measures {area} square kilometres.",
        ),
        "neighbours": (
            "It shares land borders with {neighbours}.",
            "It borders {neighbours}.",
            "Its neighbours on land are {neighbours}.",
        ),
        "alone": ("It has no land borders.", "It borders no other country on land."),
    },
    "country_life": {
        "is": (
            "In {the_name} one pays in the {currency}, which has the code {currency_code}.",
            "The currency of {the_name} is the {currency}, written {currency_code} in banking.",
            "The money of {the_name} is the {currency}, code {currency_code}.",
        ),
        "language": (
            "The language most spoken there is {language}.",
            "Most people there speak {language}.",
            "The main language is {language}.",
        ),
        "others": ("Other languages include {others}.", "{others} can be heard too."),
        "phone": (
            "The calling code for telephones is {phone}.",
            "Telephone numbers begin with the country code {phone}.",
            "To phone there from abroad one dials {phone} first.",
        ),
        "domain": (
            "Its domain on the internet is {domain} for all kinds of sites.",
            "Web addresses there end in {domain} by default.",
            "The top-level domain is {domain} on the internet.",
        ),
        "iso": (
            "The ISO standard abbreviates it with the two letters {code} and the three letters {iso3}.",
            "Its ISO codes are {code} in two letters and {iso3} in three letters.",
        ),
    },
    "city": {
        "is": (
            "{name} is a town or city in {place}, on the continent of {continent}.",
            "{name} is a populated place in {place}, in {continent}.",
            "{name} lies in {place}, which belongs to {continent}.",
        ),
        "capital_of": ("It is the capital of {country}.", "It serves as the capital of {country}."),
        "population": (
            "It has a population of {population}.",
            "About {population} people live there.",
            "GeoNames counts {population} inhabitants.",
            "Its population is {population}.",
        ),
        "timezone": (
            "Its time zone is {timezone}.",
            "Clocks there follow the time zone {timezone}.",
            "The local time zone is {timezone}.",
        ),
        "position": (
            "It is situated at latitude {latitude} and longitude {longitude}.",
            "Its latitude is {latitude} and its longitude is {longitude}.",
            "On the map it is found at latitude {latitude}, longitude {longitude}.",
        ),
        "nearest": (
            "The nearest larger place is {nearest}, which lies {distance} to the {direction}.",
            "{nearest} is the closest place with more people, {distance} to the {direction}.",
            "Going {distance} to the {direction} one reaches {nearest}, the nearest place that is larger.",
        ),
    },
    "airport": {
        "is": (
            "{name} is located in {place}.",
            "{name} is an airport in {place}.",
            "{name} lies in {place}.",
        ),
        "city": (
            "It serves {city} and its surroundings.",
            "The place it serves is {city}.",
            "Travellers use it to reach {city}.",
        ),
        "codes": (
            "Its IATA code is {iata} and its ICAO code is {icao}.",
            "Its ICAO code is {icao}, and IATA lists it as {iata} on tickets.",
            "On tickets it has the IATA code {iata}; pilots know it by the ICAO code {icao}.",
        ),
        "elevation": (
            "It stands {elevation} above sea level.",
            "Its elevation is {elevation}.",
            "The runway lies at an elevation of {elevation}.",
        ),
        "timezone": (
            "Its time zone is {timezone}.",
            "Clocks there follow the time zone {timezone}.",
            "The local time zone is {timezone}.",
        ),
        "position": (
            "It is situated at latitude {latitude} and longitude {longitude}.",
            "Its latitude is {latitude} and its longitude is {longitude}.",
            "On the map it is found at latitude {latitude}, longitude {longitude}.",
        ),
    },
}

_POPULATION = (
    "What is the population of {x}?",
    "How many people live in {x}?",
    "How many inhabitants does {x} have?",
)
_TIMEZONE = (
    "What time zone is {x} in?",
    "Which time zone does {x} use?",
    "In which time zone is {x}?",
)
_LATITUDE = ("What is the latitude of {x}?", "At what latitude is {x}?", "At which latitude does {x} lie?")
_LONGITUDE = (
    "What is the longitude of {x}?",
    "At what longitude is {x}?",
    "At which longitude does {x} lie?",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "country.continent": (
        "On which continent is {x}?",
        "Which continent does {x} belong to?",
        "What continent is {x} part of?",
    ),
    "country.capital": (
        "What is the capital of {x}?",
        "Which city is the capital of {x}?",
        "What is the name of the capital of {x}?",
        "From which capital is {x} governed?",
    ),
    "country.largest_city": (
        "What is the largest city of {x}?",
        "Which city in {x} has the most people?",
        "What is the most populous city in {x}?",
    ),
    "country.population": _POPULATION,
    "country.area": (
        "What is the area of {x}?",
        "How large is {x} in square kilometres?",
        "How many square kilometres does {x} cover?",
    ),
    "country.neighbours": (
        "Which countries border {x}?",
        "What are the neighbours of {x}?",
        "With which countries does {x} share a land border?",
    ),
    "country.currency": (
        "What is the currency of {x}?",
        "What currency is used in {x}?",
        "Which money does one pay with in {x}?",
        "What is the money of {x} called?",
    ),
    "country.currency_code": (
        "What is the code of the currency of {x}?",
        "Which currency code does {x} use?",
        "What is the code for the money of {x}?",
    ),
    "country.language": (
        "Which language is most spoken in {x}?",
        "What is the main language of {x}?",
        "What language do most people in {x} speak?",
    ),
    "country.phone": (
        "What is the calling code of {x}?",
        "What is the telephone country code of {x}?",
        "Which code does one dial to phone {x}?",
    ),
    "country.domain": (
        "What is the internet domain of {x}?",
        "What is the top-level domain of {x}?",
        "What do web addresses in {x} end in?",
    ),
    "country.iso2": ("What is the two-letter ISO code of {x}?", "Which two letters does ISO use for {x}?"),
    "country.iso3": (
        "What is the three-letter ISO code of {x}?",
        "Which three letters does ISO use for {x}?",
    ),
    "city.country": (
        "Which country is {x} in?",
        "In which country is {x}?",
        "What country does {x} belong to?",
    ),
    "city.state": ("Which US state is {x} in?", "In which state of the United States is {x}?"),
    "city.continent": ("On which continent is {x}?", "Which continent is {x} in?"),
    "city.capital_of": ("Which country has {x} as its capital?", "{x} is the capital of which country?"),
    "city.population": _POPULATION,
    "city.timezone": _TIMEZONE,
    "city.latitude": _LATITUDE,
    "city.longitude": _LONGITUDE,
    "city.nearest": (
        "Which larger place is nearest to {x}?",
        "What is the nearest larger place to {x}?",
        "What is the closest place with more people than {x}?",
    ),
    "city.distance": (
        "How far is {x} from the nearest larger place?",
        "How many kilometres is it from {x} to the nearest larger place?",
    ),
    "airport.city": (
        "Which city does {x} serve?",
        "What place is served by {x}?",
        "Which place does one reach from {x}?",
    ),
    "airport.country": ("Which country is {x} in?", "In which country is {x}?"),
    "airport.region": ("In which region is {x}?", "Which state, province or region is {x} in?"),
    "airport.iata": (
        "What is the IATA code of {x}?",
        "Which IATA code does {x} have?",
        "What three-letter IATA code stands for {x}?",
    ),
    "airport.icao": ("What is the ICAO code of {x}?", "Which ICAO code does {x} have?"),
    "airport.elevation": (
        "What is the elevation of {x}?",
        "How high is {x} above sea level?",
        "How many feet above sea level is {x}?",
    ),
    "airport.timezone": _TIMEZONE,
    "airport.latitude": _LATITUDE,
    "airport.longitude": _LONGITUDE,
    "airport.by_iata": (
        "Which airport has the IATA code {iata}?",
        "What airport is {iata} in the list of IATA?",
    ),
    "airport.by_icao": ("Which airport has the ICAO code {icao}?", "What airport do pilots know as {icao}?"),
}
