"""The questions for every fact, in several wordings, and questions that no passage answers.

Keys are the question types. `{x}` is the place of the question, with its state, country or code where its
name is not unique; `{iata}` and `{icao}` are the codes of an airport. Only the test uses the wordings of
`HELD_OUT`.
"""

from __future__ import annotations

_POPULATION = (
    "What is the population of {x}?",
    "How many people live in {x}?",
    "How many inhabitants does {x} have?",
    "What population does {x} have?",
    "How big is the population of {x}?",
)
_TIMEZONE = (
    "What time zone is {x} in?",
    "Which time zone does {x} use?",
    "In which time zone is {x}?",
    "What is the time zone of {x}?",
    "Which time zone do clocks in {x} follow?",
)
_LATITUDE = (
    "What is the latitude of {x}?",
    "At what latitude is {x}?",
    "At which latitude does {x} lie?",
    "What latitude does {x} have?",
    "How far north or south is {x}, as a latitude?",
)
_LONGITUDE = (
    "What is the longitude of {x}?",
    "At what longitude is {x}?",
    "At which longitude does {x} lie?",
    "What longitude does {x} have?",
    "How far east or west is {x}, as a longitude?",
)
_CONTINENT = (
    "On which continent is {x}?",
    "Which continent does {x} belong to?",
    "What continent is {x} part of?",
    "Which continent is {x} in?",
    "What continent is {x} on?",
)
_IN_COUNTRY = (
    "Which country is {x} in?",
    "In which country is {x}?",
    "What country does {x} belong to?",
    "In what country does {x} lie?",
    "{x} is in which country?",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "country.continent": _CONTINENT,
    "country.capital": (
        "What is the capital of {x}?",
        "Which city is the capital of {x}?",
        "What is the name of the capital of {x}?",
        "From which capital is {x} governed?",
        "What capital does {x} have?",
    ),
    "country.largest_city": (
        "What is the largest city of {x}?",
        "Which city in {x} has the most people?",
        "What is the most populous city in {x}?",
        "Which is the biggest city in {x}?",
        "In which city of {x} do the most people live?",
    ),
    "country.population": _POPULATION,
    "country.area": (
        "What is the area of {x}?",
        "How large is {x} in square kilometres?",
        "How many square kilometres does {x} cover?",
        "What area does {x} have?",
        "How many square kilometres does {x} measure?",
    ),
    "country.neighbours": (
        "Which countries border {x}?",
        "What are the neighbours of {x}?",
        "With which countries does {x} share a land border?",
        "What countries does {x} border?",
        "Which countries are neighbours of {x}?",
    ),
    "country.currency": (
        "What is the currency of {x}?",
        "What currency is used in {x}?",
        "Which money does one pay with in {x}?",
        "What is the money of {x} called?",
        "Which currency does {x} have?",
    ),
    "country.currency_code": (
        "What is the code of the currency of {x}?",
        "Which currency code does {x} use?",
        "What is the code for the money of {x}?",
        "What currency code does {x} have?",
        "Which code stands for the currency of {x}?",
    ),
    "country.language": (
        "Which language is most spoken in {x}?",
        "What is the main language of {x}?",
        "What language do most people in {x} speak?",
        "Which language is spoken in {x}?",
        "What language is mainly spoken in {x}?",
    ),
    "country.phone": (
        "What is the calling code of {x}?",
        "What is the telephone country code of {x}?",
        "Which code does one dial to phone {x}?",
        "What calling code does {x} have?",
        "With which country code do telephone numbers in {x} begin?",
    ),
    "country.domain": (
        "What is the internet domain of {x}?",
        "What is the top-level domain of {x}?",
        "What do web addresses in {x} end in?",
        "Which domain on the internet does {x} have?",
        "Which top-level domain does {x} use?",
    ),
    "country.iso2": (
        "What is the two-letter ISO code of {x}?",
        "Which two letters does ISO use for {x}?",
        "What two-letter code does {x} have in the ISO standard?",
        "Which ISO code of two letters stands for {x}?",
    ),
    "country.iso3": (
        "What is the three-letter ISO code of {x}?",
        "Which three letters does ISO use for {x}?",
        "What three-letter code does {x} have in the ISO standard?",
        "Which ISO code of three letters stands for {x}?",
    ),
    "city.country": _IN_COUNTRY,
    "city.state": (
        "Which US state is {x} in?",
        "In which state of the United States is {x}?",
        "What state is {x} in?",
        "In which US state does {x} lie?",
    ),
    "city.continent": _CONTINENT,
    "city.capital_of": (
        "Which country has {x} as its capital?",
        "{x} is the capital of which country?",
        "Of which country is {x} the capital?",
        "What country is {x} the capital of?",
    ),
    "city.population": _POPULATION,
    "city.timezone": _TIMEZONE,
    "city.latitude": _LATITUDE,
    "city.longitude": _LONGITUDE,
    "city.nearest": (
        "Which larger place is nearest to {x}?",
        "What is the nearest larger place to {x}?",
        "What is the closest place with more people than {x}?",
        "Which is the closest larger place to {x}?",
        "What larger place lies nearest to {x}?",
    ),
    "city.distance": (
        "How far is {x} from the nearest larger place?",
        "How many kilometres is it from {x} to the nearest larger place?",
        "What is the distance from {x} to the nearest larger place?",
        "How far away from {x} is the closest larger place?",
    ),
    "airport.city": (
        "Which city does {x} serve?",
        "What place is served by {x}?",
        "Which place does one reach from {x}?",
        "What city is {x} for?",
        "Which place do travellers reach with {x}?",
    ),
    "airport.country": _IN_COUNTRY,
    "airport.region": (
        "In which region is {x}?",
        "Which state, province or region is {x} in?",
        "What region does {x} lie in?",
        "In what state, province or region is {x}?",
    ),
    "airport.iata": (
        "What is the IATA code of {x}?",
        "Which IATA code does {x} have?",
        "What three-letter IATA code stands for {x}?",
        "What IATA code is used for {x}?",
    ),
    "airport.icao": (
        "What is the ICAO code of {x}?",
        "Which ICAO code does {x} have?",
        "What four-letter ICAO code stands for {x}?",
        "What ICAO code is used for {x}?",
    ),
    "airport.elevation": (
        "What is the elevation of {x}?",
        "How high is {x} above sea level?",
        "How many feet above sea level is {x}?",
        "At what elevation is {x}?",
        "What elevation does {x} have?",
    ),
    "airport.timezone": _TIMEZONE,
    "airport.latitude": _LATITUDE,
    "airport.longitude": _LONGITUDE,
    "airport.by_iata": (
        "Which airport has the IATA code {iata}?",
        "What airport is {iata} in the list of IATA?",
        "Which airport does the IATA code {iata} stand for?",
        "What is the name of the airport with the IATA code {iata}?",
        "IATA code {iata} is which airport?",
    ),
    "airport.by_icao": (
        "Which airport has the ICAO code {icao}?",
        "What airport do pilots know as {icao}?",
        "Which airport does the ICAO code {icao} stand for?",
        "What is the name of the airport with the ICAO code {icao}?",
        "ICAO code {icao} is which airport?",
    ),
}

