"""openai against upstreams that answer well, refuse, fall silent and break off: each reaches the caller as what it is."""

import openai
from openai import OpenAI

from harness import URL, raises, run

client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
MESSAGES = [{"role": "user", "content": "say"}]


def check_whole_answers():
    answer = client.chat.completions.create(model="plain", messages=MESSAGES)
    assert answer.choices[0].message.content == "whole"


def check_streams():
    stream = client.chat.completions.create(model="streaming", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content for chunk in stream) == "hello"


def check_a_cut_stream_raises():
    stream = client.chat.completions.create(model="cut", messages=MESSAGES, stream=True)
    said = []

    def read():
        for chunk in stream:
            said.append(chunk.choices[0].delta.content)

    error = raises(Exception, read)
    assert said == ["hel"], said
    print(f"  a cut stream raises {type(error).__name__}: {error}")


def check_a_refusal_is_the_upstreams():
    error = raises(
        openai.BadRequestError, lambda: client.chat.completions.create(model="refusing", messages=MESSAGES)
    )
    assert (error.code, error.param) == ("context_length_exceeded", "messages"), error.body


def check_silence_ends_at_the_clients_deadline():
    call = lambda: client.with_options(timeout=1.0).chat.completions.create(model="silent", messages=MESSAGES)
    raises((openai.APITimeoutError, openai.InternalServerError), call)
    call = lambda: client.chat.completions.create(
        model="silent", messages=MESSAGES, extra_headers={"x-request-timeout-ms": "300"}
    )
    error = raises(openai.InternalServerError, call)
    assert error.status_code == 504 and error.type == "server_error", error.body


def check_unknown_models():
    error = raises(openai.NotFoundError, lambda: client.chat.completions.create(model="nope", messages=MESSAGES))
    assert error.code == "model_not_found" and error.param == "model", error.body
    assert error.request_id


run(globals())
