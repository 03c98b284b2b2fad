"""Writes GGUF, the file format of llama.cpp, with nothing but the standard library.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3).
"""

import struct

# Types of metadata values, and how struct packs them.
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
PACK = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}

# Types of tensors.
TENSOR_F32, TENSOR_F16 = 0, 1

# Types of tokens, as tokenizer.ggml.token_type has them.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

ALIGNMENT = 32  # bytes; of every tensor


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, one):
    return string(one) if kind == STRING else struct.pack(PACK[kind], one)


def padding(size):
    return b"\0" * (-size % ALIGNMENT)


class Writer:
    """Collects metadata and tensors in the order they are to have in the file."""

    def __init__(self):
        self.metadata = []
        self.tensors = []  # (name, dimensions, type, size in bytes, iterable of bytes)

    def add(self, key, kind, one):
        self.metadata.append(string(key) + struct.pack("<I", kind) + value(kind, one))

    def add_array(self, key, kind, many):
        items = b"".join(value(kind, one) for one in many)
        self.metadata.append(string(key) + struct.pack("<IIQ", ARRAY, kind, len(many)) + items)

    def add_tensor(self, name, dimensions, kind, size, chunks):
        """dimensions: fastest first; chunks: the data, read when the file is written."""
        self.tensors.append((name, dimensions, kind, size, chunks))

    def write(self, path):
        with open(path, "wb") as out:
            out.write(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata)))
            out.write(b"".join(self.metadata))
            offset = 0
            for name, dimensions, kind, size, _ in self.tensors:
                out.write(string(name) + struct.pack("<I", len(dimensions)))
                out.write(struct.pack(f"<{len(dimensions)}Q", *dimensions))
                out.write(struct.pack("<IQ", kind, offset))
                offset += size + len(padding(size))
            out.write(padding(out.tell()))
            for _, _, _, size, chunks in self.tensors:
                for chunk in chunks:
                    out.write(chunk)
                out.write(padding(size))
