// Drives ioredis or node-redis while their server is killed: node node.js ioredis|node-redis. See ../kill-trial, which says what
// the variables are and reads what this prints.
const fs = require('node:fs');

const { HOST, PORT, CA, CERT, KEY, CLIENTS, PAUSE } = process.env;
const library = process.argv[2];
const tls = CA && { ca: fs.readFileSync(CA), cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY) };
const sum = { calls: 0, errors: 0, lost: 0, repeated: 0, wrong: 0, alive: 0 };
let ended = false;

// Each returns get, set, incr, and a transaction that returns the result of its INCR.
const connect = {
  async ioredis() {
    const Redis = require('ioredis');
    const c = new Redis({ host: HOST, port: Number(PORT), ...(tls ? { tls } : {}) });
    c.on('error', () => {}); // it tells of lost connections here, and goes on
    return {
      get: (k) => c.get(k),
      set: (k, v) => c.set(k, v),
      incr: (k) => c.incr(k),
      async exec(s, v, m) {
        const replies = await c.multi().set(s, v).incr(m).exec();
        for (const [err] of replies) if (err) throw err;
        return replies[1][1];
      },
    };
  },
  async 'node-redis'() {
    const { createClient } = require('redis');
    const c = createClient({ socket: { host: HOST, port: Number(PORT), ...(tls ? { tls: true, ...tls } : {}) } });
    c.on('error', () => {});
    await c.connect();
    return {
      get: (k) => c.get(k),
      set: (k, v) => c.set(k, v),
      incr: (k) => c.incr(k),
      exec: async (s, v, m) => (await c.multi().set(s, v).incr(m).exec())[1],
    };
  },
};

async function attempt(op, call) {
  sum.calls++;
  try {
    return { value: await call() };
  } catch (err) {
    sum.errors++;
    const text = `${err.message || err.code || err}`.replace(/\s+/g, ' ');
    console.log(`error ${(Date.now() / 1000).toFixed(3)} ${op} ${err.constructor.name}: ${text}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
    return { err };
  }
}

function note(n, { value, err }) {
  if (err) {
    n.unsure++;
    return;
  }
  n.acked++;
  if (!(value > n.last)) sum.wrong++;
  n.last = value;
}

async function ride(i, ready) {
  const c = await connect[library]();
  const key = `${library}:${i}`;
  const plain = { acked: 0, unsure: 0, last: 0 };
  const inside = { ...plain };
  let acked = 0;
  for (let n = 1; !ended; n++) {
    if (!(await attempt('SET', () => c.set(key, String(n)))).err) acked = n;
    const got = await attempt('GET', () => c.get(key));
    if (!got.err && !(Number(got.value) >= acked && Number(got.value) <= n)) sum.wrong++;
    note(plain, await attempt('INCR', () => c.incr(`${key}:n`)));
    note(inside, await attempt('EXEC', () => c.exec(`${key}:s`, String(n), `${key}:m`)));
    if (n === 1) ready();
    await new Promise((resolve) => setTimeout(resolve, Number(PAUSE)));
  }
  for (const [name, n] of [[':n', plain], [':m', inside]]) {
    const final = Number(await c.get(key + name));
    sum.lost += Math.max(0, n.acked - final);
    sum.repeated += Math.max(0, final - n.acked - n.unsure);
  }
  sum.alive++;
}

const rides = [];
const ready = Array.from({ length: Number(CLIENTS) }, (_, i) => new Promise((resolve) => {
  rides.push(ride(i, resolve).catch((err) => console.log(`error ${Date.now() / 1000} END ${err.message}`)));
}));
process.stdin.on('data', () => {}).on('end', async () => {
  ended = true;
  // A call that never ends is a client that is not alive.
  await Promise.race([Promise.all(rides), new Promise((resolve) => setTimeout(resolve, 20000))]);
  console.log(`end ${JSON.stringify(sum)}`);
  process.exit(0);
});
Promise.all(ready).then(() => console.log('ready'));
