"""Signing in with the hospital's accounts: against a provider with real HTTP and real tokens, and against attackers."""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import json
import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.approvals import is_approved
from support.forms import forms_of
from support.oidc_server import CLIENT, SECRET, OidcServer
from support.review_desk import NOW

from datasites.portal.app import create_portal
from datasites.portal.service import SIGN_IN_SECONDS, SignIns
from datasites.review.accounts import LINKED
from datasites.review.oidc import Begun, OidcProvider, OidcSettings
from datasites.review.policy import Policy
from privacy.errors import InvalidInput, Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}
ROLES = '[roles]\n"tessera-stewards" = "steward"\n"tessera-auditors" = "auditor"'


@pytest.fixture
def idp(now):
    with OidcServer(now=int(now.timestamp())) as running:
        yield running


@pytest.fixture
def open_portal(desk, new_context, idp, tmp_path):
    """Opens the portal of a hospital with its own sign-in; call it with more lines of oidc.toml."""
    secret = tmp_path / "oidc.secret"
    secret.write_text(f"{SECRET}\n")

    def make(more: str = "", portal_url: str = "http://127.0.0.1") -> TestClient:
        text = f'issuer = "{idp.issuer}"\nclient_id = "{CLIENT}"\nclient_secret_file = "{secret}"\n'
        provider = OidcProvider(OidcSettings.parse(f'{text}portal_url = "{portal_url}"\n{more}'))
        idp.redirect_uri = provider.settings.redirect_uri
        app = create_portal(replace(new_context(desk), hospital_login=provider))
        return TestClient(app, headers=HTML, base_url=portal_url)

    return make


def sign_in(client) -> str:
    """Sign in with the password and return the CSRF token."""
    answer = client.post("/login", data={"name": "anna", "password": PASSWORD})
    return re.search(r'name="csrf" value="([^"]+)"', answer.text).group(1)


def at_provider(address: str) -> str:
    """Sign in at the provider and return where it leads back to."""
    answer = httpx.get(address, trust_env=False)
    assert answer.status_code == 302
    return answer.headers["location"]


def through(client, path: str = "/login/hospital"):
    """Begin at ``path``, sign in at the provider, come back; return the portal's answer."""
    begun = client.get(path, follow_redirects=False)
    assert begun.status_code == 303
    return client.get(at_provider(begun.headers["location"]))


def link(client) -> None:
    page = client.post("/people/link", data={"csrf": sign_in(client), "password": PASSWORD}).text
    address = re.search(r'<a class="button" href="([^"]+)"', page).group(1).replace("&amp;", "&")
    assert "/people?notice=linked" in client.get(at_provider(address)).text
    client.cookies.clear()


def signed_in(client) -> bool:
    return client.get("/inbox", follow_redirects=False).status_code == 200


def test_a_linked_account_opens_a_session_and_signs_nothing(open_portal, desk, new_proposal):
    client = open_portal()
    link(client)
    answer = through(client, "/login/hospital?to=/budget")
    assert answer.status_code == 200 and 'url=/budget"' in answer.text
    assert signed_in(client)
    assert desk.kinds()[-2:] == ["account-linked", "signed-in"]
    proposal_hash = desk.submit(new_proposal())
    page = client.get(f"/requests/{proposal_hash}").text
    assert "not of your hospital account" in page
    csrf = re.search(r'name="csrf" value="([^"]+)"', page).group(1)
    refused = client.post(f"/requests/{proposal_hash}/approve", data={"csrf": csrf, "password": "x"})
    assert refused.status_code == 403 and not is_approved(desk.store, proposal_hash)
    client.post(f"/requests/{proposal_hash}/approve", data={"csrf": csrf, "password": PASSWORD})
    assert is_approved(desk.store, proposal_hash)


def test_without_its_file_there_is_no_such_way_in(desk, new_context, tmp_path):
    with TestClient(create_portal(new_context(desk)), headers=HTML) as client:
        assert "hospital account" not in client.get("/login").text
        assert client.get("/login/hospital").status_code == 404
    assert OidcSettings.load(tmp_path / "oidc.toml") is None


def test_a_stranger_at_the_provider_gets_no_account(open_portal, desk):
    client = open_portal(ROLES)
    answer = through(client)
    assert answer.status_code == 403 and "one-time link" in answer.text
    assert not signed_in(client) and len(desk.accounts.accounts()) == 3


