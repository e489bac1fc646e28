"""openai against a real llama.cpp server behind kapok."""

from openai import OpenAI

from harness import URL, run

MODEL = "smollm2-135m-instruct"
client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=120)
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def check_whole_answer():
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16, temperature=0)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.usage.completion_tokens > 0


def check_stream():
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "Paris" in "".join(pieces), pieces
    assert len(pieces) > 2, "it came in pieces"
    assert chunks[-1].usage.completion_tokens > 0


def check_completions():
    answer = client.completions.create(model=MODEL, prompt="1, 2, 3, 4,", max_tokens=6, temperature=0)
    assert "5" in answer.choices[0].text, answer


def check_a_stream_that_is_left():
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=400, stream=True
    )
    next(iter(stream))
    stream.close()
    check_whole_answer()


run(globals())
