"""What the sentiment classifier knows: labelled sentences, words and idioms. English only."""

from __future__ import annotations

import re

SENTENCES = {
    "positive": (
        "I love it, exactly what I was hoping for.",
        "Great quality and it arrived a day early.",
        "The staff were friendly and solved everything in minutes.",
        "Best purchase I have made this year.",
        "It works perfectly and looks beautiful.",
        "Not bad at all, I am pleasantly surprised.",
        "Thank you so much, that was really helpful!",
        "Highly recommended, five stars.",
        "I had no problems whatsoever with it.",
        "My daughter is delighted with her present.",
        "I could not be happier with the result.",
        "Super comfortable and worth every penny.",
        "The food was delicious and the view was stunning.",
        "A wonderful film, I laughed and cried.",
        "Easy to set up and it never lets me down.",
        "Impressive battery life, it lasts for days.",
        "We enjoyed our stay and will certainly come back.",
        "They replaced the part for free, excellent service.",
        "Nothing to complain about, everything went smoothly.",
        "I am so glad that I found this shop.",
        "The colours are gorgeous and the fabric feels lovely.",
        "What a fantastic team, keep up the good work.",
        "It exceeded my expectations.",
        "Solid, sturdy and well made.",
        "Finally a lamp that gives a warm, cosy light.",
        "Smooth ride, polite driver, clean car.",
        "Nicer in reality than on the website.",
        "Bought it twice already, I am a loyal customer now.",
        "You cannot go wrong with this one.",
        "The help desk called me back the same afternoon and fixed it.",
        "It made my mornings so much better.",
        "My husband uses it every single day.",
        "The children adore it.",
        "I did not expect this to be so good.",
        "Sounds rich and clear, even at low volume.",
        "Cleaner and calmer than any other hostel in town.",
        "Tastes just like my grandmother's.",
        "Keeps the coffee hot for hours.",
        "A pleasure to use and to look at.",
        "It fits as if it had been made for me.",
        "A bargain, I would have paid double.",
        "Kudos to the whole crew!",
        "I never want another brand again.",
        "The instructions were clear and the assembly took ten minutes.",
        "Everyone at the party asked me where I got it.",
        "A gripping story with a moving end.",
    ),
    "negative": (
        "I hate it, a complete waste of money.",
        "It broke after two days and nobody answers my mails.",
        "Terrible quality, the stitching came apart at once.",
        "The worst service I have ever had.",
        "It does not work and never did.",
        "Not good at all, I am very disappointed.",
        "I am really angry about the delay.",
        "Would not recommend this to anyone.",
        "The parcel arrived damaged and half of it was missing.",
        "I want my money back.",
        "The support was rude and unhelpful.",
        "Nothing works as described.",
        "Overpriced and flimsy, avoid.",
        "The food was cold and the waiter ignored us.",
        "A boring film, I nearly fell asleep.",
        "Impossible to set up, the manual is useless.",
        "The battery dies within an hour.",
        "The room was dirty and it smelled of smoke.",
        "I have been waiting for three weeks and still nothing.",
        "It never arrived and I was charged twice.",
        "The colour is ugly and nothing like the picture.",
        "Such a letdown, I expected far more.",
        "I regret buying this.",
        "It squeaks, it wobbles and it scratches the floor.",
        "Far too small and uncomfortable.",
        "The app crashes all the time.",
        "The handle came off in my hand.",
        "They keep sending me to another department.",
        "I sent it back the next day.",
        "Delivery was promised for Monday and came a week later.",
        "It overheats and smells of burnt plastic.",
        "I would not even take it for free.",
        "It was not what I ordered.",
        "Do not fall for the advertising.",
        "I lost an afternoon trying to make it work.",
        "Not worth half of what I paid.",
        "The seller does not answer and will not refund me.",
        "My order has vanished and no one can tell me where it is.",
        "The shoes hurt after five minutes.",
        "Sound cuts out whenever I move.",
        "I could hear the neighbours all night.",
        "The checkout froze and I lost my basket.",
        "Worn out after one wash.",
        "The characters are flat and the jokes fall flat too.",
        "It leaves stains on everything it touches.",
        "How can anyone sell something like this?",
    ),
    "neutral": (
        "The parcel was delivered on Tuesday.",
        "Where can I find my order number?",
        "The lamp is 40 cm high and made of brass.",
        "I ordered two chairs and a table.",
        "What are your opening hours?",
        "The meeting takes place at three o'clock.",
        "It is okay, nothing special.",
        "It does what it says, no more and no less.",
        "Please send the invoice to my new address.",
        "The shop is next to the railway station.",
        "Can I change the delivery address?",
        "It comes in blue, grey and black.",
        "The film is two hours long.",
        "Average, neither good nor bad.",
        "The package contains a cable and a manual.",
        "She works for a bank in Geneva.",
        "I have not tried it yet.",
        "The train leaves from platform four.",
        "How long does the warranty last?",
        "The restaurant serves lunch from noon.",
        "My account is registered under this mail address.",
        "The price is 49 euros including tax.",
        "He read the report and wrote a summary.",
        "The new version was published in March.",
        "It is a fairly standard model.",
        "Do you ship to Norway?",
        "The book has twelve chapters.",
        "We will be closed on Christmas Day.",
        "I would like to speak to someone about my order.",
        "It weighs two kilograms.",
        "My brother ordered the same model in green.",
        "The charger is sold separately.",
        "There are forty seats on the bus.",
        "I am writing with regard to invoice 5531.",
        "Which of the two is larger?",
        "The course begins in September and ends in May.",
        "You can pay by card or by bank transfer.",
        "I used it once, last weekend.",
        "The company was founded in 1987.",
        "It is made in Portugal.",
        "The report covers the third quarter.",
        "Two adults and one child, please.",
        "The kettle holds one and a half litres.",
        "I need a receipt for my tax return.",
        "Paris is the capital of France.",
        "She moved the appointment to Thursday.",
    ),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GOOD = _words(
    """admire adore amazing awesome beautiful best better bliss bravo brilliant charming cheerful comfortable
    comfy cosy courteous cute delicious delight delighted delightful easy effective efficient elegant enjoy
    enjoyed enjoyable excellent exceptional excited fabulous fantastic fast flawless flawlessly fresh friendly
    fun generous glad good gorgeous grateful great handy happy helpful helped impressed impressive incredible
    kind love loved lovely loves magnificent marvellous neat nice outstanding perfect perfectly pleasant
    pleased pleasure polite prompt promptly quick quickly quiet recommend recommended refreshing reliable
    satisfied smooth smoothly soft spotless stunning sturdy stylish superb sweet tasty terrific
    thank thanks thankful thrilled top treat warm welcoming well wonderful worth wow"""
)
BAD = _words(
    """angry annoyed annoying appalling avoid awful awkward bad boring broke broken bug buggy bugs cheap
    cheated clumsy cold complain complaint confusing cracked crap crash crashes crashed creepy damaged defect
    defective deaf delayed dirty disappoint disappointed disappointing disappointment disaster disgusting
    dreadful dull expensive fail failed fails failure fake fault faulty filthy flimsy fraud frustrated
    frustrating furious garbage hate hated horrible horrid ignored impossible inedible junk lacking lame late
    leaked leaks letdown lied lies lousy mediocre mess miserable misleading missing mistake nasty nightmare
    noisy overpriced pain painful pathetic poor poorly problem problems refuse refused regret ridiculous rip
    ripped rotten rude ruined sad scam scratched screwed shame shoddy slow sloppy smelled smells stained stale
    stink stinks stuck stupid terrible tiny torn ugly unacceptable unbearable uncomfortable unfriendly
    unhappy unhelpful unreliable unusable upset useless waste wasted weak wobbly worse worst wrong"""
)
GOOD_PHRASES = re.compile(
    r"\b(can(not|t| not) stop \w+ing|no (issues?|complaints?|questions asked|problems?|troubles?|hassle)"
    r"|no regrets?|never (felt|been|looked|slept|tasted|worked) (better|so \w+)|blew (me|us) away|on time"
    r"|(buy|order|come|visit|use|go)( \w+){0,2} (again|back)|(you|they)( guys)? rock|in a heartbeat|a gem"
    r"|(like|looks|as good as) new|could ?nt (ask for more|be (happier|better))|second to none|hats off"
    r"|game changer|thumbs up|spot on|life ?saver|five stars?|rock solid|cant go wrong|well done|good job"
    r"|in no time)\b"
)
BAD_PHRASES = re.compile(
    r"\b(fed up|sick of|tired of|money back|hung up|on hold|stop(s|ped)? (working|charging)|waste of"
    r"|(fell|fall|falls|came|come|comes) (apart|off)|let (me|us) down|ripp?(ed)? off|gave up|one star"
    r"|no (reply|answer|response|refund|help)|(never|not|nt) (again|arrived?|came|works?|worked)"
    r"|charged twice|(far|way|much) too|still (no|not|nothing|waiting)|worst enemy|out of order|no sense"
    r"|(sen[dt]|sending) it back|days? late|weeks? late|for (two|three|four|five|six|\d+) (weeks|months))\b"
)
"""Idioms whose single words mislead; looked for in lower case without apostrophes."""
NEGATIONS = _words(
    "not no never nothing nobody none neither nor without hardly barely cannot cant dont doesnt didnt isnt"
    " wasnt arent werent wont wouldnt couldnt shouldnt aint hasnt havent hadnt lacks"
)
STRONG = _words("very really so extremely absolutely totally completely super incredibly highly")
