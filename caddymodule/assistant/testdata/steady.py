"""The official client asks again and again until standard input ends. Prints how that went."""
import json
import os
import sys
import threading

from openai import OpenAI

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused")
answered, failed = 0, []
while not over.is_set():
    try:
        client.chat.completions.create(model="tiny", max_tokens=5, messages=[{"role": "user", "content": "Count."}])
        answered += 1
    except Exception as error:  # whatever it is, the test is to see it
        failed.append(repr(error))
    if answered == 1:
        print("begun", flush=True)
print(json.dumps({"answered": answered, "failed": failed}))
