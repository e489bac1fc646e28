"""openai: embeddings in both encodings, the model list, and errors of the doors that kapok answers itself."""

import base64

import numpy as np
from openai import BadRequestError, NotFoundError, OpenAI

from harness import URL, raises, run

MODEL = "all-minilm-l6-v2"
client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)


def check_models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    error = raises(NotFoundError, lambda: client.models.retrieve("nope"))
    assert error.code == "model_not_found", error.body


def check_embeddings_of_one_and_many():
    one = client.embeddings.create(model=MODEL, input="kapok is a tree")
    many = client.embeddings.create(model=MODEL, input=["kapok is a tree", "the red silk-cotton tree", "a tax form"])
    assert [entry.index for entry in many.data] == [0, 1, 2]
    assert many.model == MODEL and many.object == "list"
    assert many.usage.prompt_tokens == many.usage.total_tokens > 3
    vectors = np.array([entry.embedding for entry in many.data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Padding beside longer texts changes nothing beyond rounding.
    np.testing.assert_allclose(one.data[0].embedding, vectors[0], atol=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def check_float_and_base64_agree():
    # The library asks for base64 by itself and decodes it.
    decoded = client.embeddings.create(model=MODEL, input="one text").data[0].embedding
    floats = client.embeddings.create(model=MODEL, input="one text", encoding_format="float").data[0].embedding
    encoded = client.embeddings.create(model=MODEL, input="one text", encoding_format="base64").data[0].embedding
    assert isinstance(floats[0], float) and isinstance(encoded, str)
    from_base64 = np.frombuffer(base64.b64decode(encoded), np.float32)
    np.testing.assert_array_equal(np.array(floats, np.float32), from_base64)
    np.testing.assert_array_equal(np.array(decoded, np.float32), from_base64)


def check_dimensions_shorten():
    short = client.embeddings.create(model=MODEL, input="one text", dimensions=64, encoding_format="float")
    vector = np.array(short.data[0].embedding)
    assert vector.shape == (64,)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)
    error = raises(BadRequestError, lambda: client.embeddings.create(model=MODEL, input="x", dimensions=10_000))
    assert error.param == "dimensions", error.body


def check_token_ids():
    # 101 and 102 frame a text in this vocabulary; ids are taken as they are.
    answer = client.embeddings.create(model=MODEL, input=[[101, 7592, 102], [101, 102]], encoding_format="float")
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 384


def check_errors():
    error = raises(NotFoundError, lambda: client.embeddings.create(model="nope", input="x"))
    assert error.code == "model_not_found" and error.request_id, error.body
    for wrong in ([], 7, [""] * 5000, [1.5], {"text": "x"}):
        error = raises(BadRequestError, lambda: client.embeddings.create(model=MODEL, input=wrong))
        assert error.param == "input", error.body
        assert error.type == "invalid_request_error", error.body
    call = lambda: client.embeddings.create(model=MODEL, input="x", encoding_format="hex")
    assert raises(BadRequestError, call).param == "encoding_format"


def check_the_request_id_is_the_servers():
    answer = client.embeddings.with_raw_response.create(model=MODEL, input="x")
    assert answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]


run(globals())
