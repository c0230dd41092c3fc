"""Makes signature_vectors.json: requests as Twilio sends them, signed by Twilio's own library.

    python3 -m venv /tmp/twilio && /tmp/twilio/bin/pip install twilio==9.13.0
    /tmp/twilio/bin/python tests/data/signature_vectors.py > tests/data/signature_vectors.json

Each case says what is configured (`public_url`, `tokens`), what is called (`method`, `target`,
`content_type`, `body`), which URL was signed with which parameters, and what must come of it
(`accepted`). `signature` is RequestValidator.compute_signature of that URL and those parameters, and
`library` what RequestValidator.validate says of the URL that is configured, where it can say anything:
it is null for cases that are not about the signature.
"""

import hashlib
import json
import sys
from urllib.parse import quote, quote_plus, urlencode

import twilio
from twilio.request_validator import RequestValidator

HOST = "mfa.example.com"
URL = f"https://{HOST}"
TOKEN = "0123456789abcdef0123456789abcdef"
OLD = "fedcba9876543210fedcba9876543210"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
SID = "SM00112233445566778899aabbccddeeff"
FORM = "application/x-www-form-urlencoded"
BASE = [
    ("ToCountry", "US"), ("SmsMessageSid", SID), ("NumMedia", "0"), ("ToCity", ""), ("FromZip", ""),
    ("SmsSid", SID), ("SmsStatus", "received"), ("Body", "Your code is 204816"), ("To", "+15005550006"),
    ("NumSegments", "1"), ("MessageSid", SID), ("AccountSid", ACCOUNT), ("From", "+12025550123"),
    ("ApiVersion", "2010-04-01"),
]


class Many(dict):
    """Parameters of which some have several values, as web frameworks hand them over."""

    def __init__(self, pairs):
        super().__init__()
        for name, value in pairs:
            self.setdefault(name, []).append(value)

    def getlist(self, name):
        return self[name]


def sign(url, pairs=(), token=TOKEN):
    return RequestValidator(token).compute_signature(url, Many(pairs))


def encoded(pairs):
    return urlencode(pairs, quote_via=quote_plus)


def message(**changes):
    """The usual fields with some changed (None leaves one out) and others added at the end."""
    left = dict(changes)
    pairs = [(name, left.pop(name, value)) for name, value in BASE]
    return [(name, value) for name, value in pairs + list(left.items()) if value is not None]


cases = []


def case(name, accepted, *, public_url=URL, target="/twilio/sms", method="POST", content_type=FORM,
         pairs=None, body=None, signed_url=None, signed_pairs=None, signature=None, token=TOKEN,
         tokens=(TOKEN,), ask=True):
    pairs = message() if pairs is None else pairs
    body = (encoded(pairs) if method == "POST" else "") if body is None else body
    called = public_url.rstrip("/") + target
    signed_url = called if signed_url is None else signed_url
    signed_pairs = (pairs if method == "POST" else []) if signed_pairs is None else signed_pairs
    made = sign(signed_url, signed_pairs, token) if signature is None else signature
    says = None
    if ask:
        sent = Many(pairs) if method == "POST" else Many([])
        says = any(RequestValidator(one).validate(called, sent, made) for one in tokens)
    cases.append({
        "name": name, "public_url": public_url, "tokens": list(tokens), "method": method, "target": target,
        "content_type": content_type, "body": body, "signature": made, "signed_url": signed_url,
        "accepted": accepted, "library": says,
    })


def get(name, accepted, prefix="/twilio/sms?", **more):
    case(name, accepted, method="GET", content_type=None, target=prefix + encoded(message()), **more)


# The plain case, and what the signature covers.
case("plain", True)
case("root path", True, target="/")
case("query of a POST is signed once, with the URL", True, target="/twilio/sms?foo=1&bar=2")
case("query of a POST is not signed again as fields", False, target="/twilio/sms?foo=1",
     signed_pairs=message(foo="1"))
