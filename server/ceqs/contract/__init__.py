"""What a proto declares, at run time."""

from ceqs.contract._ids import Uuid7, new_id
from ceqs.contract._read import (
    AGE,
    RECEIPT,
    boundary_method,
    command_id_field,
    context_name,
    field_of_type,
    messages,
    method_name,
    own_fields,
    read_contract,
    services,
    snake,
    tag_fields,
)
from ceqs.contract._tags import BUCKETS, MAX_TAG_VALUE, bucket_of, checked_value, tags_of
from ceqs.contract._tokens import Moment, decode_moment, decode_token, encode_moment, encode_token, merge_tokens
from ceqs.contract._types import (
    CommandRpc,
    Contract,
    EventType,
    Locking,
    Persistence,
    QueryRpc,
    StateType,
    TagField,
)
from ceqs.contract._wire import prefix

__all__ = [
    "AGE",
    "BUCKETS",
    "MAX_TAG_VALUE",
    "RECEIPT",
    "CommandRpc",
    "Contract",
    "EventType",
    "Locking",
    "Moment",
    "Persistence",
    "QueryRpc",
    "StateType",
    "TagField",
    "Uuid7",
    "boundary_method",
    "bucket_of",
    "checked_value",
    "command_id_field",
    "context_name",
    "decode_moment",
    "decode_token",
    "encode_moment",
    "encode_token",
    "field_of_type",
    "merge_tokens",
    "messages",
    "method_name",
    "new_id",
    "own_fields",
    "prefix",
    "read_contract",
    "services",
    "snake",
    "tag_fields",
    "tags_of",
]