def test_where_the_owner_allows_it_a_stranger_with_a_role_makes_an_account_of_their_own(open_portal, desk):
    client = open_portal(f"create_accounts = true\n{ROLES}")
    answer = through(client)
    token = re.search(r"/welcome\?token=([\w-]+)", answer.text).group(1)
    client.post("/welcome", data={"token": token, "name": "carla", "password": PASSWORD})
    assert desk.accounts.account("carla").role == "steward"
    client.cookies.clear()
    through(client)
    assert "carla, data steward" in client.get("/inbox").text


def test_a_sign_in_makes_no_account_and_no_link_for_one_where_two_people_have_to_want_it(open_portal, desk):
    desk.store.policy = lambda: Policy.parse("[people]\nrequired_people = 2")
    client = open_portal(f"create_accounts = true\n{ROLES}")
    answer = through(client)
    assert answer.status_code == 403 and "2 people for every new account" in answer.text
    assert not signed_in(client) and not desk.accounts.invited(now=NOW) and "account-invited" not in desk.kinds()
    link(client)  # who has an account may still come in with it, and is one person like everybody
    through(client)
    csrf = re.search(r'name="csrf" value="([^"]+)"', client.get("/people").text).group(1)
    desk.accounts.vouch("bela", desk.accounts.account("anna"))
    client.post("/people", data={"csrf": csrf, "role": "auditor", "password": PASSWORD})
    assert not desk.accounts.invited(now=NOW) and desk.kinds()[-1] == "people-act-asked"


def test_what_was_typed_before_the_session_ended_comes_back_through_the_hospitals_sign_in(
    open_portal, desk, new_proposal
):
    client = open_portal()
    link(client)
    path = f"/requests/{desk.submit(new_proposal())}"
    ours = {"sec-fetch-site": "same-origin"}
    page = client.post(f"{path}/deny", data={"csrf": "x", "reason": "no vote «12»"}, headers=ours)
    (form,) = (one for one in forms_of(page.text) if one.action == "/login/hospital")
    begun = client.post(form.action, data=form.hidden, headers=ours).text
    address = re.search(r'<a class="button" href="([^"]+)"', begun).group(1).replace("&amp;", "&")
    assert f'url={path}"' in client.get(at_provider(address)).text
    assert "no vote «12»" in client.get(path).text


def test_who_lost_the_group_at_the_provider_comes_in_no_more(open_portal, idp):
    client = open_portal(ROLES)
    link(client)
    through(client)
    assert signed_in(client)
    client.cookies.clear()
    idp.person["groups"] = ["tessera-auditors"]
    assert through(client).status_code == 403 and not signed_in(client)


def test_a_link_needs_the_password_and_ends_with_its_sessions(open_portal, desk, now):
    client = open_portal()
    csrf = sign_in(client)
    assert client.post("/people/link", data={"csrf": csrf, "password": "wrong"}).status_code == 403
    assert client.post("/people/link", data={"csrf": "wrong", "password": PASSWORD}).status_code == 403
    link(client)
    through(client)
    csrf = re.search(r'name="csrf" value="([^"]+)"', client.get("/people").text).group(1)
    client.post("/people/unlink", data={"csrf": csrf})
    assert not signed_in(client) and not desk.accounts.has_link("anna")
    secret, _ = desk.accounts.open_session(desk.accounts.account("anna"), now=now)
    assert desk.accounts.credential(secret, now=now).label != LINKED


def test_one_hospital_account_is_one_person_here(open_portal, desk, now, idp):
    client = open_portal()
    desk.accounts.link("bela", idp.issuer, "staff-17", now=now)
    page = client.post("/people/link", data={"csrf": sign_in(client), "password": PASSWORD}).text
    address = re.search(r'<a class="button" href="([^"]+)"', page).group(1).replace("&amp;", "&")
    assert client.get(at_provider(address)).status_code == 403
    assert not desk.accounts.has_link("anna")


def test_it_goes_on_only_inside_the_portal(open_portal):
    client = open_portal()
    link(client)
    assert 'url=/inbox"' in through(client, "/login/hospital?to=//evil.example/").text


# attacks -----------------------------------------------------------------------------------------------------------


