"""A link to the portal's sign-in that leads people elsewhere afterwards, to a page that asks for the password again.

Played: what browsers read as another host (two slashes, backslashes, tabs and line ends that they drop), the same in
percent-encoding, schemes, and control characters; at the sign-in with a password and at that of the hospital.
"""

from __future__ import annotations

import itertools
import re

import pytest
from fastapi.testclient import TestClient
from support.review_desk import PASSWORD, desk, new_context, new_desk, new_proposal, now

from datasites.portal.app import create_portal
from datasites.portal.forms import inside

__all__ = ["desk", "new_context", "new_desk", "new_proposal", "now"]
ELSEWHERE = [
    *(
        "".join(parts) + "evil.example"
        for parts in itertools.product("/", ["/", "\\", "\t/", "\r/", "\n/", "\t\\", " /"])
    ),
    *(
        f"/{code}evil.example"
        for code in ("%2f", "%2F", "%5c", "%5C", "%09/", "%0a/", "%0d/", "%00/", "%252f", ".//", "..//")
    ),
    *(
        "https://evil.example",
        "//evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "data:,x",
        "evil.example",
        "",
    ),
    *("/\u2028/evil.example", "/\uff0fevil.example", "/\x00/evil.example", "/@evil.example", "/;//evil.example"),
    *(
        "/inbox\r\nset-cookie: x=y",
        "/inbox//evil.example",
        "/requests/..//evil.example",
        "/./evil",
        "/inbox#//evil.example",
    ),
]
OURS = ("/", "/inbox", "/requests/0123abcd", "/people?notice=linked", "/journal?since=3&kind=refused", "/budget")


@pytest.mark.parametrize("to", ELSEWHERE, ids=ascii)
def test_nothing_but_a_plain_path_of_the_portal_is_gone_to(to: str) -> None:
    assert inside(to) == "/inbox"


@pytest.mark.parametrize("to", OURS)
def test_pages_of_the_portal_are_gone_to(to: str) -> None:
    assert inside(to) == to


def test_the_sign_in_leads_only_inside(desk, new_context) -> None:
    with TestClient(create_portal(new_context(desk)), headers={"accept": "text/html"}) as portal:
        for to in ("/\t/evil.example", "/%5cevil.example", "//evil.example"):
            answer = portal.post(
                "/login", data={"name": "anna", "password": PASSWORD, "to": to}, follow_redirects=False
            )
            assert (answer.status_code, answer.headers["location"]) == (303, "/inbox")
            assert not re.search("evil", answer.text)
