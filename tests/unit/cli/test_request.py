"""Requests from words: typed, nested, repeated, and refused by name."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ceqs.cli._request import fill_request
from ceqs.errors import Misconfigured

F = descriptor_pb2.FieldDescriptorProto


def order_class() -> type[Message]:
    """A message with a field of every kind, in a pool of its own, as reflection gives them."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="KIND_UNSPECIFIED", number=0)
    kind.value.add(name="KIND_RUSH", number=1)
    line = file.message_type.add(name="Line")
    line.field.add(name="product", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    line.field.add(name="quantity", number=2, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    order = file.message_type.add(name="Order")
    entry = order.nested_type.add(name="NotesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=F.TYPE_INT64, label=F.LABEL_OPTIONAL)

    def add(name: str, number: int, type_: F.Type.ValueType, type_name: str = "", *, repeated: bool = False) -> None:
        label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
        order.field.add(name=name, number=number, type=type_, type_name=type_name or None, label=label)

    add("order_id", 1, F.TYPE_STRING)
    add("total", 2, F.TYPE_INT64)
    add("rate", 3, F.TYPE_DOUBLE)
    add("paid", 4, F.TYPE_BOOL)
    add("kind", 5, F.TYPE_ENUM, ".t.Kind")
    add("first", 6, F.TYPE_MESSAGE, ".t.Line")
    add("lines", 7, F.TYPE_MESSAGE, ".t.Line", repeated=True)
    add("tags", 8, F.TYPE_STRING, repeated=True)
    add("placed_at", 9, F.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    add("notes", 10, F.TYPE_MESSAGE, ".t.Order.NotesEntry", repeated=True)
    add("small", 11, F.TYPE_UINT32)
    pool = descriptor_pool.DescriptorPool()
    timestamp = descriptor_pool.Default().FindFileByName("google/protobuf/timestamp.proto")
    pool.AddSerializedFile(timestamp.serialized_pb)
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("t.Order"))


Order = order_class()


def filled(*words: str) -> Message:
    order = Order()
    fill_request(order, words)
    return order


def refusal(*words: str) -> str:
    with pytest.raises(Misconfigured) as refused:
        filled(*words)
    return refused.value.message


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("order_id=536365", 'order_id: "536365"'),
        ("order_id=a=b c", 'order_id: "a=b c"'),
        ("orderId=1", 'order_id: "1"'),
        ("total=-9000000000", "total: -9000000000"),
        ("rate=0.5", "rate: 0.5"),
        ("paid=true", "paid: true"),
        ("kind=KIND_RUSH", "kind: KIND_RUSH"),
        ("kind=rush", "kind: KIND_RUSH"),
        ("kind=1", "kind: KIND_RUSH"),
        ("first.product=x", 'first { product: "x" }'),
        ('first={"product": "x"}', 'first { product: "x" }'),
        ("lines[0].quantity=2", "lines { quantity: 2 }"),
        ('lines={"quantity": 2}', "lines { quantity: 2 }"),
        ('lines=[{"quantity": 2}, {"quantity": 3}]', "lines { quantity: 2 } lines { quantity: 3 }"),
        ("tags=a", 'tags: "a"'),
        ("tags[0]=a", 'tags: "a"'),
        ("placed_at=1970-01-01T00:00:01Z", "placed_at { seconds: 1 }"),
        ("notes.gift.wrap=3", 'notes { key: "gift.wrap" value: 3 }'),
        ('{"order_id": "1", "paid": true}', 'order_id: "1" paid: true'),
    ],
)
def test_a_word_sets_a_field(word: str, text: str) -> None:
    assert " ".join(str(filled(word)).split()) == text


def test_words_add_up() -> None:
    order = filled("order_id=1", "lines[0].product=x", "lines[0].quantity=2", "lines[1].product=y", "tags=a", "tags=b")
    wanted = 'order_id: "1" lines { product: "x" quantity: 2 } lines { product: "y" } tags: "a" tags: "b"'
    assert " ".join(str(order).split()) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["order"], "'order' is neither key=value nor a JSON object"),
        (["oder_id=1"], "oder_id: Order has no field 'oder_id'; did you mean order_id?"),
        (["lines[0].qty=1"], "lines[0].qty: Line has no field 'qty'; it has product, quantity"),
        (["total=many"], "total: 'many' is not a whole number"),
        (["rate=fast"], "rate: 'fast' is not a number"),
        (["paid=maybe"], "paid: 'maybe' is not true or false"),
        (["kind=slow"], "kind: 'slow' is not one of KIND_UNSPECIFIED, KIND_RUSH"),
        (["first=x"], "first: first is a Line; give its fields or a JSON object"),
        (["first={x}"], "first: not JSON"),
        (["order_id.x=1"], "order_id.x: order_id is text and has no fields"),
        (["order_id=1", "order_id=2"], "order_id is given twice, and order_id is not repeated"),
        (["lines.product=x"], "lines.product: lines is repeated; write lines[0].product"),
        (["lines[1].product=x"], "lines[1].product: lines[0] comes before lines[1]"),
        (["small=-1"], "Order: "),
        (["total=99999999999999999999"], "Order: "),
        (['{"order_id": 1'], "the request: not JSON"),
    ],
)
def test_a_wrong_word_is_refused_by_name(words: list[str], message: str) -> None:
    assert refusal(*words).startswith(message)