case("query in its own order", True, target="/twilio/sms?z=1&a=2&m=3")
case("query in another order", False, target="/twilio/sms?z=1&a=2", signed_url=URL + "/twilio/sms?a=2&z=1")
case("a field that was not signed", False, pairs=message(Extra="1"), signed_pairs=message())
case("a signed field that is not there", False, signed_pairs=message(Extra="1"))
case("an unknown field that was signed", True, pairs=message(SomethingNew="x"))
case("another text", False, signed_pairs=message(Body="Your code is 204817"))
case("another token", False, token="another")
case("the empty token", False, token="")
case("lower case path", False, signed_url=URL + "/TWILIO/sms")
case("no signature at all", False, signature="")
case("a signature that is too short", False, signature=sign(URL + "/twilio/sms", message())[:-1])
case("a signature without padding", False, signature=sign(URL + "/twilio/sms", message()).rstrip("="))
case("a signature with a blank", False, signature=sign(URL + "/twilio/sms", message()) + " ")

# Names, values and their order.
case("one name begins like another", True, pairs=message(Reason="a", ReasonConferenceEnded="b"))
case("upper case sorts before lower case", True, pairs=message(callSid="1", CallSid="2", CALLSID="3"))
case("an empty value leaves its name", True, pairs=message(Body="", FromCity="", FromState=""))
case("an empty value is not left out", False, pairs=message(Extra=""), signed_pairs=message())
case("blanks are kept", True, pairs=message(Body="  two before, one after "))
case("line breaks", True, pairs=message(Body="one\r\ntwo\nthree\r"))
case("a tab and a bell", True, pairs=message(FromCity="a\tb\x07"))
case("signs of URLs", True, pairs=message(Body="a&b=c?d#e%20f+g/h:i@j"))
case("accents, emoji and right to left", True, pairs=message(Body="Grüße 😀 \u202eشفرة 482913 \u200b✓"))
case("apostrophe in a value", True, pairs=message(Body="it's O'Neil's"))
case("a name with a blank and an accent", True, pairs=message(**{"Näme of it": "1"}))
case("names beyond the basic plane", True, pairs=message(**{"\uff5e": "1", "😀": "2"}))
case("JSON in a value", True, pairs=message(AddOns='{"status":"successful","results":{"a":[1,2]}}'))
case("a long text", True, pairs=message(Body="0123456789abcdef" * 100, NumSegments="11"))
case("two values of a name", True, pairs=message() + [("Address", "b"), ("Address", "a")])
case("two values of a name, the other way", True, pairs=message() + [("Address", "a"), ("Address", "b")])
case("a value twice counts once", True, pairs=message() + [("Address", "a"), ("Address", "a")],
     signed_pairs=message(Address="a"))
case("only the last value was signed", False, pairs=message() + [("Address", "a"), ("Address", "b")],
     signed_pairs=message(Address="b"))
case("a name with an empty and a full value", True, pairs=message() + [("Address", ""), ("Address", "a")])
case("fields in reverse order", True, pairs=list(reversed(message())))
case("media", True, pairs=message(NumMedia="1", MediaUrl0="https://api.twilio.com/2010-04-01/Accounts/x",
                                  MediaContentType0="image/png", MessageSid="MM" + SID[2:]))
case("whatsapp", True, pairs=message(From="whatsapp:+12025550123", To="whatsapp:+15005550006",
                                     ProfileName="Ada", WaId="12025550123"))
case("short code", True, pairs=message(From="72404"))
case("sender name", True, pairs=message(From="My Bank"))

# How the form may be written.
case("blanks as %20", True, body=urlencode(message(), quote_via=quote), pairs=message())
case("escapes in lower case", True, body=encoded(message()).replace("%2B", "%2b"))
case("raw UTF-8 in the body", True, pairs=message(Body="Grüße"),
     body=encoded(message(Body="@@")).replace("%40%40", "Grüße"))
case("empty fields between ampersands", True, body="&&" + encoded(message()) + "&")
case("a name without an equals sign", True, body=encoded(message()) + "&Flag", pairs=message(Flag=""))
case("content type with a charset", True, content_type=FORM + "; charset=UTF-8")
case("content type in capitals", True, content_type=FORM.upper())

