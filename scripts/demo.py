#!/usr/bin/env python3
"""demo.py: the client's part of run.sh, with nothing but the standard library.

    demo.py ports NAME=PORT...   fails if one of the ports is taken
    demo.py up PID               waits until the server with that pid answers
    demo.py story                asks from cold, embeds, waits for the retirement, asks again

ASSISTANT_HTTPS_PORT and ASSISTANT_ADMIN_PORT say where the server is, ASSISTANT_CA
names the certificate to trust.
"""

import http.client
import json
import math
import os
import socket
import ssl
import sys
import time

CHAT, EMBEDDING = "smollm2", "minilm"
QUESTION = "What is the capital of France?"
MANNER = "You answer in one short sentence."  # without it so small a model rambles
SENTENCES = ["A cat sat on the mat.", "The kitten lies on the rug.", "Stocks fell sharply on Monday."]
START_SECONDS = 30  # until the server answers
ANSWER_SECONDS = 300  # an engine may load for long on a busy machine
RETIRE_SECONDS = 60


def say(text="", end="\n"):
    print(text, end=end, flush=True)


def admin():
    """The running instances, as the admin API lists them."""
    connection = http.client.HTTPConnection("localhost", int(os.environ["ASSISTANT_ADMIN_PORT"]), timeout=10)
    try:
        connection.request("GET", "/assistant/ps")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(f"the admin API answered {response.status}: {body.decode(errors='replace')}")
        return json.loads(body)["instances"] or []
    finally:
        connection.close()


def instance(model):
    return next((one for one in admin() if one["model"] == model), None)


def post(path, body):
    """Posts over HTTPS, trusting nothing but the server's own authority."""
    trust = ssl.create_default_context(cafile=os.environ["ASSISTANT_CA"])
    port = int(os.environ["ASSISTANT_HTTPS_PORT"])
    connection = http.client.HTTPSConnection("localhost", port, timeout=ANSWER_SECONDS, context=trust)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"POST {path}: {response.status} {response.read().decode(errors='replace')}")
    return response


def events(response):
    """The data of each server-sent event, until the end of the answer."""
    for line in response:
        data = line.decode().strip().removeprefix("data: ")
        if not line.startswith(b"data: "):
            continue
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            sys.exit(f"the answer broke off: {event['error']}")
        yield event
    sys.exit("the answer broke off without an end")


def ask():
    say(f"  {CHAT}, which is {'running' if instance(CHAT) else 'not running'}, is asked: {QUESTION}")
    say("  ", end="")
    begun, first = time.monotonic(), None
    body = {
        "model": CHAT,
        "messages": [{"role": "system", "content": MANNER}, {"role": "user", "content": QUESTION}],
        "max_tokens": 64,
        "temperature": 0,
        "stream": True,
    }
    for event in events(post("/v1/chat/completions", body)):
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                first = first or time.monotonic()
                say(text, end="")
    say()
    if first is None:
        sys.exit("the answer was empty")
    phases = (instance(CHAT) or {}).get("phases", {})
    shown = ", ".join(f"{name} {phases.get(key, math.nan):.0f} ms" for name, key in (
        ("spawned in", "spawn_ms"), ("ready after", "ready_ms"), ("first token after", "first_token_ms")))
    say(f"  cold start: {shown}; the client had the first word after {(first - begun) * 1000:.0f} ms")


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)


def embed():
    say(f"  {EMBEDDING} embeds three sentences and starts for it as well")
    answer = json.load(post("/v1/embeddings", {"model": EMBEDDING, "input": SENTENCES}))
    cat, kitten, stocks = (one["embedding"] for one in sorted(answer["data"], key=lambda one: one["index"]))
    near, far = cosine(cat, kitten), cosine(cat, stocks)
    say(f"  {near:.3f} is the cosine of «{SENTENCES[0]}» and «{SENTENCES[1]}»")
    say(f"  {far:.3f} is the cosine of «{SENTENCES[0]}» and «{SENTENCES[2]}»")
    if near <= far:
        sys.exit("related sentences should be nearer")


def retire():
    begun = time.monotonic()
    say("  nobody asks any more …", end="")
    while running := admin():
        if time.monotonic() - begun > RETIRE_SECONDS:
            sys.exit(f" but these still run: {running}")
        time.sleep(0.05)
    say(f" and {time.monotonic() - begun:.1f} s later no engine runs")


def story():
    say("A first question, from cold, through HTTPS")
    ask()
    say("An embedding")
    embed()
    say("Idle engines retire")
    retire()
    say("A second cold start")
    ask()


def up(pid):
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            admin()
            return
        except OSError:
            pass  # does not listen yet
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                sys.exit("the server ended")
        if time.monotonic() > deadline:
            sys.exit(f"the server did not answer within {START_SECONDS} s")
        time.sleep(0.05)


def ports(pairs):
    busy = False
    for name, port in (pair.split("=") for pair in pairs):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError as err:
                print(f"port {port} cannot be used ({err.strerror}): choose another with {name}=PORT", file=sys.stderr)
                busy = True
    sys.exit(busy)


def main():
    verb, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if verb == "ports":
        ports(rest)
    elif verb == "up" and len(rest) == 1:
        up(rest[0])
    elif verb == "story":
        story()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
