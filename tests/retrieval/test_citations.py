from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit.answers import checked as grounded
from agentkit.messages import Passage
from agentkit.retrieval.citations import (
    SUPPORT_THRESHOLD,
    check_answer,
    is_courtesy,
    is_refusal,
    support,
)
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.followup import alone
from agentkit.retrieval.numbers import Number, contradicts, numbers
from agentkit.retrieval.quotes import passage_quotes
from agentkit.retrieval.quoting import best_quotes
from agentkit.retrieval.words import stems

RETURNS = Passage(
    1,
    "returns.md",
    "Returns > How long you have",
    "You can return any unused item within 30 days of delivery. A return label costs €3.95, which we deduct.",
    0.7,
)
GIFTS = Passage(
    2, "gift.md", "Gift cards", "Gift cards cannot be returned.\nYou need:\n- the 16-digit code", 0.5
)
PASSAGES = [RETURNS, GIFTS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("€4.90", {Number("4.9", "€")}),
        ("4,90 euros", {Number("4.9", "€")}),
        ("1,000 items", {Number("1000", "")}),
        ("thirty days", {Number("30", "day")}),
        ("a 30-day period", {Number("30", "day")}),
        ("2 to 4 working days", {Number("2", ""), Number("4", "day")}),
        ("50 percent", {Number("50", "%")}),
        ("at 13:00", {Number("13:00", "")}),
        ("nothing here", set()),
        ("fourteen days", {Number("14", "day")}),
        ("seventeen or seventy hours", {Number("17", ""), Number("70", "hour")}),
        ("the tenant's tent, often sixth", set()),
    ],
)
def test_numbers(text: str, expected: set[Number]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("sentence", "passage", "expected"),
    [
        ("within 30 days", "within thirty days", False),
        ("within 30 days", "within 30 weeks", True),
        ("within 2 days", "takes 2 to 4 days", False),
        ("until 31 January", "until 31 January", False),
        ("until 31 March", "until 31 January", True),
        ("costs 5 euros", "costs €15", True),
        ("no number", "3 and 4", False),
        ("fourteen days", "4 days", True),
        ("fourteen days", "14 days", False),
    ],
)
def test_contradicts(sentence: str, passage: str, expected: bool) -> None:
    assert contradicts(sentence, passage) is expected


def test_a_paraphrase_is_supported(minilm: MiniLMEmbedder) -> None:
    found = support("You have 30 days to return an unused item.", PASSAGES, minilm)
    assert found.passage == RETURNS
    assert found.quote.text == "You can return any unused item within 30 days of delivery."
    assert 0.6 <= found.score <= 1


@pytest.mark.parametrize(
    "sentence",
    [
        "You have 14 days to return an unused item.",
        "A return label costs €4.95.",
        "Gift cards can be returned.",
        "The shop was founded by two sisters.",
    ],
)
def test_unsupported(minilm: MiniLMEmbedder, sentence: str) -> None:
    assert support(sentence, PASSAGES, minilm).score < 0.6


def test_check_answer(minilm: MiniLMEmbedder) -> None:
    answer = (
        "You can return unused items within 30 days of delivery [7]. It takes 99 days. "
        "Gift cards cannot be returned. "
        "Any unused item can be returned within 30 days.\n\nI hope that helps!"
    )
    checked = check_answer(answer, PASSAGES, minilm)
    assert checked.text == (
        "You can return unused items within 30 days of delivery. [1] Gift cards cannot be returned. [2] "
        "Any unused item can be returned within 30 days. [1]\n\nI hope that helps!"
    )
    assert checked.dropped == ("It takes 99 days.",)
    assert [(c.number, c.document, c.quote) for c in checked.citations] == [
        (1, "returns.md", "You can return any unused item within 30 days of delivery."),
        (2, "gift.md", "Gift cards cannot be returned."),
    ]


def test_without_passages_only_courtesy_stays(minilm: MiniLMEmbedder) -> None:
    checked = check_answer("Returns are free. Thank you!", [], minilm)
    assert (checked.text, checked.citations, checked.dropped) == ("Thank you!", (), ("Returns are free.",))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("I hope that helps!", True),
        ("Returns are free.", False),
        ("Sure, here you go.", True),
        ("It is 5.", False),
        ("It is free.", False),
        ("Yes, you can do that.", False),
        ("You can come anytime.", False),
        ("No.", False),
        ("No, we do not have any.", False),
        ("Feel free to ask!", True),
    ],
)
def test_courtesy(sentence: str, expected: bool) -> None:
    assert is_courtesy(sentence) is expected


