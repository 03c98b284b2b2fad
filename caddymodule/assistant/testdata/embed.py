"""The official client: embeddings by its default settings (base64 on the wire). Prints cosines."""
import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="unused")
texts = ["A cat sits on the mat.", "A kitten is lying on a rug.", "The stock market fell sharply today."]
vectors = [item.embedding for item in client.embeddings.create(model="minilm", input=texts).data]


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5)


print(json.dumps({
    "dimensions": len(vectors[0]), "related": cosine(vectors[0], vectors[1]), "unrelated": cosine(vectors[0], vectors[2]),
}))
