// The webhook as it is often written: verify, send to everybody, then answer. Nothing is stored.
import express from 'express';
import { recipients, send, twiml, verify } from './twilio.mjs';

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.urlencoded({ extended: false }));
app.post('/twilio/sms', verify, async (req, res) => {
  const { From: from, Body: body } = req.body;
  await Promise.all(recipients.map((recipient) => send({ ...recipient, name: 'Example', body, from })));
  twiml(res);
});
app.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('ready'));
