"""Names of streams and subjects."""

from __future__ import annotations

import pytest

from ceqs.errors import Misconfigured
from ceqs.streams import stream_name, subject, subjects


def test_a_log_has_two_streams_for_each_epoch() -> None:
    assert stream_name("orders", 1, public=False) == "CEQS_orders_1"
    assert stream_name("orders", 2, public=True) == "CEQS_orders_PUBLIC_2"


def test_a_subject_names_log_scope_type_and_bucket() -> None:
    assert subject("orders", "shop.orders.v1.OrderPlaced", 17, public=False) == "ceqs.orders.log.OrderPlaced.17"
    assert subject("orders", "shop.orders.v1.OrderAccepted", 0, public=True) == "ceqs.orders.public.OrderAccepted.0"
    assert subjects("orders", public=False) == "ceqs.orders.log.>"
    assert subjects("orders", public=True) == "ceqs.orders.public.>"


@pytest.mark.parametrize("log", ["", "a.b", "a*", "a>", "a b", "orders_PUBLIC", "a/b", "a\n", "é"])
def test_a_name_that_is_not_one_token_is_refused(log: str) -> None:
    with pytest.raises(Misconfigured, match="a-z, 0-9"):
        stream_name(log, 1, public=True)
    with pytest.raises(Misconfigured, match="a-z, 0-9"):
        subject(log, "a.B", 0, public=True)
    with pytest.raises(Misconfigured, match="a-z, 0-9"):
        subjects(log, public=True)