def test_best_quotes(minilm: MiniLMEmbedder) -> None:
    quotes = best_quotes(alone("How many days do I have to send something back?"), PASSAGES, minilm, limit=2)
    assert len(quotes) == 2
    assert quotes[0].text == "You can return any unused item within 30 days of delivery."
    assert quotes[0].passage == RETURNS
    texts = [quote.text for quote in best_quotes(alone("What do I need?"), [GIFTS], minilm, limit=9)]
    assert "You need: the 16-digit code" in texts
    assert best_quotes(alone("anything"), [], minilm) == []


def test_support_pairs(minilm: MiniLMEmbedder) -> None:
    """The threshold, measured: few true sentences are dropped, and fewer false ones kept."""
    lines = (Path(__file__).parent / "support_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    accepted: dict[bool, list[bool]] = {True: [], False: []}
    for pair in map(json.loads, lines):
        passages = [Passage(1, "a.md", "", pair["passage"], 0.5)]
        score = support(pair["sentence"], passages, minilm).score
        accepted[pair["supported"]].append(score >= SUPPORT_THRESHOLD)
    assert len(lines) >= 60
    assert sum(accepted[True]) / len(accepted[True]) >= 0.9
    assert sum(accepted[False]) / len(accepted[False]) <= 0.05


def test_table_rows_are_read_out() -> None:
    table = "Bed ¦ Duvet cover ¦ Pillow\nKing | 230 x 220 cm | 50 cm\nSingle | 140 cm | 50 cm"
    text = f"{table}\nAll are washable at 40 degrees."
    quotes = passage_quotes(Passage(1, "a.md", "Sizes", text, 0.5))
    assert [quote.text for quote in quotes] == [
        "King: duvet cover 230 x 220 cm, pillow 50 cm",
        "Single: duvet cover 140 cm, pillow 50 cm",
        "All are washable at 40 degrees.",
    ]
    bare = Passage(1, "a.md", "Sizes", "Lamps | 2 years\nFrames | 5 years", 0.5)
    assert [quote.text for quote in passage_quotes(bare)] == ["Lamps: 2 years", "Frames: 5 years"]


def test_empty_cells_are_not_read_out() -> None:
    table = "– ¦ Duvet cover ¦ Pillow\nKing | 230 x 220 cm | –\nCot | – | –"
    quotes = passage_quotes(Passage(1, "a.md", "Sizes", table, 0.5))
    assert quotes[0].text == "King: duvet cover 230 x 220 cm"
    assert not any("–" in quote.text for quote in quotes)


def test_a_question_for_a_number_prefers_one(minilm: MiniLMEmbedder) -> None:
    text = "Sending a parcel back is easy. The label is in the parcel. A return label is deducted: €3.95."
    passage = Passage(1, "a.md", "Returns", text, 0.5)
    assert "€3.95" in best_quotes(alone("how much is a return label?"), [passage], minilm)[0].text


@pytest.mark.parametrize(
    ("question", "excluded"),
    [
        ("What does the warranty not cover?", True),
        ("Which damage isn't covered by the warranty?", True),
        ("What does the warranty cover?", False),
        ("What does the warranty cover if I did not register?", False),
    ],
)
def test_what_is_asked_for_in_the_negative(minilm: MiniLMEmbedder, question: str, excluded: bool) -> None:
    covered = "The warranty covers broken switches and loose joints."
    text = "- Normal wear, such as pilling.\n- Lamps that were opened lose their warranty."
    passages = [
        Passage(1, "w.md", "Warranty > What it covers", covered, 0.6),
        Passage(2, "w.md", "Warranty > What is not covered", text, 0.5),
    ]
    (best,) = best_quotes(alone(question), passages, minilm, limit=1)
    assert (best.text != covered) == excluded


def test_a_yes_that_is_a_passage_is_cited(minilm: MiniLMEmbedder) -> None:
    passages = [Passage(1, "faq.csv", "FAQ > Do you ship to Canada?", "Yes.", 0.9)]
    checked = check_answer("Yes.", passages, minilm)
    assert (checked.text, checked.citations[0].quote) == ("Yes. [1]", "Yes.")


def test_a_number_of_the_next_sentence_supports_nothing(minilm: MiniLMEmbedder) -> None:
    text = "Standard delivery costs 4.95 euros. Express delivery costs 9.95 euros."
    passages = [Passage(1, "a.md", "Delivery", text, 0.9)]
    assert check_answer("Standard delivery costs 4.95 euros.", passages, minilm).citations
    assert check_answer("Standard delivery costs 9.95 euros.", passages, minilm).dropped


def test_a_quote_of_two_sentences_stays_one(minilm: MiniLMEmbedder) -> None:
    passage = Passage(1, "a.md", "Phone", "Our phone line is open all day. Call us.", 0.9, start=100)
    checked = check_answer("Our phone line is open all day. Call us.", [passage], minilm)
    assert checked.dropped == ()
    assert [(c.start, c.end) for c in checked.citations] == [(100, 140)]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("I do not know.", True),
        ("Water damage is not covered by the warranty.", False),
        ("No information is shared with third parties.", False),
        ("There is no information about that.", True),
        ("I have no information on this.", True),
        ("The passages do not mention the weight of the lamp.", True),
        ("This is not stated in the documents.", True),
        ("The lamp does not contain mercury.", False),
        ("You cannot return pillows.", False),
        ("I'm sorry, but I do not know, so please contact us.", True),
        ("The passages, however, do not mention it; I cannot say, though.", True),
        ("I do not know yet whether you can do so online.", True),
        ("I'm not sure about the fee, but returns are free for 90 days.", False),
        ("I'm not sure about the fee, but returns are always free.", False),
        ("The passages do not mention a fee; returns are free.", False),
        ("I do not know the fee of thirty euros.", False),
        ("Returns are always free, but I'm not sure about the fee.", False),
        ("Yes, you can, but I'm not sure.", False),
        ("I do not know the fee, and returns are always free.", False),
        ("Returns are always free, and the fee is not mentioned in the passages.", False),
        ("The price of the lamp is not mentioned in the passages.", True),
        ("Unfortunately, based on the passages above, I cannot say.", True),
        ("I'm afraid that I do not know.", True),
        ("I looked in the documents, but I could not find it.", True),
        ("Sorry, I do not know, and the documents do not tell.", True),
    ],
)
def test_refusals(sentence: str, expected: bool) -> None:
    assert is_refusal(sentence) is expected


