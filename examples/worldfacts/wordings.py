"""The sentences that state a fact, several for each; the questions are in `asking.py`."""

from __future__ import annotations

_TIMEZONE = (
    "Its time zone is {timezone}.",
    "Clocks there follow the time zone {timezone}.",
    "The local time zone is {timezone}.",
)
_POSITION = (
    "It is situated at latitude {latitude} and longitude {longitude}.",
    "Its latitude is {latitude} and its longitude is {longitude}.",
    "On the map it is found at latitude {latitude}, longitude {longitude}.",
)

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
        "neighbour": (
            "It shares a land border with {neighbours} alone.",
            "It borders {neighbours}.",
            "Its only neighbour on land is {neighbours}.",
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
        "timezone": _TIMEZONE,
        "position": _POSITION,
        "nearest": (
            "The nearest larger place is {nearest}, which lies {distance} to the {direction}.",
            "{nearest} is the closest place with more people, {distance} to the {direction}.",
            "Going {distance} to the {direction} one reaches {nearest}, the nearest place that is larger.",
        ),
    },
    "airport": {
        "is": (
            "{name} (IATA: {iata}, ICAO: {icao}) is located in {place}.",
            "{name} (IATA: {iata}, ICAO: {icao}) is an airport in {place}.",
            "{name} (IATA: {iata}, ICAO: {icao}) lies in {place}.",
        ),
        "city": (
            "It serves {city} and its surroundings.",
            "The place it serves is {city}.",
            "Travellers use it to reach {city}.",
        ),
        "elevation": (
            "It stands {elevation} above sea level.",
            "Its elevation is {elevation}.",
            "The runway lies at an elevation of {elevation}.",
        ),
        "timezone": _TIMEZONE,
        "position": _POSITION,
    },
}
