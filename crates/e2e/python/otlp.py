"""kapok's spans and metrics in real collectors. oteltap shows what it gets over HTTP; rotel takes gRPC and passes it on.

`OTLP_PORT` is where kapok sends to, `OTLP_PROTOCOL` how.
"""

import gzip
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import requests
import rotel
from harness import URL, run, within

PORT = os.environ["OTLP_PORT"]
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
PATIENCE = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Unpacker(http.server.BaseHTTPRequestHandler):
    """rotel packs what it sends whatever it is told, and oteltap cannot unpack it."""

    to = ""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        answer = requests.post(self.to + self.path, data=body, headers={"content-type": "application/x-protobuf"}, timeout=PATIENCE)
        self.send_response(answer.status_code)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Collector:
    """Keeps every span and metric, as the protocol's JSON."""

    def __init__(self, stack):
        self.items = []
        if os.environ["OTLP_PROTOCOL"] == "grpc":
            shown = free_port()
            Unpacker.to = f"http://127.0.0.1:{shown}"
            between = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unpacker))
            threading.Thread(target=between.serve_forever, daemon=True).start()
            stack.callback(between.shutdown)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            command = [Path(rotel.__file__).parent / "rotel-agent", "start", "--pid-file", f"{folder}/pid"]
            command += ["--otlp-grpc-endpoint", f"127.0.0.1:{PORT}", "--otlp-http-endpoint", f"127.0.0.1:{free_port()}"]
            command += ["--exporter", "otlp", "--otlp-exporter-protocol", "http"]
            command += ["--otlp-exporter-endpoint", f"http://127.0.0.1:{between.server_port}", "--batch-timeout", "100ms"]
            self.start(stack, command)
        else:
            shown = PORT
        tap = self.start(stack, [sys.executable, "-u", "-m", "oteltap", "--port", str(shown)])
        threading.Thread(target=self.read, args=(tap.stdout,), daemon=True).start()

    @staticmethod
    def start(stack, command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return process

    def read(self, lines):
        for line in lines:
            if line.startswith("{"):
                self.items.append(json.loads(line))

    def spans(self):
        return [item for item in self.items if item.get("traceId") == TRACE]

    def metrics(self, name):
        return [item for item in self.items if item.get("name") == name and "traceId" not in item]


def said(attributes):
    def plain(value):
        if "arrayValue" in value:
            return [plain(each) for each in value["arrayValue"]["values"]]
        if "intValue" in value:
            return int(value["intValue"])
        return next(iter(value.values()))

    return {pair["key"]: plain(pair["value"]) for pair in attributes}


def chat():
    return requests.post(
        f"{URL}/v1/chat/completions",
        json={"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]},
        headers={
            "traceparent": f"00-{TRACE}-{PARENT}-01",
            "tracestate": "vendor=1",
            "baggage": "team=red",
            "x-request-id": "traced-1",
        },
        timeout=PATIENCE,
    )


def check_a_retried_stream_becomes_one_trace_and_its_metrics():
    with ExitStack() as stack:
        collector = Collector(stack)
        answer = chat()
        assert answer.text.endswith("data: [DONE]\n\n"), answer.text

        spans = within(PATIENCE, collector.spans, lambda spans: len(spans) >= 3)
        assert len(spans) == 3, spans
        [server] = [span for span in spans if span["parentSpanId"] == PARENT]
        attempts = [span for span in spans if span["parentSpanId"] == server["spanId"]]
        attempts.sort(key=lambda span: int(span["startTimeUnixNano"]))
        assert (server["name"], server["kind"], server["traceState"]) == ("chat m", 2, "vendor=1"), server
        about = said(server["attributes"])
        for name, value in {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": "m",
            "gen_ai.response.model": "m-0613",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 9,
            "gen_ai.usage.output_tokens": 3,
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "kapok.request.id": "traced-1",
            "kapok.target": "good",
        }.items():
            assert about.get(name) == value, (name, about)
        stages = sum(value for name, value in about.items() if name.startswith("kapok.stage."))
        length = (int(server["endTimeUnixNano"]) - int(server["startTimeUnixNano"])) / 1e9
        assert abs(stages - length) < 1e-4, (stages, length)

        refused, answered = attempts
        assert [span["kind"] for span in attempts] == [3, 3]
        assert refused["status"]["code"] == 2, refused
        for span, upstream, status, again in [(refused, "busy", 503, None), (answered, "good", 200, 1)]:
            about = said(span["attributes"])
            assert about["kapok.upstream"] == upstream, about
            assert about["http.response.status_code"] == status, about
            assert about.get("http.request.resend_count") == again, about
            assert about["server.address"] == "127.0.0.1" and about["server.port"] > 0, about
            assert [event["name"] for event in span["events"]] == ["connected", "first_byte"], span
            assert about["kapok.route.reason"], about

        for name, kind in [
            ("gen_ai.server.request.duration", "histogram"),
            ("gen_ai.server.time_to_first_token", "histogram"),
            ("gen_ai.server.time_per_output_token", "histogram"),
            ("gen_ai.client.operation.duration", "histogram"),
            ("gen_ai.client.token.usage", "histogram"),
            ("http.server.request.duration", "histogram"),
            ("http.client.request.duration", "histogram"),
            ("kapok_gateway_requests_total", "sum"),
            ("kapok_gateway_in_flight", "gauge"),
        ]:
            def points(name=name, kind=kind):
                found = collector.metrics(name)
                return found[-1].get(kind, {}).get("dataPoints") if found else None

            counted = within(PATIENCE, points, bool)
            if name.startswith("gen_ai"):
                assert said(counted[0]["attributes"])["gen_ai.request.model"] in ("m", "_OTHER"), counted
        usage = collector.metrics("gen_ai.client.token.usage")[-1]
        assert usage["unit"] == "{token}", usage
        sums = {said(point["attributes"])["gen_ai.token.type"]: point["sum"] for point in usage["histogram"]["dataPoints"]}
        assert sums == {"input": 9, "output": 3}, sums


run(globals())