def test_a_citation_has_the_page_of_its_quote(minilm: MiniLMEmbedder) -> None:
    text = "Lamps are tested at night. Rugs are beaten in the yard."
    passage = Passage(1, "a.pdf", "Care", text, 0.9, 2, 50, 50 + len(text), ((50, 2), (77, 3)))
    checked = check_answer("Rugs are beaten in the yard.", [passage], minilm)
    assert [(c.page, c.start) for c in checked.citations] == [(3, 77)]


@pytest.mark.parametrize(
    ("sentence", "passage", "expected"),
    [
        ("It lasts one year.", "It lasts two years.", True),
        ("It lasts one year.", "It lasts a year.", False),
        ("It costs 5 euros a month.", "5 euros per month", False),
        ("within four hours", "within twenty-four hours", True),
        ("within 24 hours", "within twenty-four hours", False),
        ("for 250 days", "for two hundred and fifty days", False),
        ("from 1,500 items on", "from one thousand five hundred items on", False),
        ("three years", "one or two years", True),
        ("at 18 °C", "at \N{MINUS SIGN}18 °C", True),
        ("at 18 °C", "at -18 °C", True),
        ("5 % off", "-5 %", False),
        ("4 Euro", "4.000 Euro", True),
        ("1,234.50 euros", "1.234,50 Euro", False),
        ("14天", "30天", True),
        ("30天", "退货期限为30天", False),
        ("am 1. April", "am 1. Mai", True),
        ("on 1 May", "am 1. Mai", False),
        ("within 30 days", "innerhalb von 30 Tagen", False),
        ("The fee is €1.", "There is a €5 fee.", True),
        ("The fee is $5.", "There is a €5 fee.", True),
        ("The discount is 5 %.", "There is a €5 discount.", True),
        ("You can cancel within 1 month.", "It costs €5 a month.", True),
        ("You can cancel within 1 month.", "It costs 5 euros a month.", True),
        ("You can cancel within 1 month.", "You can cancel within a month.", False),
        ("You get one €5 voucher.", "Each customer gets a single €5 voucher.", False),
        ("It takes 1 to 3 days.", "It takes one to three days.", False),
    ],
)
def test_numbers_of_other_forms(sentence: str, passage: str, expected: bool) -> None:
    assert contradicts(sentence, passage) is expected


def quotes_of(text: str) -> list[str]:
    return [quote.text for quote in passage_quotes(Passage(1, "a.md", "A", text, 1.0))]


