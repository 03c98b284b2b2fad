"""The official client: one question, streamed and not. Prints one line of JSON for the test to judge."""
import json
import os
import time

from openai import OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused")
question = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
common = {"model": "smollm2", "messages": question, "temperature": 0, "max_tokens": 24, "seed": 1}

begin = time.monotonic()
stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **common)
pieces, times, finish, usage = [], [], None, None
for chunk in stream:
    if chunk.usage:
        usage = chunk.usage.completion_tokens
    for choice in chunk.choices:
        if choice.delta.content:
            pieces.append(choice.delta.content)
            times.append(time.monotonic() - begin)
        finish = choice.finish_reason or finish
whole = client.chat.completions.create(**common)
print(json.dumps({
    "streamed": "".join(pieces), "pieces": len(pieces), "first": times[0], "last": times[-1],
    "finish": finish, "usage": usage,
    "whole": whole.choices[0].message.content, "whole_finish": whole.choices[0].finish_reason,
    "whole_usage": whole.usage.completion_tokens, "models": [m.id for m in client.models.list()],
    "timings": "timings" in whole.model_extra,
}))
