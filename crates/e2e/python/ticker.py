"""A model server for tests of change: answers with its process id, or with a stream of numbered events.

Streams end, as they should, once there is a file `finish` beside this one's copy.
"""

import asyncio
import os
import sys

TICK_SECONDS = 0.2
PORT = int(sys.argv[1])
FINISH = sys.argv[2]
finish = asyncio.Event()


async def watch():
    while not os.path.exists(FINISH):
        await asyncio.sleep(0.02)
    finish.set()


async def read(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


async def stream(writer):
    def chunk(text):
        data = text.encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    number = 0
    while not finish.is_set():
        chunk('data: {"n":%d}\n\n' % number)
        number += 1
        await writer.drain()
        try:
            await asyncio.wait_for(finish.wait(), TICK_SECONDS)
        except asyncio.TimeoutError:
            pass
    chunk("data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def serve(reader, writer):
    try:
        while True:
            head, body = await read(reader)
            if b'"stream":true' in body:
                await stream(writer)
                continue
            answer = b'{"choices":[],"pid":%d}' % os.getpid()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(answer), answer)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    asyncio.create_task(watch())
    server = await asyncio.start_server(serve, "127.0.0.1", PORT, backlog=4096)
    async with server:
        await server.serve_forever()


asyncio.run(main())
