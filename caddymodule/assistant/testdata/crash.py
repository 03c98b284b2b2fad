"""The official client reads a stream whose engine is killed by the test once "begun" was printed."""
import json
import os

from openai import APIError, OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0)
stream = client.chat.completions.create(
    model="tiny", stream=True, max_tokens=100000, temperature=0,
    messages=[{"role": "user", "content": "Tell a long story of a lighthouse, its keeper and the sea."}],
    extra_body={"ignore_eos": True},
)
seen = 0
try:
    for chunk in stream:
        seen += 1
        if seen == 5:
            print("begun", flush=True)
    print(json.dumps({"ended": "clean", "seen": seen}))
except APIError as error:
    print(json.dumps({"ended": "error", "code": error.code, "message": error.message, "seen": seen}))
