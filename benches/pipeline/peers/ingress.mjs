// A BullMQ ingress: verify, put three jobs into the queue in one round trip, then answer.
import { Queue } from 'bullmq';
import express from 'express';
import { recipients, twiml, verify } from './twilio.mjs';

const queue = new Queue('mfa', { connection: { host: '127.0.0.1', port: Number(process.env.REDIS_PORT) } });
await queue.waitUntilReady();

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.urlencoded({ extended: false }));
app.post('/twilio/sms', verify, async (req, res) => {
  const { MessageSid: sid, From: from, Body: body } = req.body;
  await queue.addBulk(
    recipients.map((recipient, index) => ({
      name: recipient.channel,
      data: { ...recipient, name: 'Example', body, from },
      // The id makes a repeated webhook add nothing, as ours does.
      opts: { jobId: `${sid}-${index}`, attempts: 8, removeOnComplete: true },
    })),
  );
  twiml(res);
});
app.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('ready'));