# Ports.
case("https, 443 signed", True, signed_url=f"https://{HOST}:443/twilio/sms")
case("https, 80 signed", False, signed_url=f"https://{HOST}:80/twilio/sms")
case("http", True, public_url=f"http://{HOST}")
case("http, 80 signed", True, public_url=f"http://{HOST}", signed_url=f"http://{HOST}:80/twilio/sms")
case("http configured, https signed", False, public_url=f"http://{HOST}", signed_url=URL + "/twilio/sms")
case("https configured, http signed", False, signed_url=f"http://{HOST}/twilio/sms")
case("443 configured, none signed", True, public_url=URL + ":443", signed_url=URL + "/twilio/sms")
case("443 configured and signed", True, public_url=URL + ":443")
case("8443 kept", True, public_url=URL + ":8443")
case("8443 dropped", True, public_url=URL + ":8443", signed_url=URL + "/twilio/sms")
case("8443 configured, 443 signed", False, public_url=URL + ":8443", signed_url=URL + ":443/twilio/sms")
case("8443 configured, 9443 signed", False, public_url=URL + ":8443", signed_url=URL + ":9443/twilio/sms")
case("none configured, 8443 signed", False, signed_url=URL + ":8443/twilio/sms")
case("http 8080 kept", True, public_url=f"http://{HOST}:8080")
case("http 8080 dropped", True, public_url=f"http://{HOST}:8080", signed_url=f"http://{HOST}/twilio/sms")

# User and password. The library takes a user only as it is configured, and cuts at the wrong colon when
# there is a port too; Twilio itself is said to drop both over HTTPS.
USER = f"https://hook:pa55@{HOST}"
case("user and password kept", True, public_url=USER)
case("user and password kept, 443 signed", True, public_url=USER, signed_url=USER + ":443/twilio/sms")
case("user alone", True, public_url=f"https://hook@{HOST}")
case("user and password dropped", True, public_url=USER, signed_url=URL + "/twilio/sms", ask=False)
case("user and port kept", True, public_url=USER + ":8443")
case("user kept, port dropped", True, public_url=USER + ":8443", signed_url=USER + "/twilio/sms", ask=False)
case("user and port dropped", True, public_url=USER + ":8443", signed_url=URL + "/twilio/sms", ask=False)
case("user dropped, port kept", True, public_url=USER + ":8443", signed_url=URL + ":8443/twilio/sms", ask=False)
case("another password", False, public_url=USER, signed_url=f"https://hook:pa56@{HOST}/twilio/sms")
case("none configured, a user signed", False, signed_url=USER + "/twilio/sms")
case("escapes in a password", True, public_url=f"https://hook:p%40ss%3A@{HOST}")

# Hosts and prefixes.
case("host in capitals", True, public_url="https://MFA.Example.com")
case("host in capitals, lower case signed", False, public_url="https://MFA.Example.com",
     signed_url=URL + "/twilio/sms")
case("IPv6", True, public_url="https://[2001:db8::1]", ask=False)
case("IPv6 with a port", True, public_url="https://[2001:db8::1]:8443", ask=False)
case("IPv6, port dropped", True, public_url="https://[2001:db8::1]:8443",
     signed_url="https://[2001:db8::1]/twilio/sms", ask=False)
case("prefix", True, public_url=URL + "/hooks")
case("prefix with a slash", True, public_url=URL + "/hooks/")
case("prefix not signed", False, public_url=URL + "/hooks", signed_url=URL + "/twilio/sms")
case("another host", False, signed_url="https://mfa.example.org/twilio/sms")

# Spellings of the target.
case("trailing slash signed", False, signed_url=URL + "/twilio/sms/")
case("a lone question mark", False, target="/twilio/sms?", signed_url=URL + "/twilio/sms", ask=False)
case("apostrophe in the query, raw", True, target="/twilio/sms?n=O'Neil")
case("apostrophe in the query, escaped when signed", True, target="/twilio/sms?n=O'Neil",
     signed_url=URL + "/twilio/sms?n=O%27Neil", ask=False)
