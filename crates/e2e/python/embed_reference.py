"""Embeddings against a reference computed here from the fp32 weights: BERT's forward pass in NumPy.

The architecture is MiniLM-L6 (6 layers, 12 heads, hidden 384), mean pooling over the tokens that are not padding, length 1.
"""

import json
import os

import numpy as np
from openai import OpenAI
from tokenizers import Tokenizer

from harness import URL, run

LAYERS, HEADS, EPSILON, TOKENS_MAX = 6, 12, 1e-12, 256
KINDS = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def load(path):
    """A safetensors file: 8 bytes of length, a JSON header, then the data."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], KINDS[entry["dtype"]]).reshape(entry["shape"])
        tensors[name.removeprefix("bert.")] = array.astype(np.float32) if array.dtype.kind == "f" else array
    return tensors


def erf(x):
    """Abramowitz and Stegun 7.1.26, off by at most 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


class Reference:
    def __init__(self, weights, tokenizer):
        self.weights = load(weights)
        self.tokenizer = Tokenizer.from_file(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + EPSILON) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name, x):
        count, width = x.shape
        split = lambda part: self.linear(f"{name}.self.{part}", x).reshape(count, HEADS, -1).transpose(1, 0, 2)
        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(width / HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(count, width)
        return self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", mixed) + x)

    def embed(self, text):
        ids = self.tokenizer.encode(text).ids
        weights = self.weights
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = self.norm("embeddings.LayerNorm", x)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self.attention(f"{name}.attention", x)
            inner = self.linear(f"{name}.intermediate.dense", x)
            inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
            x = self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", inner) + x)
        vector = x.mean(0)
        return vector / np.linalg.norm(vector), len(ids)


WORDS = (
    "kapok trees grow tall in the warm south and open red flowers before their leaves while the river carries "
    "cotton from the pods past houses markets bridges and schools where children count birds"
).split()


def sentences():
    short = [
        "a", "Kapok", "42", "?", "...", "!!! what ???", "don't", "C++ & Rust", "x = y ** 2", "e-mail: a@b.example",
        "The capital of France is Paris.", "A man is eating food.", "The girl is carrying a baby.",
        "Someone in a gorilla costume is playing drums.", "How do I reset my password?", "i forgot my login",
        "木棉花开了。", "广州市花是木棉，也叫红棉。", "今天天气很好，我们去公园散步吧！", "東京は日本の首都です。",
        "서울은 한국의 수도입니다.", "Москва — столица России.", "القاهرة عاصمة مصر", "Ελλάδα και Κύπρος",
        "naïve café résumé — ¡señor!", "e\u0301 combines, \u00e9 does not", "İstanbul'da ŞUBAT", "ﬁne ligatures ① ½ ™",
        "😀", "I ❤️ 🌳🌲🌴 and 👩‍👩‍👧", "zero\u200bwidth\u00a0spaces", "tab\tand\nnewline\r\nhere", "  padded  ",
        "CamelCaseIdentifiersAreSplitIntoPieces", "supercalifragilisticexpialidocious", "https://kapok.dev/a?b=c#d",
        "SELECT name FROM trees WHERE height > 10;", "fn main() { println!(\"hi\"); }", "3.14159 × 2 ≈ 6.28318", "\u0000nul",
    ]
    lengths = [12, 30, 60, 100, 126, 127, 128, 200, 254, 400]
    return short + [" ".join(WORDS[n % len(WORDS)] for n in range(start, start + count)) for start, count in enumerate(lengths)]


def check_cosines():
    texts = sentences()
    assert len(texts) == 50, len(texts)
    reference = Reference(os.environ["WEIGHTS"], os.environ["TOKENIZER"])
    wanted, counts = zip(*(reference.embed(text) for text in texts))
    wanted = np.array(wanted)
    assert min(counts) <= 3 and max(counts) == TOKENS_MAX, counts
    client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=300)
    for model, least in (("all-minilm-l6-v2", 0.999), ("all-minilm-l6-v2-int8", 0.98)):
        found = []
        # Alone and in company: padding must not show.
        for batch in (texts[:1], texts[1:20], texts[20:40], texts[40:]):
            answer = client.embeddings.create(model=model, input=batch)
            found += [entry.embedding for entry in answer.data]
        cosines = (np.array(found) * wanted).sum(-1)
        worst = int(cosines.argmin())
        print(f"  {model}: cosine min {cosines.min():.6f} ({counts[worst]} tokens), mean {cosines.mean():.6f}")
        assert cosines.min() >= least, (texts[worst], cosines[worst])


run(globals())
