"""Starts llama.cpp's own OpenAI-compatible server, from the prebuilt package `xllamacpp`.

kapok starts this as a managed upstream (see the configuration that `cargo xtask demo` writes), asks `/health` until the
model is loaded, and stops it with SIGTERM.
"""

import argparse
import os
import signal
import sys

import xllamacpp


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="GGUF file; its own chat template is used")
    parser.add_argument("--alias", help="the name answers carry; default: the file's name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        # Two spinning threads on a busy two-core machine were measured 120 times slower than one.
        help="compute threads (default: 1)",
    )
    parser.add_argument("--context", type=int, default=2048, help="tokens per conversation (default: 2048)")
    parser.add_argument("--parallel", type=int, default=4, help="conversations at a time (default: 4)")
    return parser.parse_args()


def parameters(args: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.model_alias = {args.alias or os.path.basename(args.model)}
    params.hostnames = [args.host]
    params.port = args.port
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.n_parallel = args.parallel
    # llama.cpp divides the context among the conversations.
    params.n_ctx = args.context * args.parallel
    params.n_gpu_layers = 0
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 1
    return params


def main() -> None:
    args = arguments()
    stops = {signal.SIGTERM, signal.SIGINT}
    # Blocked here and in every thread the server makes, so that only the wait below sees them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    parent = os.getppid()
    server = xllamacpp.Server(parameters(args))
    print(f"llama.cpp serves {args.model} on {server.listening_address}", file=sys.stderr, flush=True)
    while signal.sigtimedwait(stops, 1.0) is None:
        if os.getppid() != parent:
            break  # whoever started this was killed: nobody is left to stop it
    # The server's threads hold nothing that outlives the process; waiting for open streams is the caller's business.
    os._exit(0)


if __name__ == "__main__":
    main()
