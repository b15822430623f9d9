from __future__ import annotations

import json

import pytest

from agentkit.messages import Message, ToolCall
from agentkit.training.personal import Redactor, conversation_of, house_values, is_card, is_iban


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to Ada.B+shop@mail.example.co.uk!", "Write to [EMAIL_1]!"),
        ("ü.mann@bücher.example, or ab@c.de.", "[EMAIL_1], or [EMAIL_2]."),
        ("Call +44 20 7946 0958 now", "Call [PHONE_1] now"),
        ("(020) 7946 0958 or 0171/1234567", "[PHONE_1] or [PHONE_2]"),
        ("555-010-4477, (555) 010 4477, 0049 30 901820", "[PHONE_1], [PHONE_1], [PHONE_2]"),
        ("tel:+353-1-496-0123.", "tel:[PHONE_1]."),
        ("Please call me back on 07911123456.", "Please call me back on [PHONE_1]."),
        (
            "My phone number is 5550104477, mobile: 491711234567",
            "My phone number is [PHONE_1], mobile: [PHONE_2]",
        ),
        ("Ring 0301 123456 0171 2345678", "Ring [PHONE_1] [PHONE_2]"),
        ("555-010-4477 555-010-4478", "[PHONE_1] [PHONE_2]"),
        ("(020) 7946 0958 (020) 7946 0959", "[PHONE_1] [PHONE_2]"),
        ("+49 30 123456 0171 2345678 0172 345678", "[PHONE_1] [PHONE_2] [PHONE_3]"),
        ("IBAN DE89 3704 0044 0532 0130 00, please", "IBAN [IBAN_1], please"),
        ("gb82west12345698765432", "[IBAN_1]"),
        ("card 4111 1111 1111 1111 and 378282246310005", "card [CARD_1] and [CARD_2]"),
        ("from 192.0.2.17 and 2001:db8::ff00:42", "from [IP_1] and [IP_2]"),
        ("Your address is 2001:db8::ff00:42.", "Your address is [IP_1]."),
        ("_ada@mail.example_ or bob@mail.example- thanks", "[EMAIL_1]_ or [EMAIL_2]- thanks"),
        ("4111\u00a01111\u00a01111\u00a01111, +44\u202f20\u202f7946\u202f0958", "[CARD_1], [PHONE_1]"),
        ("+44\u201120\u20117946\u20110958", "[PHONE_1]"),
        ("Ring me at 9 +44 20 7946 0958", "Ring me at 9 [PHONE_1]"),
        ("Visa-4111111111111111", "Visa-[CARD_1]"),
        (
            "as to [EMAIL_1]: bob@mail.example, then ann@mail.example",
            "as to [EMAIL_1]: [EMAIL_2], then [EMAIL_3]",
        ),
    ],
)
def test_personal_data_is_replaced(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Order 1042 of 2026-11-25 14:30:05, sent on 01.02.2026 10:30",
        "Tracking number 00340434161094042557, invoice 2026-0001-4477",
        "It costs 1,234,567.89 euros; 4111 1111 1111 1112 is no card",
        "Version 1.2.3, section 4.1.1.2.7, 999.1.1.1, at 10:30 or 10:30:00",
        "@ada, a @ b, user@localhost, 12@34",
        "DE89 3704 0044 0532 0130 01 has a wrong check digit",
        "1700000000000 ms, 3.14159265358979, 0.5, 007, 0-0, x::y, std::vector, ::",
        "ISBN 978-3-16-148410-0 and 2,000,000 or 2.000.000",
        "I call about order 5550104477; the text says 123456789 items",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    redactor = Redactor()
    assert redactor.text(text) == text
    assert not redactor.counts


def test_check_digits() -> None:
    assert is_card("4111111111111111")
    assert is_card("6200000000000005")  # UnionPay
    assert is_card("2202000000000002")  # Mir
    assert is_card("6759000000005")  # Maestro
    assert not is_card("4111111111111112")
    assert not is_card("1234567812345670")  # right by Luhn, but of no brand
    assert is_iban("DE89 3704 0044 0532 0130 00")
    assert not is_iban("DE88370400440532013000")


def test_one_value_has_one_placeholder_in_a_chat() -> None:
    redactor = Redactor()
    messages = [
        Message("user", "I am ada@mail.example, card 4111 1111 1111 1111"),
        Message(
            "assistant",
            "",
            (ToolCall("1", "pay", {"to": {"mail": ["ADA@mail.example"]}, "card": 4111111111111111}),),
        ),
        Message("tool", '{"result": {"ada@mail.example": 4111111111111111, "n": 5}}', (), "1", "pay"),
        Message("tool", '{"result":  7}', (), "1", "pay"),
        Message("assistant", "Sent to ada@mail.example, not to bob@mail.example."),
    ]
    user, call, result, plain, answer = (redactor.message(message) for message in messages)
    assert user.content == "I am [EMAIL_1], card [CARD_1]"
    assert call.tool_calls[0].arguments == {"to": {"mail": ["[EMAIL_1]"]}, "card": "[CARD_1]"}
    assert result.content == '{"result": {"[EMAIL_1]": "[CARD_1]", "n": 5}}'
    assert plain.content == '{"result":  7}'
    assert answer.content == "Sent to [EMAIL_1], not to [EMAIL_2]."
    assert dict(redactor.counts) == {"EMAIL": 5, "CARD": 3}


def test_a_key_tells_a_phone_number() -> None:
    redactor = Redactor()
    given = {
        "phone": "07911123456",
        "contactPhone": 5550104477,
        "tel_no": "491711234567",
        "phones": ["07911123456"],
    }
    assert redactor.value(given) == {
        "phone": "[PHONE_1]",
        "contactPhone": "[PHONE_2]",
        "tel_no": "[PHONE_3]",
        "phones": ["[PHONE_1]"],
    }
    others = {"order": "07911123457", "phone": "yes", "hotel": 5550104478, "phone_calls": True, "tel": None}
    assert redactor.value(others) == others


def test_a_known_phone_number_is_replaced_without_its_separators() -> None:
    redactor = Redactor()
    messages = [
        Message("user", "Call 020 7946 0958 or +44 20 7946 0959"),
        Message("assistant", "", (ToolCall("1", "dial", {"phone": "02079460958", "n": "442079460959"}),)),
        Message("tool", '{"dialled": "02079460958", "order": "102079460958", "ticket": "0207946095"}'),
    ]
    user, call, result = (redactor.message(message) for message in messages)
    assert user.content == "Call [PHONE_1] or [PHONE_2]"
    assert call.tool_calls[0].arguments == {"phone": "[PHONE_1]", "n": "[PHONE_2]"}
    assert result.content == '{"dialled": "[PHONE_1]", "order": "102079460958", "ticket": "0207946095"}'
    assert dict(redactor.counts) == {"PHONE": 5}
    assert Redactor().text("order 02079460958") == "order 02079460958"


def test_a_result_that_spells_half_a_character_can_still_be_written() -> None:
    message = Message("tool", '{"to": "ada@mail.example", "said": "\\ud800"}', (), "1", "pay")
    assert Redactor().message(message).content == '{"to": "[EMAIL_1]", "said": "\\ud800"}'


def test_the_contacts_of_the_house_stay() -> None:
    chat, second, third = (
        [Message("user", f"Where do I write{n}?"), Message("assistant", "To help@shop.example")]
        for n in ("", " to", " it")
    )
    own = [Message("user", "I am ada@mail.example"), Message("assistant", "Thanks, ada@mail.example")]
    assert house_values([chat, second, *[own] * 5]) == frozenset()
    assert house_values([chat, second, third, *[own] * 5]) == {("EMAIL", "help@shop.example")}
    prompt = Message("system", "Callers reach us at +353 1 496 0123.")
    kept = house_values([[prompt, *chat]])
    assert kept == {("PHONE", "+35314960123")}
    assert Redactor(kept).text("+353 1 496 0123 or +353 1 496 0124") == "+353 1 496 0123 or [PHONE_1]"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("4111 1111 1111 1111 12/27", "[CARD_1] 12/27"),
        ("4111111111111111 123", "[CARD_1] 123"),
        ("order 1234 4111 1111 1111 1111 it is", "order 1234 [CARD_1] it is"),
        ("BE68 5390 0754 7034 please refund", "[IBAN_1] please refund"),
        ("ES9121000418450200051332 is mine", "[IBAN_1] is mine"),
        ("AT61 1904 3002 3457 3201 danke", "[IBAN_1] danke"),
        ("06-12-34-56-78", "[PHONE_1]"),
        ("06.12.34.56.78", "[PHONE_1]"),
        ("+33 6.12.34.56.78", "[PHONE_1]"),
        ("1 (555) 010-4477, 1-555-010-4477", "[PHONE_1], [PHONE_1]"),
        ("(555)-010-4477 or 555 010 4477", "[PHONE_1] or [PHONE_1]"),
        ("+49 151 12345678", "[PHONE_1]"),
        (
            "on 2024-01-15 10-12, 01.02.2024 08, 05-06-2024 10",
            "on 2024-01-15 10-12, 01.02.2024 08, 05-06-2024 10",
        ),
    ],
)
def test_numbers_are_found_whatever_stands_behind_them(text: str, clean: str) -> None:
    assert Redactor().text(text) == clean