def refused(client, answer) -> bool:
    return answer.status_code in (403, 400) and not signed_in(client)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"iss": "https://login.evil.example"}, "iss"),
        ({"aud": "another-portal"}, "aud"),
        ({"aud": [CLIENT, "another-portal"]}, "azp"),
        ({"azp": "another-portal"}, "azp"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": 2_000_000_000}, "token"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "subject"),
        ({"at_hash": "AAAA"}, "at_hash"),
    ],
)
def test_a_token_with_a_wrong_claim_opens_nothing(open_portal, idp, claims, why):
    client = open_portal()
    link(client)
    idp.claims = claims
    answer = through(client)
    assert refused(client, answer) and why in answer.text


def unsigned(claims) -> str:
    return f"{encoded({'alg': 'none'})}.{encoded(claims)}."


def encoded(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def by_public_key(idp):
    """The old trick: the provider's public key taken as the secret of an HMAC."""
    secret = idp.keys[0].as_pem(private=False)

    def sign(claims) -> str:
        text = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(claims)}"
        tag = hmac.digest(secret, text.encode(), "sha256")
        return f"{text}.{base64.urlsafe_b64encode(tag).decode().rstrip('=')}"

    return sign


def by_stranger(_):
    key = RSAKey.generate_key(2048, {"kid": "first"})
    return lambda claims: jwt.encode({"alg": "RS256", "kid": "first"}, claims, key)


def by_another_algorithm(idp):
    bare = RSAKey.import_key({k: v for k, v in idp.keys[0].as_dict(private=True).items() if k != "alg"})
    return lambda claims: jwt.encode({"alg": "RS512", "kid": "first"}, claims, bare, algorithms=["RS512"])


@pytest.mark.parametrize(
    "attack", [lambda _: unsigned, by_public_key, by_stranger, by_another_algorithm, lambda _: lambda _: "no.token"]
)
def test_a_token_that_the_provider_did_not_sign_as_agreed_opens_nothing(open_portal, idp, attack):
    client = open_portal()
    link(client)
    idp.sign = attack(idp)
    assert refused(client, through(client))


def test_a_code_works_once_in_the_browser_that_began(open_portal, idp):
    client = open_portal()
    link(client)
    back = at_provider(client.get("/login/hospital", follow_redirects=False).headers["location"])
    cookies = dict(client.cookies)
    client.cookies.clear()
    assert refused(client, client.get(back))  # somebody else's browser, and the code is still good
    client.cookies.update(cookies)
    used = len(idp.used)
    assert client.get(back).status_code == 200 and len(idp.used) == used + 1
    client.cookies.clear()
    client.cookies.update(cookies)
    assert refused(client, client.get(back))  # the same answer once more
    assert len(idp.used) == used + 1  # and the code was not even sent


def test_a_code_of_another_sign_in_fails_at_pkce(open_portal):
    client = open_portal()
    link(client)
    stolen = at_provider(client.get("/login/hospital", follow_redirects=False).headers["location"])
    mine = at_provider(client.get("/login/hospital", follow_redirects=False).headers["location"])
    code = parse_qs(urlsplit(stolen).query)["code"][0]
    own = parse_qs(urlsplit(mine).query)
    state, issuer = own["state"][0], own["iss"][0]
    answer = client.get("/login/hospital/callback", params={"state": state, "code": code, "iss": issuer})
    assert refused(client, answer)


@pytest.mark.parametrize("answer", [{"state": "made-up"}, {"iss": "https://login.evil.example"}, {"iss": ""}])
def test_an_answer_of_another_state_or_provider_is_refused(open_portal, idp, answer):
    client = open_portal()
    link(client)
    idp.answer = answer
    used = len(idp.used)
    assert refused(client, through(client))
    assert len(idp.used) == used  # the code went nowhere


def test_a_sign_in_that_took_too_long_is_forgotten_and_their_number_is_bounded(now, monkeypatch):
    sign_ins, begun = SignIns(), Begun(address="", state="s", nonce="n", verifier="v")
    browser = sign_ins.add(begun, to="/inbox", account=None, now=now)
    with pytest.raises(Refused, match="took too long"):
        sign_ins.take("s", browser, now=now + dt.timedelta(seconds=SIGN_IN_SECONDS))
    monkeypatch.setattr("datasites.portal.service._MOST", 2)
    for state in "abc":
        sign_ins.add(replace(begun, state=state), to="/inbox", account=None, now=now)
    assert sorted(sign_ins._pending) == ["b", "c"]


