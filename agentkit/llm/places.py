"""Names of countries and of states of the USA, as far as arguments need them: which part of "Lyon, France" is which."""

from __future__ import annotations

import re

_STATES = (
    "Alabama AL,Alaska AK,Arizona AZ,Arkansas AR,California CA,Colorado CO,Connecticut CT,Delaware DE,Florida FL,"
    "Georgia GA,Hawaii HI,Idaho ID,Illinois IL,Indiana IN,Iowa IA,Kansas KS,Kentucky KY,Louisiana LA,Maine ME,"
    "Maryland MD,Massachusetts MA,Michigan MI,Minnesota MN,Mississippi MS,Missouri MO,Montana MT,Nebraska NE,"
    "Nevada NV,New Hampshire NH,New Jersey NJ,New Mexico NM,New York NY,North Carolina NC,North Dakota ND,Ohio OH,"
    "Oklahoma OK,Oregon OR,Pennsylvania PA,Rhode Island RI,South Carolina SC,South Dakota SD,Tennessee TN,Texas TX,"
    "Utah UT,Vermont VT,Virginia VA,Washington WA,West Virginia WV,Wisconsin WI,Wyoming WY"
)
_COUNTRIES = (
    "Afghanistan,Albania,Algeria,Argentina,Armenia,Australia,Austria,Azerbaijan,Bangladesh,Belarus,Belgium,Bolivia,"
    "Bosnia,Botswana,Brazil,Bulgaria,Cambodia,Cameroon,Canada,Chile,China,Colombia,Costa Rica,Croatia,Cuba,Cyprus,"
    "Czechia,Czech Republic,Denmark,Ecuador,Egypt,England,Estonia,Ethiopia,Finland,France,Germany,Ghana,Greece,"
    "Guatemala,Hungary,Iceland,India,Indonesia,Iran,Iraq,Ireland,Israel,Italy,Jamaica,Japan,Jordan,Kazakhstan,Kenya,"
    "Kuwait,Latvia,Lebanon,Libya,Lithuania,Luxembourg,Madagascar,Malaysia,Malta,Mexico,Moldova,Mongolia,Morocco,"
    "Mozambique,Myanmar,Namibia,Nepal,Netherlands,New Zealand,Nicaragua,Nigeria,Norway,Oman,Pakistan,Panama,"
    "Paraguay,Peru,Philippines,Poland,Portugal,Qatar,Romania,Russia,Rwanda,Saudi Arabia,Scotland,Senegal,Serbia,"
    "Singapore,Slovakia,Slovenia,South Africa,South Korea,Spain,Sri Lanka,Sudan,Sweden,Switzerland,Syria,Taiwan,"
    "Tanzania,Thailand,Tunisia,Turkey,UAE,UK,US,USA,Uganda,Ukraine,United Arab Emirates,United Kingdom,"
    "United States,Uruguay,Uzbekistan,Venezuela,Vietnam,Wales,Yemen,Zambia,Zimbabwe"
)
STATES = frozenset(part for state in _STATES.split(",") for part in (state[:-3], state[-2:]))
COUNTRIES = frozenset(_COUNTRIES.split(","))
CITIES = frozenset({"New York", "Washington", "Singapore", "Luxembourg", "Kuwait", "Panama"})
"""What is the name of a city as well."""
REGIONS = STATES | COUNTRIES
_REGION = "|".join(sorted(map(re.escape, REGIONS), key=len, reverse=True))
WITHIN = re.compile(rf", ({_REGION})(?![\w'’-])")
"""What follows the name of a city: ``, Illinois``."""