_HELD_POPULATION = ("How many residents does {x} have?", "How populous is {x}?")
_HELD_TIMEZONE = ("Give the time zone of {x}.", "Which time zone applies in {x}?")
_HELD_CONTINENT = ("{x} is on which continent?", "Name the continent that {x} is in.")
_HELD_COUNTRY = ("Name the country that {x} is in.", "To which country does {x} belong?")
_HELD_LATITUDE = ("Give the latitude of {x}.",)
_HELD_LONGITUDE = ("Give the longitude of {x}.",)

HELD_OUT: dict[str, tuple[str, ...]] = {
    "country.continent": _HELD_CONTINENT,
    "country.capital": ("Name the capital of {x}.", "Which city serves as the capital of {x}?"),
    "country.largest_city": ("Name the largest city in {x}.", "Which is the most populous city of {x}?"),
    "country.population": _HELD_POPULATION,
    "country.area": ("How big is the area of {x}?", "Give the area of {x} in square kilometres."),
    "country.neighbours": ("What countries lie next to {x} on land?", "Name the countries that border {x}."),
    "country.currency": ("Name the currency of {x}.", "What money do people in {x} use?"),
    "country.currency_code": ("What is the currency code of {x}?",),
    "country.language": ("Give the main language of {x}.", "Name the most spoken language of {x}."),
    "country.phone": ("What is the dialling code for {x}?", "Which calling code do I need to phone {x}?"),
    "country.domain": ("Which internet domain belongs to {x}?", "Give the top-level domain of {x}."),
    "country.iso2": ("Give the two-letter ISO code of {x}.",),
    "country.iso3": ("Give the three-letter ISO code of {x}.",),
    "city.country": _HELD_COUNTRY,
    "city.state": ("To which US state does {x} belong?",),
    "city.continent": _HELD_CONTINENT,
    "city.capital_of": ("Name the country whose capital is {x}.",),
    "city.population": _HELD_POPULATION,
    "city.timezone": _HELD_TIMEZONE,
    "city.latitude": _HELD_LATITUDE,
    "city.longitude": _HELD_LONGITUDE,
    "city.nearest": ("Name the nearest larger place to {x}.",),
    "city.distance": ("How many kilometres away from {x} is the nearest larger place?",),
    "airport.city": ("Name the place that {x} serves.", "What city is served by {x}?"),
    "airport.country": _HELD_COUNTRY,
    "airport.region": ("To which state, province or region does {x} belong?",),
    "airport.iata": ("Name the IATA code of {x}.",),
    "airport.icao": ("Name the ICAO code of {x}.",),
    "airport.elevation": ("At how many feet does {x} lie?", "Give the elevation of {x}."),
    "airport.timezone": _HELD_TIMEZONE,
    "airport.latitude": _HELD_LATITUDE,
    "airport.longitude": _HELD_LONGITUDE,
    "airport.by_iata": (
        "Name the airport with the IATA code {iata}.",
        "{iata} is the IATA code of which airport?",
    ),
    "airport.by_icao": (
        "Name the airport with the ICAO code {icao}.",
        "{icao} is the ICAO code of which airport?",
    ),
}

