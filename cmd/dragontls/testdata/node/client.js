// One scenario with ioredis through the proxy: node client.js SCENARIO. It prints "SCENARIO ok" or fails.
const assert = require('node:assert');
const fs = require('node:fs');
const Redis = require('ioredis');

const { PORT, PROTOCOL, CA, CERT, KEY, TLS, LOGIN } = process.env;
const clients = [];

function client(more = {}) {
  const c = new Redis(`rediss://${LOGIN ? `${LOGIN}@` : ''}127.0.0.1:${PORT}`, {
    protocol: Number(PROTOCOL),
    tls: {
      ca: fs.readFileSync(CA), cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY), servername: 'localhost',
      ...(TLS ? { minVersion: TLS, maxVersion: TLS } : {}),
    },
    ...more,
  });
  c.failures = [];
  c.on('error', (err) => c.failures.push(err));
  clients.push(c);
  return c;
}

const event = (c, name) => new Promise((resolve) => c.once(name, (...args) => resolve(args)));

// until polls: who listens to a channel is not told when all others know.
async function until(holds) {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

const scenarios = {
  async ready() {
    const c = client();
    await event(c, 'ready');
    assert.equal(await c.ping(), 'PONG');
    assert.equal(await c.set('ioredis', 'value'), 'OK');
    assert.equal(await c.get('ioredis'), 'value');
  },

  // Everything at once, as an application does whose first command does not wait for the connection.
  async login() {
    const c = client({ db: 3, connectionName: 'app' });
    assert.equal(await c.set('login', 'value'), 'OK');
    assert.equal(await c.get('login'), 'value');
    assert.equal(await c.client('GETNAME'), 'app');
    console.log(`user ${await c.acl('WHOAMI')}`);
    assert.deepEqual(c.failures, []);
  },

  async refused() {
    const c = client({ retryStrategy: null, maxRetriesPerRequest: 0, enableOfflineQueue: false });
    await event(c, 'error');
    console.log(c.failures.shift().message);
  },

  async pipeline() {
    const c = client();
    const p = c.pipeline();
    for (let i = 0; i < 1000; i++) p.set(`p:${i}`, i).get(`p:${i}`);
    p.hget('p:0', 'not a hash');
    const replies = await p.exec();
    for (let i = 0; i < 1000; i++) assert.deepEqual(replies[2 * i + 1], [null, String(i)]);
    assert.match(replies[2000][0].message, /^WRONGTYPE/);
    const many = await Promise.all(Array.from({ length: 500 }, (_, i) => c.get(`p:${i}`)));
    assert.deepEqual(many, Array.from({ length: 500 }, (_, i) => String(i)));
  },

  async multi() {
    const c = client();
    await c.del('m');
    assert.deepEqual(await c.multi().set('m', 1).incr('m').get('m').exec(), [[null, 'OK'], [null, 2], [null, '2']]);
    const other = client();
    await c.watch('m');
    await other.incr('m');
    assert.equal(await c.multi().incr('m').exec(), null);
    await c.multi({ pipeline: false });
    await c.set('m', 5);
    assert.deepEqual(await c.exec(), [[null, 'OK']].map(([e, r]) => [e, r]));
  },

  async pubsub() {
    const sub = client();
    const pub = client();
    const got = [];
    sub.on('message', (channel, message) => got.push(`${channel} ${message}`));
    sub.on('pmessage', (pattern, channel, message) => got.push(`${pattern} ${channel} ${message}`));
    const binary = [];
    sub.on('messageBuffer', (channel, message) => binary.push(message));
    assert.equal(await sub.subscribe('a'), 1);
    assert.equal(await sub.psubscribe('b*'), 2);
    for (let i = 0; i < 100; i++) await pub.publish('a', i);
    await pub.publish('bb', Buffer.from([0, 255, 13, 10]));
    await until(() => got.length >= 101);
    assert.deepEqual(got.slice(0, 100), Array.from({ length: 100 }, (_, i) => `a ${i}`));
    assert.equal(binary.length, 100);
    assert.equal(await sub.unsubscribe('a'), 1);
    assert.equal(await sub.punsubscribe('b*'), 0);
    assert.equal(await sub.ping(), 'PONG');
  },

  async blpop() {
    const [waiter, pusher] = [client(), client()];
    await pusher.del('queue');
    for (let i = 0; i < 20; i++) {
      const popped = waiter.blpop('queue', 10);
      await pusher.rpush('queue', i);
      assert.deepEqual(await popped, ['queue', String(i)]);
    }
    assert.equal(await waiter.blpop('queue', 0.05), null);
    const gone = client();
    await event(gone, 'ready');
    gone.blpop('queue', 0).catch(() => {});
    await until(async () => /blocked_clients:1/.test(await pusher.info('clients')));
    gone.disconnect();
    await until(async () => /blocked_clients:0/.test(await pusher.info('clients')));
    await pusher.rpush('queue', 'kept');
    assert.equal(await pusher.llen('queue'), 1);
  },

  async scripts() {
    const c = client({ scripts: { double: { numberOfKeys: 1, lua: "return redis.call('incrby', KEYS[1], ARGV[1] * 2)" } } });
    await c.del('s');
    assert.equal(await c.eval('return {KEYS[1], ARGV[1]}', 1, 'k', 'v').then(String), 'k,v');
    assert.equal(await c.double('s', 4), 8);
    assert.equal(await c.double('s', 4), 16);
    const sha = await c.script('LOAD', 'return 7');
    assert.equal(await c.evalsha(sha, 0), 7);
    await assert.rejects(c.evalsha('0'.repeat(40), 0), /NOSCRIPT/);
  },

  async big() {
    const c = client();
    const value = Buffer.alloc(5 << 20, 'dragon\r\n$1\r\n');
    assert.equal(await c.set('big', value), 'OK');
    const all = await Promise.all([c.getBuffer('big'), c.get('ioredis'), c.getBuffer('big')]);
    assert.ok(all[0].equals(value) && all[2].equals(value));
  },

  async reconnects() {
    const c = client({ retryStrategy: () => 1 });
    await event(c, 'ready');
    for (let i = 0; i < 10; i++) {
      const ready = event(c, 'ready');
      c.stream.destroy();
      await ready;
      assert.equal(await c.set(`r:${i}`, i), 'OK');
    }
    const crowd = Array.from({ length: 30 }, () => client());
    assert.deepEqual(await Promise.all(crowd.map((o, i) => o.echo(`hello ${i}`))), crowd.map((_, i) => `hello ${i}`));
  },
};

(async () => {
  const name = process.argv[2];
  await scenarios[name]();
  for (const c of clients) {
    assert.deepEqual(c.failures, []);
    if (c.status === 'ready') assert.equal(await c.quit(), 'OK');
  }
  console.log(`${name} ok`);
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
