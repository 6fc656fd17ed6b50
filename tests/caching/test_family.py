"""Which of the two HTTP packages a request belongs to."""

from __future__ import annotations

import httpx
import pytest

from askonce.doors import family_of


class Traced(httpx.Request):
    """A request class of somebody's own."""


def test_a_request_of_a_derived_class_belongs_to_the_package_it_is_derived_from():
    plain = httpx.Request("POST", "http://h/v1/chat/completions")
    assert family_of(Traced("POST", "http://h/v1/chat/completions")) is family_of(plain)


def test_two_packages_are_two_families():
    httpx2 = pytest.importorskip("httpx2")
    assert family_of(httpx2.Request("POST", "http://h/")) is not family_of(httpx.Request("POST", "http://h/"))


def test_what_is_no_request_is_refused_by_name():
    with pytest.raises(TypeError, match="object"):
        family_of(object())
