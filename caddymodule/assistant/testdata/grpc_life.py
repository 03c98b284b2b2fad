"""The life of a model by gRPC, with nothing of ours but the .proto files: create, pull, load, chat, unload, delete. Prints one line of JSON for the
test to judge."""
import glob
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

protos = os.environ["PROTOS"]
generated = tempfile.mkdtemp()
files = glob.glob(os.path.join(protos, "assistant", "v1", "*.proto"))
subprocess.run(
    [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={generated}", f"--grpc_python_out={generated}", *files], check=True)
sys.path.insert(0, generated)
services = ("model", "download", "instance", "chat")
model_pb2, download_pb2, instance_pb2, chat_pb2 = (importlib.import_module(f"assistant.v1.{name}_pb2") for name in services)
stubs = {name: importlib.import_module(f"assistant.v1.{name}_pb2_grpc") for name in services}

with open(os.environ["CA"], "rb") as f:
    channel = grpc.secure_channel(os.environ["ADDRESS"], grpc.ssl_channel_credentials(f.read()))
models = stubs["model"].ModelServiceStub(channel)
downloads = stubs["download"].DownloadServiceStub(channel)
instances = stubs["instance"].InstanceServiceStub(channel)
chats = stubs["chat"].ChatServiceStub(channel)
limit = {"timeout": 120}


def failure(call):
    """The code and the reason that a call fails with."""
    try:
        call()
    except grpc.RpcError as e:
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(e).details:
            if detail.Unpack(info):
                return [e.code().name, info.reason]
        return [e.code().name, None]
    return None


create = model_pb2.CreateModelRequest(name="life")
create.fields.update({"engine": "llama-server", "model_source": os.environ["SOURCE"], "ctx_size": 2048, "threads": 1})
made = models.CreateModel(create, **limit).model
twice = failure(lambda: models.CreateModel(create, **limit))

begun = downloads.StartDownload(download_pb2.StartDownloadRequest(source=os.environ["SOURCE"]), **limit).download
seen = [step.download for step in downloads.WatchDownload(download_pb2.WatchDownloadRequest(id=begun.id), **limit)]
pulled = [download_pb2.DownloadState.Name(seen[-1].state), seen[-1].done_bytes, seen[-1].total_bytes]
backwards = any(a.done_bytes > b.done_bytes for a, b in zip(seen, seen[1:]))

phases = [instance_pb2.LoadPhase.Name(step.phase) for step in instances.LoadModel(instance_pb2.LoadModelRequest(model="life"), **limit)]

asked = chat_pb2.ChatRequest(model="life", max_tokens=24, temperature=0)
asked.messages.add(role="user", content="Count.")
asked.extra.update({"seed": 1})
pieces, finish, tokens = [], None, 0
for piece in chats.Chat(asked, **limit):
    if piece.content:
        pieces.append(piece.content)
    finish = piece.finish_reason or finish
    tokens = piece.usage.completion_tokens or tokens

change = model_pb2.UpdateModelRequest(name="life", etag=made.etag)
change.fields.update({"idle_timeout": "1h", "threads": None})
changed = models.UpdateModel(change, **limit).model
stale = failure(lambda: models.UpdateModel(change, **limit))

instances.UnloadModel(instance_pb2.UnloadModelRequest(model="life"), **limit)
until = time.monotonic() + limit["timeout"]
while instances.ListInstances(instance_pb2.ListInstancesRequest(model="life"), **limit).instances and time.monotonic() < until:
    time.sleep(0.02)
left = len(instances.ListInstances(instance_pb2.ListInstancesRequest(), **limit).instances)
models.DeleteModel(model_pb2.DeleteModelRequest(name="life", etag=changed.etag), **limit)
gone = failure(lambda: models.GetModel(model_pb2.GetModelRequest(name="life"), **limit))
print(json.dumps({
    "file": made.file, "twice": twice, "pulled": pulled, "backwards": backwards, "phases": phases, "text": "".join(pieces), "pieces": len(pieces), "finish": finish, "tokens": tokens,
    "toml": changed.toml, "stale": stale, "left": left, "gone": gone,
}))
