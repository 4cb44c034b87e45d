// The status page in a browser: node page.js. URL is its address, CHROMIUM the browser; PORT, CA, CERT and KEY are those of the proxy.
// 60 sessions of "cn:client" and one of a hostile client are open. It prints "page ok" or fails. SCREENSHOTS is a directory or not set.
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const tls = require('node:tls');
const { chromium } = require('playwright-core');

const { URL: url, CHROMIUM, PORT, CA, CERT, KEY, SCREENSHOTS } = process.env;
const hostile = 'cn:<img src=x onerror=pwned=1>';

let browser;

// open loads the page in a context of its own, and has the test fail for whatever the console says and for each request elsewhere.
async function open(options = {}, query = '') {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on('console', (m) => page.faults.push(`console: ${m.text()}`));
  page.on('pageerror', (e) => page.faults.push(`error: ${e.message}`));
  page.on('dialog', (d) => { page.faults.push('a dialog'); d.dismiss(); });
  page.on('request', (r) => { if (new URL(r.url()).origin !== new URL(url).origin && r.url() !== 'data:,') page.faults.push(`request: ${r.url()}`); });
  page.on('requestfailed', (r) => page.faults.push(`failed: ${r.url()}`));
  const answer = await page.goto(url + query);
  assert.equal(answer.status(), 200);
  return page;
}

async function close(page) {
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const rows = (page) => page.locator('#sessions tbody tr').count();
const cells = (page, label) => page.locator(`#sessions td[data-label="${label}"]`).allInnerTexts();
const sorted = (all, down) => all.map(Number).every((n, i, a) => i === 0 || (down ? a[i - 1] >= n : a[i - 1] <= n));

// follow clicks on what leads to another page, and waits for that.
async function follow(page, locator, to) {
  await locator.click();
  await page.waitForURL(to);
}

// use does what an operator does: look, sort, turn pages, filter.
async function use(page) {
  assert.match(await page.locator('#health').innerText(), /^Ready/);
  assert.match(await page.locator('#events').innerText(), /unknown_ca[^]*CN=stranger[^]*add the CA/);
  assert.match(await page.locator('#certificates').innerText(), /server\s+CN=localhost/);
  assert.equal(await rows(page), 50);
  await follow(page, page.getByRole('link', { name: 'Commands' }), /sort=-commands/);
  assert.equal(await page.locator('th[aria-sort="descending"]').innerText(), 'Commands ▼');
  assert.ok(sorted(await cells(page, 'Commands'), true));
  await follow(page, page.getByRole('link', { name: 'Commands' }), /sort=commands/);
  assert.equal(await page.locator('th[aria-sort="ascending"]').innerText(), 'Commands ▲');
  assert.ok(sorted(await cells(page, 'Commands'), false));
  await follow(page, page.getByRole('link', { name: 'next' }), /page=2/);
  assert.equal(await rows(page), 11);
  await page.getByLabel('Filter').fill('ONERROR');
  await follow(page, page.getByRole('button', { name: 'Show' }), /filter=ONERROR&sort=commands/); // the order stays
  assert.equal(await rows(page), 1);
  assert.equal((await cells(page, 'Identity'))[0], hostile);
  await follow(page, page.getByRole('link', { name: 'all', exact: true }), /\?#sessions$/);
  assert.equal(await rows(page), 50);
}

// contrast returns the ratio of WCAG 2 of an element's text to the background of its section.
const contrast = (page, selector) => page.locator(selector).first().evaluate((element) => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const on = element.closest('section') ?? document.body;
  const both = [light(getComputedStyle(element).color), light(getComputedStyle(on).backgroundColor)].sort((a, b) => b - a);
  return { ratio: (both[0] + 0.05) / (both[1] + 0.05), dark: light(getComputedStyle(on).backgroundColor) < 0.2 };
});

async function screenshot(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

// session opens one more session.
function session() {
  return new Promise((resolve, reject) => {
    const c = tls.connect({ host: '127.0.0.1', port: PORT, servername: 'localhost', ca: fs.readFileSync(CA), cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY) });
    c.on('error', reject);
    c.on('secureConnect', () => c.write('PING\r\n'));
    c.once('data', () => resolve(c));
  });
}

const scenarios = {
  async 'without JavaScript'() {
    const page = await open({ javaScriptEnabled: false });
    await use(page);
    await close(page);
  },

  async 'with JavaScript'() {
    const page = await open();
    await use(page);
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
    await close(page);
  },

  // The page is brought up to date, and what somebody is typing stays.
  async refresh() {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.clock.install();
    await page.goto(url);
    await page.evaluate(() => { globalThis.mark = true; });
    assert.equal(await page.locator('.matched').innerText(), '61 of 61 sessions');
    const more = await session();
    await page.clock.runFor(5000);
    await page.getByText('62 of 62 sessions').waitFor();
    await page.getByLabel('Filter').pressSequentially('half a wo');
    const told = page.waitForResponse(url + '/');
    await page.clock.runFor(5000);
    await (await told).finished();
    assert.equal(await page.getByLabel('Filter').inputValue(), 'half a wo');
    assert.equal(await page.evaluate(() => globalThis.mark), true); // it was never loaded again
    more.destroy();
    await page.route('**/*', (route) => route.abort());
    await page.clock.runFor(5000);
    await page.getByRole('alert').waitFor(); // the figures are old
    await context.close();
  },

  async 'widths of phones'() {
    for (const width of [320, 375, 768]) {
      const page = await open({ viewport: { width, height: 800 } });
      // A table may scroll within itself where there is room for one. On phones its rows become cards.
      const wide = await page.evaluate((scrolls) => [...document.querySelectorAll('body *')]
        .filter((e) => e.getBoundingClientRect().right > innerWidth && !e.closest(scrolls)).map((e) => e.outerHTML.slice(0, 200)).join('\n'), width > 720 ? '.wide, .scrolls' : 'thead, .scrolls');
      assert.ok(wide === '', `too wide at ${width}: ${wide}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `it scrolls sideways at ${width}`);
      if (width === 375) await screenshot(page, 'phone');
      await close(page);
    }
  },

  async 'dark and light'() {
    for (const colorScheme of ['dark', 'light']) {
      const page = await open({ colorScheme });
      for (const selector of ['.verdict', 'td', 'th', '.cure', '.about', 'a', '.axis', 'code']) {
        const got = await contrast(page, selector);
        assert.ok(got.ratio >= 4.5 && got.dark === (colorScheme === 'dark'), `${selector} in ${colorScheme}: ${JSON.stringify(got)}`);
      }
      await screenshot(page, colorScheme);
      await close(page);
    }
  },
};

(async () => {
  const sandbox = process.getuid() !== 0; // Chromium's sandbox does not work for root
  browser = await chromium.launch({ executablePath: CHROMIUM, chromiumSandbox: sandbox });
  for (const [name, run] of Object.entries(scenarios)) {
    await run().catch((err) => { throw new Error(`${name}: ${err.message}`, { cause: err }); });
  }
  await browser.close();
  console.log('page ok');
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
