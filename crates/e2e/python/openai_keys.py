"""openai with keys: none, wrong, right, and right for another model."""

import openai
from openai import OpenAI

from harness import URL, raises, run

MESSAGES = [{"role": "user", "content": "say"}]


def ask(key, model):
    client = OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
    return client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES)


def check_keys():
    error = raises(openai.AuthenticationError, lambda: ask("sk-wrong", "allowed"))
    assert error.type == "authentication_error", error.body
    error = raises(openai.PermissionDeniedError, lambda: ask("sk-right", "forbidden"))
    assert "forbidden" in str(error), error.body
    assert ask("sk-right", "allowed").http_response.status_code == 200


run(globals())
