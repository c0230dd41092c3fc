// A BullMQ worker: 200 jobs at a time, each one send.
import { Worker } from 'bullmq';
import { send } from './twilio.mjs';

const connection = { host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
const worker = new Worker('mfa', (job) => send(job.data), { connection, concurrency: 200 });
worker.on('error', (error) => console.error(error.message));
await worker.waitUntilReady();
console.log('ready');
