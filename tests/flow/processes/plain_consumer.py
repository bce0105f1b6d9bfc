"""Hears another service's public events with nothing of ceqs: nats-py, protobuf and the .proto files.

`plain_consumer.py NATS_URL PROTO TYPE` prints the first event of the type, headers and body, as JSON.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import nats
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessages
from grpc_tools import protoc


def read_protos(proto: str) -> dict[str, type[Message]]:
    """Give the message types of the file by full name."""
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "image.binpb")
        google = Path(protoc.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{proto}", f"-I{google}", "--include_imports", f"--descriptor_set_out={image}"]
        assert protoc.main([*arguments, "shop/orders/v1/public_events.proto"]) == 0
        return GetMessages(FileDescriptorSet.FromString(image.read_bytes()).file)


async def main(url: str, proto: str, wanted: str) -> None:
    types = read_protos(proto)
    client = await nats.connect(url)
    subscription = await client.jetstream().subscribe("ceqs.orders.public.>", ordered_consumer=True)
    async for message in subscription.messages:
        headers = {name: unquote(value) for name, value in (message.headers or {}).items()}
        if headers["ce-type"] == wanted:
            event = MessageToDict(types[headers["ce-type"]].FromString(message.data))
            print(json.dumps({"headers": headers, "event": event, "sequence": message.metadata.sequence.stream}))
            break
    await client.close()
    assert not {"ceqs", "shop"} & set(sys.modules)


asyncio.run(main(*sys.argv[1:]))
