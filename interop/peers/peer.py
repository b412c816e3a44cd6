"""Python's websockets as client and as server: both send back what they get.

Orders come as lines of JSON on standard input, and reports go the same way to
standard output. When the input ends, so does the program.
"""

import asyncio
import base64
import json
import os
import sys

import websockets
from websockets.extensions import permessage_deflate

connections = {}
servers = {}


def report(**r):
    print(json.dumps(r), flush=True)


def settings(o, factory):
    """The options that client and server share."""
    d = o.get("deflate")
    extensions = None
    if d:
        bits = {"server_max_window_bits": d.get("serverBits")}
        if factory is permessage_deflate.ClientPerMessageDeflateFactory:
            bits["client_max_window_bits"] = d.get("clientBits") or True
        else:
            bits["client_max_window_bits"] = d.get("clientBits")
        extensions = [
            factory(
                server_no_context_takeover=not d["serverTakeover"],
                client_no_context_takeover=not d["clientTakeover"],
                **bits,
            )
        ]
    return {
        "compression": None,
        "extensions": extensions,
        "subprotocols": o.get("protocols") or None,
        "max_size": o.get("limit") or None,
        "close_timeout": 60,
        "ping_interval": None,
    }


async def echo(id, c):
    connections[id] = c
    answer = getattr(c, "response_headers", None)  # before websockets 13
    if answer is None:
        answer = c.response.headers
    extensions = answer.get("Sec-WebSocket-Extensions", "")
    report(id=id, event="open", protocol=c.subprotocol or "", extensions=extensions)
    error = None
    try:
        async for message in c:
            await c.send(message)
    except websockets.ConnectionClosed:
        pass  # how is in close_code
    except Exception as e:
        error = repr(e)
    await c.wait_closed()
    report(id=id, event="closed", code=c.close_code, reason=c.close_reason, error=error)


async def connect(o):
    factory = permessage_deflate.ClientPerMessageDeflateFactory
    await echo(o["id"], await websockets.connect(o["url"], **settings(o, factory)))


async def listen(o):
    id, factory = o["id"], permessage_deflate.ServerPerMessageDeflateFactory

    async def serve(c, path=None):
        await echo(id, c)
        servers.pop(id).close()

    server = await websockets.serve(serve, "127.0.0.1", 0, **settings(o, factory))
    servers[id] = server
    report(id=id, event="listening", port=server.sockets[0].getsockname()[1])


async def ping(o):
    pong = await connections[o["id"]].ping(o["ping"])
    await pong
    report(id=o["id"], event="ponged", data=o["ping"])


async def send(o):
    id, pongs = o["id"], []

    async def parts():
        for i, part in enumerate(o["parts"]):
            if i > 0:  # no two pings that wait may be the same
                pongs.append(await connections[id].ping(o["ping"] + str(i)))
            data = base64.b64decode(part)
            yield data if o.get("binary") else data.decode()

    await connections[id].send(parts())
    for pong in pongs:
        await pong
        report(id=id, event="ponged", data=o["ping"])


async def close(o):
    await connections[o["id"]].close(o.get("code") or 1000, o.get("reason", ""))


async def abort(o):
    connections[o["id"]].transport.abort()


async def main():
    os.environ["no_proxy"] = "*"
    lines = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    orders = {f.__name__: f for f in (connect, listen, ping, send, close, abort)}
    tasks = set()

    async def obey(o):
        try:
            await orders[o["do"]](o)
        except Exception as e:
            report(id=o["id"], event="failed", error=repr(e))

    while line := await lines.readline():
        task = loop.create_task(obey(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)  # whatever is under way


asyncio.run(main())