def test_a_lead_in_holds_for_every_line_of_its_list_and_for_all_that_a_line_says() -> None:
    lines = "- Water damage. Keep the lamp dry.\n- Broken glass of the shade\nAsk us first."
    text = f"The warranty does not cover:\n{lines}"
    assert quotes_of(text) == [
        "The warranty does not cover: Water damage. Keep the lamp dry.",
        "The warranty does not cover: Broken glass of the shade",
        "Ask us first.",
    ]
    assert quotes_of("You return it so:\n1. Print the label.\n2. Pack the item.") == [
        "You return it so: 1. Print the label.",
        "You return it so: 2. Pack the item.",
    ]
    long = f"It does not cover:\n- Water damage. {'It is dry. ' * 40}\n- Broken glass of it"
    assert quotes_of(long)[0] == "It does not cover: Water damage."
    assert quotes_of(long)[1].startswith("It is dry.")
    assert quotes_of(long)[-1] == "It does not cover: Broken glass of it"


def test_only_what_the_document_says_names_columns() -> None:
    """A chunk may begin anywhere in a table: its first row is no header because it has no number."""
    rows = Passage(1, "a.md", "Delivery", "LandEc | on request | by ship\nLandFc | €57 | 57 days", 1.0)
    assert quotes_of(rows.text) == ["LandEc: on request, by ship", "LandFc: €57, 57 days"]
    prose = "Run agentkit export | gzip > a.gz. The file has all sessions. Ask our support team."
    assert quotes_of(prose)[1:] == ["The file has all sessions.", "Ask our support team."]
    named = "Service ¦ Speed ¦ Price\nExpress | Tomorrow. Before noon | €9"
    assert quotes_of(named) == ["Express: speed Tomorrow. Before noon, price €9"]


def test_a_line_with_bars_is_no_row_of_a_table() -> None:
    assert quotes_of("cat app.log | grep ERROR") == ["cat app.log | grep ERROR"]


def test_names_of_columns_within_a_sentence() -> None:
    assert quotes_of("Model ¦ USB ports ¦ Delivery\nHub A | 4 | 3 days") == [
        "Hub A: USB ports 4, delivery 3 days"
    ]
    german = "Modell ¦ Preis ¦ Lieferzeit\nLund | 20 Euro | drei Tage nach der Bestellung\nOslo | 30 Euro | –"
    assert quotes_of(german)[1] == "Oslo: Preis 30 Euro"


def test_chinese_sentences_stay_apart() -> None:
    assert quotes_of("退货期限为30天。运费由客户承担。") == ["退货期限为30天。", "运费由客户承担。"]


def test_japanese_lead_ins() -> None:
    quotes = quotes_of("次の商品は返品できません：\n- 開封済みの商品")
    assert quotes == ["次の商品は返品できません： 開封済みの商品"]


def test_own_words_without_spaces_are_supported() -> None:
    """By pairs of characters; MiniLM tells Chinese texts apart by little else."""
    assert stems("在30天内退货") == {"在", "30", "天内", "内退", "退货"}
    assert not contradicts("３０日以内に返品", "返品は30日以内に可能です。")
    assert contradicts("３０日以内に返品", "返品は14日以内に可能です。")


def test_steps_keep_their_numbers(minilm: MiniLMEmbedder) -> None:
    steps = Passage(1, "a.md", "Returns", "Open your account settings. Choose returns. Print the label.", 1.0)
    said = "1. Go to your account settings and open them.\n2) Choose returns.\n3. Pay a fee of 9 euros."
    checked = check_answer(said, [steps], minilm)
    assert checked.text == "1. Go to your account settings and open them. [1]\n2) Choose returns. [2]"
    assert checked.dropped == ("Pay a fee of 9 euros.",)
    listed = Passage(1, "a.md", "Returns", "1. Open your account settings.\n2. Choose returns.", 1.0)
    assert passage_quotes(listed)[0].text == "1. Open your account settings."
    checked = check_answer("1. Open your account settings.", [listed], minilm)
    assert (checked.text, checked.citations[0].score) == ("1. Open your account settings. [1]", 1.0)


def test_brackets_of_a_passage_are_no_footnotes(minilm: MiniLMEmbedder) -> None:
    text = "Use items[0] to get the first entry of a page."
    checked = check_answer(f"{text} Really [7].", [Passage(1, "a.md", "Pages", text, 1.0)], minilm)
    assert checked.text.startswith(f"{text} [1]")
    assert "[7]" not in checked.text


def test_a_sentence_of_two_documents_is_cited_from_the_one_that_is_asked_about(
    minilm: MiniLMEmbedder,
) -> None:
    shared = "Delivery is free of charge for members."
    passages = [
        Passage(1, "oslo.md", "Oslo desk", f"{shared} The desk is made of oak.", 1.0),
        Passage(2, "lund.md", "Lund lamp", f"{shared} The lamp is made of brass.", 0.9),
    ]
    asked = alone("Is delivery of the Lund lamp free?")
    answer = grounded(shared, asked, passages, minilm)
    assert [citation.document for citation in answer.citations] == ["lund.md"]


