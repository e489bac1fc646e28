"""anthropic against an upstream that speaks Anthropic's protocol, behind kapok."""

import anthropic
from anthropic import Anthropic

from harness import URL, raises, run

MODEL = "claude-test"
client = Anthropic(base_url=URL, api_key="sk-clients", max_retries=0, timeout=30)
QUESTION = {"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": "Who?"}]}


def check_messages():
    answer = client.messages.create(**QUESTION)
    assert answer.content[0].text == "kapok", answer
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 2), answer.usage


def check_streaming():
    with client.messages.stream(**QUESTION) as stream:
        pieces = list(stream.text_stream)
        whole = stream.get_final_message()
    assert pieces == ["ka", "pok"], pieces
    assert whole.content[0].text == "kapok" and whole.usage.output_tokens == 2, whole


def check_count_tokens():
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION["messages"])
    assert counted.input_tokens == 3, counted


def check_models():
    # The upstream lists its own; another one's list is written down.
    ids = [model.id for model in client.models.list(limit=1)]
    assert ids == ["claude-listed", MODEL], ids
    model = client.models.retrieve(MODEL)
    assert (model.type, model.id, model.display_name) == ("model", MODEL, MODEL), model
    assert model.created_at.year >= 2026, model
    unknown = raises(anthropic.NotFoundError, lambda: client.models.retrieve("nobody"))
    assert unknown.body["type"] == "error" and unknown.body["error"]["type"] == "not_found_error", unknown.body


def check_errors():
    refused = raises(anthropic.BadRequestError, lambda: client.messages.create(**{**QUESTION, "max_tokens": 0}))
    assert refused.body["error"]["message"] == "max_tokens: too small", refused.body
    busy = raises(anthropic.APIStatusError, lambda: client.messages.create(**{**QUESTION, "max_tokens": 529}))
    assert busy.status_code == 529 and busy.body["error"]["type"] == "overloaded_error", busy.body


def check_a_stream_that_is_cut():
    def read():
        with client.messages.stream(**{**QUESTION, "max_tokens": 7}) as stream:
            return list(stream.text_stream)

    cut = raises(anthropic.APIStatusError, read)
    assert cut.body["type"] == "error", cut.body


run(globals())