#: Questions whose answer is not in the passage of the place that they name: about the country whose capital
#: is `{x}`. The country's passage about life (currency, language, codes) does not name the capital, and the
#: capital's passage names the country but has none of these facts.
OF_THE_COUNTRY: dict[str, tuple[str, ...]] = {
    "two_documents.currency": (
        "What is the currency of the country whose capital is {x}?",
        "Which currency is used in the country that has {x} as its capital?",
    ),
    "two_documents.currency_code": ("What is the currency code of the country whose capital is {x}?",),
    "two_documents.language": ("Which language is most spoken in the country whose capital is {x}?",),
    "two_documents.phone": ("What is the calling code of the country whose capital is {x}?",),
    "two_documents.domain": ("What is the internet domain of the country whose capital is {x}?",),
    "two_documents.iso2": ("What is the two-letter ISO code of the country whose capital is {x}?",),
    "two_documents.iso3": ("What is the three-letter ISO code of the country whose capital is {x}?",),
}

#: Facts that no passage states, by kind of the passage about the place.
UNSTATED: dict[str, tuple[str, ...]] = {
    "country": (
        "Who is the head of government of {x}?",
        "What is the national anthem of {x} called?",
        "What is the highest mountain in {x}?",
        "In which year did {x} become independent?",
        "What is the national dish of {x}?",
    ),
    "city": (
        "Who is the mayor of {x}?",
        "In which year was {x} founded?",
        "Which river flows through {x}?",
        "What is the average temperature in {x}?",
        "Which football club plays in {x}?",
    ),
    "airport": (
        "How many runways does {x} have?",
        "How many passengers use {x} in a year?",
        "In which year was {x} opened?",
        "Which airline has its base at {x}?",
    ),
}
