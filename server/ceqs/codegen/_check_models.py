"""Checks of keyed models and of the queries that read them."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from ceqs.codegen._check_folds import KEY, SPELT, check_tags, listed_publicly, listed_wrongly
from ceqs.codegen._package import Package, is_event, is_model
from ceqs.contract import PAGING, column_kind, field_of_type, is_indexed, key_fields, row_field, same_type
from ceqs.v1 import options_pb2

_KEY, _FOLDS, _INDEX = 1, 2, 4
_INDEXABLE = "a single string, bool, integer, enum or Timestamp"


def check_models(package: Package) -> None:
    """Check what keyed models say."""
    for message in package.messages:
        for field in filter(is_indexed, message.fields):
            _check_index(package, message, field)
    for model in package.models:
        options = model.GetOptions().Extensions[options_pb2.model]
        if model.containing_type is not None:
            package.at_model(model, f"the model {model.name} lies in another message; declare it at the top level")
        if is_event(model):
            package.at_model(model, f"{model.name} is both a model and an event; make two messages of it")
        if not options.folds:
            package.at_model(model, f"the model {model.name} lists no event; name some under folds", _FOLDS)
        for listed in (
            listed_wrongly(package, model, options.folds),
            listed_publicly(package, f"the model {model.name}", options.folds),
        ):
            for index, what in listed:
                if "." not in options.folds[index]:  # else it is another context's: see _check_sources
                    package.at_model(model, what, _FOLDS, index)
        if KEY.fullmatch(options.key):
            _check_key_field(package, model, options.key)
            check_tags(package, model, options.folds, [options.key], "key")
        elif options.key:
            package.at_model(model, f'the key "{options.key}" {SPELT}', _KEY)
        else:
            package.at_model(
                model, f'the model {model.name} names no key; name the tag that it keeps a row of: key: "..."', _KEY
            )


def _check_index(package: Package, message: Descriptor, field: FieldDescriptor) -> None:
    if not is_model(message):
        package.at_field(
            field, f"{message.name} is no keyed model, so the index of {field.name} finds nothing; drop it", _INDEX
        )
    elif field.is_repeated or column_kind(field) is None:
        package.at_field(
            field, f"{field.name} cannot be indexed: rows are found by {_INDEXABLE}; index such a field", _INDEX
        )
    elif field in key_fields(message, message.GetOptions().Extensions[options_pb2.model].key):
        package.at_field(
            field, f"{field.name} is the key of {message.name}, which is found by it anyway; drop this", _INDEX
        )


def _check_key_field(package: Package, model: Descriptor, key: str) -> None:
    found = key_fields(model, key)
    if not found:
        package.at_model(
            model,
            f'{model.name} is kept by "{key}", but has no field of that tag; annotate one: '
            f'[(ceqs.v1.field).tag = "{key}"]',
            _KEY,
        )
    for field in found:
        if field.is_repeated:
            package.at_field(field, f"{model.name} is kept by {field.name}, which is repeated; a row has one key")
    for extra in found[1:]:
        package.at_field(extra, f"{model.name} is kept by both {found[0].name} and {extra.name}; tag one of them")


def check_query_of_model(package: Package, rpc: MethodDescriptor, model: Descriptor) -> None:
    """Check that a query of a keyed model says which rows it wants."""
    key = model.GetOptions().Extensions[options_pb2.model].key
    request, response = rpc.input_type, rpc.output_type
    if row_field(response, model.full_name):
        keys = key_fields(request, key)
        if not keys:
            package.at(
                request.full_name,
                f'{request.name} says nothing of "{key}", by which {rpc.name} finds its {model.name}; '
                f'annotate a field: [(ceqs.v1.field).tag = "{key}"]',
            )
        for field in keys[1:] or [field for field in keys if field.is_repeated]:
            package.at_field(field, f"{rpc.name} gives one {model.name}, and {field.name} may name several; list them")
    elif "page_token" in request.fields_by_name and field_of_type(response, model.full_name):
        for field in request.fields:
            if field.name not in PAGING:
                _check_filter(package, request, field, model)
        order_by = request.fields_by_name.get("order_by")
        if order_by is not None and (order_by.type != PAGING["order_by"] or order_by.is_repeated):
            package.at_field(order_by, f"order_by of {request.name} names fields to order by; make it string order_by")


def _check_filter(package: Package, request: Descriptor, field: FieldDescriptor, model: Descriptor) -> None:
    ours = model.fields_by_name.get(field.name)
    if ours is None:
        return  # code may know what it means
    if not (is_indexed(ours) or ours in key_fields(model, model.GetOptions().Extensions[options_pb2.model].key)):
        package.at_field(
            field,
            f"{request.name} finds {model.name} by {field.name}, which has no index; annotate it there: "
            "[(ceqs.v1.field).index = true]",
        )
    elif not same_type(field, ours):
        package.at_field(
            field,
            f"{request.name} finds {model.name} by {field.name}, which is of another type there; make them one type",
        )
