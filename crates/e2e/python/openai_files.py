"""openai-python: files up, listed, down and deleted; what the server behind was sent is compared by the test."""

import os

import openai

from harness import URL, run

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=60)
SIZE = int(os.environ["SIZE"])


def check_a_file_is_sent():
    content = bytes(i % 251 for i in range(4096)) * (SIZE // 4096)
    sent = client.files.create(file=("large.jsonl", content), purpose="batch")
    assert sent.id == "file-1", sent


def check_files_are_asked_for():
    assert [file.id for file in client.files.list()] == ["file-1"]
    assert client.files.content("file-1").read() == b"0123456789"


def check_a_recording_names_its_model():
    heard = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF" * 9000))
    assert heard.text == "hi", heard


run(globals())
