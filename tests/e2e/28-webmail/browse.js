// One person's emergency, in a real browser: node browse.js URL FOLDER desktop|phone LANGUAGE. Says "at STEP" and waits for a line on
// standard input where the world must move on first.
const { chromium } = require('playwright-core');
const readline = require('readline');

const [url, folder, device, language] = process.argv.slice(2);
const words = { 'en-US': { login: 'Login', welcome: 'Emergency mail' }, 'de-DE': { login: 'Anmelden', welcome: 'Notfall-Mail' } }[language];
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function check(condition, what) {
  if (!condition) throw new Error(what);
}

let page;

async function main() {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  const size = device === 'phone' ? { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true } : { viewport: { width: 1280, height: 800 } };
  page = await (await browser.newContext({ ...size, locale: language })).newPage();
  const problems = [];
  page.on('pageerror', error => problems.push(error.message));
  page.on('response', response => { if (response.status() >= 500) problems.push(`${response.status()} ${response.url()}`); });
  page.on('dialog', dialog => dialog.accept());
  // What everybody can read and hear (WCAG 2.1), in the light and in the dark.
  const rules = ['button-name', 'color-contrast', 'image-alt', 'label', 'link-in-text-block', 'link-name', 'meta-viewport', 'select-name'];
  const complaints = async () => (await page.evaluate(runOnly => axe.run({ exclude: ['#messagebody'] }, { runOnly }), rules)).violations.flatMap(
    one => one.nodes.map(node => `${one.id} ${node.target} ${node.html.slice(0, 100)}`));
  const shot = async name => {
    await page.waitForLoadState('load');
    await page.screenshot({ path: `${folder}/${device}-${name}.png` });
    await page.addScriptTag({ path: require.resolve('axe-core/axe.min.js') });
    for (const dark of [false, true]) {
      await page.evaluate(dark => {
        jQuery.fx.off = true;  // what fades has no contrast
        document.documentElement.classList.toggle('dark-mode', dark);
      }, dark);
      await page.waitForFunction(() => jQuery(':animated').length === 0 && document.getAnimations().every(one => one.playState !== 'running'));
      const found = await complaints();
      check(found.length === 0, `${name}${dark ? ', dark' : ''}: ${found.join('; ')}`);
      if (dark) await page.screenshot({ path: `${folder}/${device}-${name}-dark.png` });
    }
    await page.evaluate(() => {
      jQuery.fx.off = false;
      document.documentElement.classList.remove('dark-mode');
    });
  };
  const at = async step => { console.log(`at ${step}`); await lines.next(); };
  const subjects = () => page.locator('#messagelist tr.message td.subject .subject a').allInnerTexts();
  const shows = async subject => page.waitForFunction(wanted => [...document.querySelectorAll('#messagelist tr.message')].some(row => row.innerText.includes(wanted)), subject);
  const uidOf = subject => page.evaluate(wanted => Object.entries(rcmail.message_list.rows).find(([, row]) => row.obj.innerText.includes(wanted))[0], subject);
  const inbox = async () => { await page.goto(`${url}?_task=mail&_mbox=INBOX`); await page.waitForSelector('#messagelist tr.message'); };
  const sent = async () => page.waitForFunction(() => !location.search.includes('compose'), null, { timeout: 20000 });

  await page.goto(url);
  check((await page.innerText('.holdfast-welcome h1')) === words.welcome, 'the welcome is in the person\'s language');
  check((await page.innerText('#rcmloginsubmit')).toLowerCase() === words.login.toLowerCase(), 'and the button');
  await shot('1-login');
  await page.fill('#rcmloginuser', 'ada@example.org');
  await page.fill('#rcmloginpwd', 'a wrong password');
  await page.click('#rcmloginsubmit');
  await page.waitForSelector('#messagestack .error, #messagestack .warning, .alert-warning');
  await page.fill('#rcmloginuser', 'ada@example.org');
  await page.fill('#rcmloginpwd', 'correct horse battery');
  await page.click('#rcmloginsubmit');
  await shows('Yesterday');
  await shot('2-inbox');

  await at('arrival');
  await page.waitForFunction(() => {
    if (!rcmail.busy) rcmail.command('checkmail');
    return [...document.querySelectorAll('#messagelist tr.message')].some(row => row.innerText.includes('Arrives now'));
  }, null, { polling: 1000 });

  await page.waitForFunction(() => !rcmail.busy);
  await page.fill('#mailsearchform', 'figures');
  await page.press('#mailsearchform', 'Enter');
  await page.waitForFunction(() => document.querySelectorAll('#messagelist tr.message').length === 1);
  await shows('Figures with attachment');
  await shot('3-search');

  await inbox();
  const uid = await uidOf('Figures');
  await page.goto(`${url}?_task=mail&_mbox=INBOX&_uid=${uid}&_action=show`);
  await page.waitForSelector('#attachment-list li');
  check((await page.innerText('#messagebody')).includes('bold figures'), 'the HTML is shown');
  check(!(await page.content()).includes('evil()'), 'and no script of it');
  check((await page.innerText('#attachment-list')).includes('Übersicht.pdf'), 'the attachment has its name');
  await shot('4-message');

  await page.goto(`${url}?_task=mail&_mbox=INBOX&_reply_uid=${uid}&_action=compose`);
  await page.waitForSelector('#composebody');
  await page.locator('#composebody').pressSequentially('Thank you, Ada');
  await page.evaluate(() => rcmail.command('send', {}));
  await sent();

  await page.goto(`${url}?_task=mail&_action=compose`);
  await page.waitForSelector('#composebody');
  const to = page.locator('.recipient-input input').first();
  const isRefused = async (recipient, why) => {
    await to.fill(`${recipient},`);
    await page.fill('#compose-subject', 'Refused');
    await page.locator('#composebody').pressSequentially('Hello');
    await page.evaluate(() => rcmail.command('send', {}));
    await page.waitForFunction(([words]) => new RegExp(words).test(document.querySelector('#messagestack')?.innerText), [why]);
    check(!/smtp/i.test(await page.innerText('#messagestack')), 'a refusal is told in words for people');
    check((await page.inputValue('#composebody')).includes('Hello'), 'and what was written is still there');
  };
  await isRefused('nobody@example.org', 'no colleague|keine Kollegin');
  await shot('5-refused');

  await page.goto(`${url}?_task=mail&_action=compose`);
  await page.waitForSelector('#composebody');
  await to.click();
  await to.pressSequentially('mül', { delay: 80 });
  await page.waitForSelector('#rcmKSearchpane li');
  await shot('6-address-book');
  await page.click('#rcmKSearchpane li');
  await page.fill('#compose-subject', `For Bob from the ${device}`);
  await page.locator('#composebody').pressSequentially('Grüße');
  await shot('7-compose');
  await page.evaluate(() => rcmail.command('send', {}));
  await sent();

  await page.goto(`${url}?_task=addressbook`);
  await page.waitForFunction(() => document.querySelectorAll('#directorylist li').length === 1);
  await page.waitForFunction(() => document.querySelector('#contacts-table')?.innerText.includes('Bob Müller'));

  await page.goto(`${url}?_task=mail&_action=compose`);
  await page.waitForSelector('#composebody');
  await page.fill('#compose-subject', `Draft from the ${device}`);
  await page.evaluate(() => rcmail.command('savedraft'));
  await page.waitForSelector('#messagestack .confirmation, #messagestack .alert-success');
  await page.goto(`${url}?_task=mail&_mbox=Drafts`);
  await shows(`Draft from the ${device}`);
  await page.goto(`${url}?_task=mail&_mbox=Sent`);
  await shows(`For Bob from the ${device}`);
  check((await subjects()).filter(one => one.includes(`For Bob from the ${device}`)).length === 1, 'sent is there once');
  await shot('8-sent');
  await page.goto(`${url}?_task=mail&_action=compose`);
  await page.waitForSelector('#composebody');
  await isRefused('one.too.many@example.com', 'within an hour|innerhalb einer Stunde');
  await at('no room');
  await page.goto(`${url}?_task=mail&_action=compose`);
  await page.waitForSelector('#composebody');
  await isRefused('too.much@example.com', 'no room|kein Platz');

  await inbox();
  await page.evaluate(uid => {
    rcmail.message_list.select(uid);
    rcmail.command('delete');
  }, await uidOf('Unwanted'));
  await page.waitForFunction(() => ![...document.querySelectorAll('#messagelist tr.message')].some(row => row.offsetParent && row.innerText.includes('Unwanted')));
  await shot('9-deleted');

  await at('return');
  await page.goto(`${url}?_task=mail&_mbox=INBOX`);
  await page.waitForSelector('#rcmloginuser');
  check(/works again|läuft wieder/.test(await page.innerText('.holdfast-welcome p')), 'it says why it is closed');
  await shot('10-closed');
  await page.goto(url);
  await page.fill('#rcmloginuser', 'ada@example.org');
  await page.fill('#rcmloginpwd', 'correct horse battery');
  await page.click('#rcmloginsubmit');
  await page.waitForFunction(() => /works again|läuft wieder/.test(document.querySelector('.holdfast-welcome p')?.innerText));
  check(!/failed|fehlgeschlagen/i.test(await page.innerText('body')), 'it does not blame the password');
  await shot('11-closed-login');
  check(problems.length === 0, problems.join('; '));
  await browser.close();
  console.log('at end');
  process.exit(0);
}

main().catch(async error => {
  if (page) await page.screenshot({ path: `${folder}/${device}-failed.png` });
  console.log(`failed: ${error.message.split('\n')[0]} ${error.stack.split('\n').filter(line => line.includes('browse.js')).join(' ')}`);
  process.exit(1);
});