case("apostrophe in the query, raw when signed", True, target="/twilio/sms?n=O%27Neil",
     signed_url=URL + "/twilio/sms?n=O'Neil", ask=False)
case("escapes are not decoded", False, target="/twilio/sms?n=%41", signed_url=URL + "/twilio/sms?n=A")
case("the case of escapes is kept", False, target="/twilio/sms?n=%2b", signed_url=URL + "/twilio/sms?n=%2B")
case("a plus is not a %20", False, target="/twilio/sms?n=a+b", signed_url=URL + "/twilio/sms?n=a%20b")
case("dots are not resolved", False, target="/twilio/sms?x=/../y", signed_url=URL + "/y")
# A webhook registered without a path is called with `/`; the library accepts it as it was registered.
assert RequestValidator(TOKEN).validate(URL, Many(message()), sign(URL, message()))
case("registered without a path", True, target="/", signed_url=URL, ask=False)
case("registered without a path, 443 signed", True, target="/", signed_url=URL + ":443", ask=False)
assert RequestValidator(TOKEN).validate(URL + "?a=1", Many(message()), sign(URL + "?a=1", message()))
case("registered without a path, with a query", True, target="/?a=1", signed_url=URL + "?a=1", ask=False)

# GET.
get("GET", True)
get("GET at the root", True, prefix="/?")
get("GET with a query of ours first", True, prefix="/twilio/sms?a=1&")
get("GET with the fields signed as well", False, signed_pairs=message())
get("GET, another query signed", False, signed_url=URL + "/twilio/sms?" + encoded(message(Body="x")))
get("GET with an unsigned body", False, body="Body=x", ask=False)
case("POST signed like a GET", False, signed_pairs=[])

# Several tokens.
case("two tokens, signed by the first", True, tokens=(TOKEN, OLD))
case("two tokens, signed by the second", True, tokens=(TOKEN, OLD), token=OLD)
case("two tokens, signed by neither", False, tokens=(TOKEN, OLD), token="another")
case("two tokens, the second and 443", True, tokens=(TOKEN, OLD), token=OLD, signed_url=URL + ":443/twilio/sms")


# Bodies that are no form. The library checks them only when it is handed the text of the body.
def json_case(name, proved, *, body='{"a": "b"}', named=None, content_type="application/json", query=None):
    named = hashlib.sha256(body.encode()).hexdigest() if named is None else named
    target = "/twilio/sms?bodySHA256=" + named if query is None else "/twilio/sms" + query
    signature = RequestValidator(TOKEN).compute_signature(URL + target, {})
    says = RequestValidator(TOKEN).validate(URL + target, body, signature) if query is None else None
    cases.append({
        "name": name, "public_url": URL, "tokens": [TOKEN], "method": "POST", "target": target,
        "content_type": content_type, "body": body, "signature": signature, "signed_url": URL + target,
        # It proves its origin, and is no message all the same.
        "accepted": False, "proved": proved, "library": says,
    })


json_case("JSON named by its hash", True)
json_case("JSON that is empty", True, body="{}")
json_case("JSON with accents", True, body='{"ä": "✓"}')
json_case("another body than the named one", False, named=hashlib.sha256(b"{}").hexdigest())
json_case("a hash in capitals", False, named=hashlib.sha256(b'{"a": "b"}').hexdigest().upper())
json_case("a hash that is cut off", False, named=hashlib.sha256(b'{"a": "b"}').hexdigest()[:-1])
json_case("no hash", False, query="?a=1")
json_case("no hash and no query", False, query="")
json_case("text", True, content_type="text/plain")
json_case("a form under another name", False, body=encoded(message()), content_type="text/plain", query="")

json.dump({"made_with": f"twilio {twilio.__version__} (PyPI), tests/data/signature_vectors.py", "cases": cases},
          sys.stdout, ensure_ascii=False, indent=1)
print()
