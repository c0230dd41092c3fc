// What the peers share: Twilio's signature, and who gets a message.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { Agent, request } from 'undici';

const { AUTH_TOKEN, PUBLIC_URL, PROVIDER, ACCOUNT, CLIENT } = process.env;

// Express middleware: 403 unless Twilio signed the request. One spelling of the URL is tried, where
// Twilio's own library tries two.
export function verify(req, res, next) {
  const fields = req.body ?? {};
  let signed = PUBLIC_URL + req.originalUrl;
  for (const name of Object.keys(fields).sort()) signed += name + fields[name];
  const expected = createHmac('sha1', AUTH_TOKEN).update(signed, 'utf8').digest();
  const given = Buffer.from(req.get('X-Twilio-Signature') ?? '', 'base64');
  if (given.length === expected.length && timingSafeEqual(given, expected)) return next();
  res.status(403).send('not signed by Twilio');
}

export const recipients = [
  { channel: 'sms', to: '+14443332222' },
  { channel: 'sms', to: '+10009998765' },
  { channel: 'slack', to: `${PROVIDER}/slack/mfa` },
];

// Connections are kept and used again; there are never fewer than there are sends at once.
const dispatcher = new Agent({ connections: 256, pipelining: 1 });

// By undici itself, or with CLIENT=fetch as most programs do: by what Node.js has built in.
async function post(url, options) {
  if (CLIENT === 'fetch') {
    const answer = await fetch(url, options);
    await answer.text();
    return answer.status;
  }
  const answer = await request(url, { ...options, dispatcher });
  await answer.body.dump();
  return answer.statusCode;
}

const authorization = 'Basic ' + Buffer.from(`${ACCOUNT}:${AUTH_TOKEN}`).toString('base64');
const messages = `${PROVIDER}/2010-04-01/Accounts/${ACCOUNT}/Messages.json`;

export async function send({ channel, to, name, body, from }) {
  const options = { method: 'POST' };
  let url = messages;
  if (channel === 'sms') {
    const text = `MFA challenge from ${name}\n${body}`;
    options.headers = { authorization, 'content-type': 'application/x-www-form-urlencoded' };
    options.body = new URLSearchParams({ To: to, From: '+15005550006', Body: text }).toString();
  } else {
    url = to;
    options.headers = { 'content-type': 'application/json' };
    const text = `*New MFA challenge*\n From: ${name}\n\n\`\`\`\n${body}\n\`\`\``;
    options.body = JSON.stringify({ username: 'MFA Broadcaster', icon_emoji: ':key:', text });
  }
  const status = await post(url, options);
  if (status >= 300) throw new Error(`status ${status} from ${from}`);
}

export const twiml = (res) => res.type('text/xml').send('<Response/>');
