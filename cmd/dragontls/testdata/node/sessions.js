// 50 sessions with default options that do GETs and SETs: node sessions.js ioredis|redis. It prints "working" once each
// has got through five rounds, goes on until its standard input ends, and then prints how many replies there were, or fails.
const assert = require('node:assert');
const fs = require('node:fs');

const { PORT, CA, CERT, KEY } = process.env;
const tls = { ca: fs.readFileSync(CA), cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY), servername: 'localhost' };
const failures = [];
const failed = (err) => failures.push(err);
let replies = 0;

const libraries = {
  async ioredis() {
    const Redis = require('ioredis');
    const c = new Redis({ host: '127.0.0.1', port: Number(PORT), tls });
    c.on('error', failed);
    return { get: (k) => c.get(k), set: (k, v) => c.set(k, v), quit: () => c.quit() };
  },
  async redis() {
    const { createClient } = require('redis');
    const c = createClient({ socket: { host: '127.0.0.1', port: Number(PORT), tls: true, ...tls } });
    c.on('error', failed);
    await c.connect();
    return { get: (k) => c.get(k), set: (k, v) => c.set(k, v), quit: () => c.close() };
  },
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

(async () => {
  let ended = false;
  process.stdin.on('end', () => { ended = true; }).resume();
  const name = process.argv[2];
  const sessions = await Promise.all(Array.from({ length: 50 }, () => libraries[name]()));
  const round = (n) => Promise.all(sessions.map(async (c, i) => {
    assert.equal(await c.set(`${name}:${i}`, `${n}`), 'OK');
    assert.equal(await c.get(`${name}:${i}`), `${n}`);
    replies += 2;
  }));
  for (let n = 1; !ended; n++) {
    await round(n);
    if (n === 5) console.log('working');
    await sleep(100);
  }
  await Promise.all(sessions.map((c) => c.quit()));
  assert.deepEqual(failures, []);
  console.log(`${replies} replies`);
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