def test_a_sign_in_that_was_given_up_is_refused(open_portal, idp):
    client = open_portal()
    idp.answer = {"error": "access_denied", "code": ""}
    assert refused(client, through(client))
    assert "did not let you in" in through(client).text


def test_a_provider_that_calls_itself_otherwise_or_names_plain_http_is_refused(open_portal, idp):
    idp.metadata = {"issuer": "https://login.evil.example"}
    answer = open_portal().get("/login/hospital")
    assert answer.status_code == 403 and "another issuer" in answer.text
    idp.metadata = {"authorization_endpoint": "http://login.evil.example/authorize"}
    assert "unsafe" in open_portal().get("/login/hospital").text


def test_new_keys_of_the_provider_are_found_but_not_asked_for_all_the_time(open_portal, idp, monkeypatch):
    client = open_portal()
    link(client)
    idp.keys = [RSAKey.generate_key(2048, {"kid": "second"})]
    assert refused(client, through(client))  # the keys were fetched a moment ago
    monkeypatch.setattr("datasites.review.oidc._KEYS_PAUSE_SECONDS", 0.0)
    assert through(client).status_code == 200 and signed_in(client)


def test_without_the_provider_the_password_still_works(open_portal, idp):
    client = open_portal()
    idp.metadata = {"token_endpoint": 7}
    back = at_provider(client.get("/login/hospital", follow_redirects=False).headers["location"])
    assert "names no token_endpoint" in client.get(back).text
    sign_in(client)
    assert signed_in(client)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('issuer = "http://login.example"', "https"),
        ('issuer = "https://user@login.example"', "user name"),
        ('algorithms = ["HS256"]', "algorithms"),
        ('algorithms = ["none"]', "algorithms"),
        ("create_accounts = true", "roles"),
        ('scopes = ["profile"]', "openid"),
        ('[roles]\nx = "owner"', "roles"),
        ("unknown = 1", "unknown"),
        ("not toml", "TOML"),
    ],
)
def test_unsafe_settings_are_refused(line, message):
    base = {"issuer": '"https://login.example"', "client_id": '"c"', "portal_url": '"https://portal.example"'}
    lines = [f"{name} = {value}" for name, value in base.items() if not line.startswith(name)]
    OidcSettings.parse("\n".join(f"{n} = {v}" for n, v in base.items()))
    with pytest.raises(InvalidInput, match=message):
        OidcSettings.parse("\n".join([*lines, line]))


@pytest.mark.browser
def test_a_browser_that_comes_back_from_another_site_is_signed_in(
    browser, serve_app, shoot, axe, desk, new_context, now, tmp_path
):
    secret = tmp_path / "oidc.secret"
    secret.write_text(SECRET)
    with OidcServer(now=int(now.timestamp()), host="localhost") as idp:  # another site than 127.0.0.1
        text = f'issuer = "{idp.issuer}"\nclient_id = "{CLIENT}"\nclient_secret_file = "{secret}"\n'
        provider = OidcProvider(OidcSettings.parse(f'{text}portal_url = "http://127.0.0.1"'))
        address = serve_app(create_portal(replace(new_context(desk), hospital_login=provider)))
        provider.settings = provider.settings.model_copy(update={"portal_url": address})
        idp.redirect_uri = provider.settings.redirect_uri
        desk.accounts.link("anna", idp.issuer, "staff-17", now=now)
        page = browser.new_context(bypass_csp=False).new_page()
        page.goto(f"{address}/budget")
        shoot(page, "portal-hospital-sign-in")
        page.get_by_role("link", name="Sign in with your hospital account").click()
        page.get_by_role("heading", name="Privacy budget").wait_for()
        page.get_by_text("anna, data steward").wait_for()
        page.goto(f"{address}/people")
        page.get_by_text("Linked: it opens a session here.").wait_for()
        checked = browser.new_context(bypass_csp=True, storage_state=page.context.storage_state()).new_page()
        for path in ("login", "people"):
            checked.goto(f"{address}/{path}")
            assert axe(checked) == []
