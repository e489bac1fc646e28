"""TensorZero's HTTP gateway, which its wheel holds without a command: CONFIG URL-FILE."""

import signal
import sys

import tensorzero

config, url_file = sys.argv[1:]
gateway = tensorzero._start_http_gateway(
    config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
with open(url_file + ".part", "w") as file:
    file.write(gateway.base_url)
import os

os.rename(url_file + ".part", url_file)
signal.pause()
