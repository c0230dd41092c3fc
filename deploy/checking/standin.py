"""Stands in for Twilio's API, for Slack and for whoever is alerted, and posts texts as Twilio does."""

import base64
import collections
import hashlib
import hmac
import http.server
import json
import threading
import urllib.error
import urllib.parse
import urllib.request

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
TOKEN = "stand-in-token"
PUBLIC_URL = "https://mfa.example.com"
OURS = "+15005550006"
# Phones that take everything, refuse each text at first, and do not exist.
GOOD, FLAKY, GONE = "+12025550147", "+12025550169", "+12025550101"
KNOWN, UNKNOWN = "+12223334444", "+19998887777"


class StandIn:
    """The server, and what it was told."""

    def __init__(self, host: str):
        self.lock = threading.Lock()
        self.texts = collections.defaultdict(list)
        self.alerts: list[str] = []
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                status, answer = stand_in.answer(self.path, body)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: str) -> tuple[int, str]:
        """What the real one would say, with faults."""
        with self.lock:
            if path.startswith("/2010-04-01/"):
                form = dict(urllib.parse.parse_qsl(body))
                who, text = form["To"], form["Body"]
                seen = self.texts[f"{who} tries"]
                seen.append(text)
                if who == GONE:
                    return 400, '{"code": 21211, "message": "no such number", "status": 400}'
                # Each text by itself: every other call would, by chance, refuse one text as often as it is tried.
                if who == FLAKY and seen.count(text) % 2:
                    return 503, ""
                self.texts[who].append(text)
                return 201, '{"status": "queued"}'
            if path == "/alerts":
                self.alerts.append(body)
                return 200, "ok"
            seen = self.texts[f"{path} tries"]
            seen.append(body)
            if path == "/slack/busy" and len(seen) % 5 == 0:
                return 429, ""
            self.texts[path].append(json.loads(body)["text"])
            return 200, "ok"

    def subscribers(self, host: str) -> str:
        """The subscribers file that leads here."""
        slack = f"http://{host}:{self.port}/slack"
        return (
            f'[[subscriber]]\nname = "Example"\nfrom = ["{KNOWN}"]\nsms = ["{GOOD}", "{FLAKY}"]\nslack = ["{slack}/good"]\n\n'
            f'[fallback]\nname = "Unknown"\nsms = ["{GONE}"]\nslack = ["{slack}/busy"]\n'
        )


def post(url: str, sid: str, sender: str, text: str, token: str = TOKEN, **more: str) -> int:
    """Posts a text, signed as Twilio signs; the status of the answer, 0 without one."""
    form = {"AccountSid": ACCOUNT, "MessageSid": sid, "From": sender, "To": OURS, "Body": text} | more
    signed = f"{PUBLIC_URL}/twilio/sms" + "".join(name + form[name] for name in sorted(form))
    signature = base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    request = urllib.request.Request(f"{url}/twilio/sms", urllib.parse.urlencode(form).encode())
    request.add_header("X-Twilio-Signature", signature)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