def test_a_refusal_stays_one_whatever_follows_it(minilm: MiniLMEmbedder) -> None:
    said = "I'm sorry, but the passages do not mention gift wrapping. You can contact our support team for details."
    answer = grounded(said, alone("Do you wrap gifts?"), PASSAGES, minilm)
    assert (answer.text, answer.citations) == ("", ())
    assert [notice.code for notice in answer.notices] == ["unsupported_sentence"]


def test_german(minilm: MiniLMEmbedder) -> None:
    free = Passage(1, "a.md", "Rückgabe", "Die Rückgabe ist nicht kostenlos.", 1.0)
    assert check_answer("Die Rückgabe ist kostenlos.", [free], minilm).citations == ()
    assert is_refusal("Das weiß ich leider nicht.")
    assert is_refusal("Dazu kann ich leider nichts sagen.") is False
    assert is_refusal("Das kann ich leider nicht sagen.")
    assert not is_refusal("Das kann ich nicht empfehlen.")
    assert not is_refusal("Das weiß ich nicht, aber die Rückgabe kostet 5 Euro.")


@pytest.mark.parametrize("mark", ["-", "•", "*", "–", "▪", "1.", "(2)", "a)"])
def test_the_items_of_a_list_may_have_any_mark(mark: str) -> None:
    text = f"The warranty does not cover:\n{mark} water damage from rain\n{mark} scratches and dents from use"
    kept = f"{mark} " if mark[-1] in ".)" else ""
    assert quotes_of(text) == [
        f"The warranty does not cover: {kept}water damage from rain",
        f"The warranty does not cover: {kept}scratches and dents from use",
    ]


def test_lead_ins_of_lists_within_lists() -> None:
    items = ["Outside the EU:", "Standard: 9 euros", "Inside the EU:", "Standard: 4 euros"]
    nested = "- {}\n  - {}\n- {}\n  - {}".format(*items)
    deep = ["Outside the EU: Standard: 9 euros", "Inside the EU: Standard: 4 euros"]
    assert quotes_of(f"{nested}\n- Pickup in the shop is free") == [*deep, "Pickup in the shop is free"]
    led = [f"We deliver: {quote}" for quote in deep]
    assert quotes_of(f"We deliver:\n{nested}") == led
    flat = "- {}\n- {}\n- {}\n- {}".format(*items)  # a PDF shows no depth
    assert quotes_of(flat) == deep
    assert quotes_of(f"We deliver:\n{flat}") == led
    assert quotes_of(f"{flat}\nAsk us for other countries.")[-1] == "Ask us for other countries."


@pytest.mark.parametrize(
    "quotes",
    [
        (
            "standard delivery takes 3 to 5 working days",
            "express delivery takes 1 working day and costs 9 euros",
        ),
        ("Pillows: returnable No", "Lamps: returnable within 14 days"),
        ("Mo–Fr: 9 bis 18", "Sa: 10 bis 16"),
        ("we make sizes S, M and L", "they cost 25 euros each"),
        ("Is the frame included in the price? Yes", "Lamps: returnable within 14 days"),
    ],
)
def test_quotes_are_known_again_however_they_end(quotes: tuple[str, str], minilm: MiniLMEmbedder) -> None:
    passage = Passage(1, "a.md", "Delivery", "\n".join(quotes), 1.0)
    found = check_answer(". ".join(quotes) + ".", [passage], minilm)
    assert found.text == f"{quotes[0]}. [1] {quotes[1]}. [2]"
    assert [citation.score for citation in found.citations] == [1.0, 1.0]
    assert found.dropped == ()


def test_a_quote_within_a_longer_sentence_is_none(minilm: MiniLMEmbedder) -> None:
    passage = Passage(1, "a.md", "Returns", "Returns are free\nIt costs 4", 1.0)
    answer = check_answer("Returns are free for members of our club. It costs 4.50 euros.", [passage], minilm)
    assert "Returns are free. [" not in answer.text
    assert "It costs 4.50 euros." in answer.dropped


def test_may_is_mostly_no_month() -> None:
    assert not contradicts("Customers over 18 may order wine.", "You must be 18 to order wine.")
    assert contradicts("It ends on 18 May.", "It ends on 18 June.")


@pytest.mark.parametrize(
    "sentence",
    ["Ich weiß es leider nicht.", "Ich kann das nicht beantworten.", "Das tut mir leid, das weiß ich nicht."],
)
def test_german_refusals(sentence: str) -> None:
    assert is_refusal(sentence)