def test_what_stands_in_few_system_prompts_is_a_customers() -> None:
    chats = [
        [
            Message("system", f"Help cust{n}@mail.example. We are shop@shop.example."),
            Message("user", f"Hi {n}"),
        ]
        for n in range(5)
    ]
    assert house_values(chats) == {("EMAIL", "shop@shop.example")}


def test_beginnings_of_one_conversation_count_once() -> None:
    said = [Message("user", "Hi"), Message("assistant", "Is it ann@mail.example?"), Message("user", "Yes")]
    more = [*said, Message("assistant", "Noted: ann@mail.example"), Message("user", "Bye")]
    assert house_values([said[:2], said, more, more]) == frozenset()


def test_a_greeting_does_not_make_chats_one_conversation() -> None:
    def chat(n: int, *first: Message) -> list[Message]:
        system = Message("system", f"The customer is cust{n}@mail.example.")
        told = Message("assistant", "Write to shop@shop.example for that.")
        return [system, *first, Message("user", f"How do I send parcel {n} back?"), told]

    for first in (
        [Message("assistant", "How can I help?")],
        [Message("user", "Hi"), Message("assistant", "Hello!")],
    ):
        assert house_values([chat(n, *first) for n in range(5)]) == {("EMAIL", "shop@shop.example")}
        assert len({conversation_of(chat(n, *first)) for n in range(5)}) == 5


def test_the_ends_of_lines_in_a_result_are_no_part_of_an_address() -> None:
    result = json.dumps({"result": "Contact:\nanna@example.com"})
    chats = [
        [
            Message("user", f"Who is customer {n}?"),
            Message("tool", result, tool_call_id="c", name="find"),
            Message("assistant", f"Number {n} is anna@example.com."),
        ]
        for n in range(6)
    ]
    assert house_values(chats) == frozenset()
