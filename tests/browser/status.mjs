// The browser's side of the test of the status page. Nothing is waited for but events, each with a deadline.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [port, token, picture] = process.argv.slice(2);
const base = `http://localhost:${port}`;
const DEADLINE = 20000;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function tell(order) {
  console.log(`do ${order}`);
  return (await answers.next()).value;
}
const step = (text) => console.log(`- ${text}`);

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const faults = [];

async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1240, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.on("pageerror", (error) => faults.push(`${url}: ${error}`));
  page.on("dialog", (dialog) => faults.push(`${url}: a dialog, ${dialog.message()}`));
  page.on("console", (said) => {
    if (/Content Security Policy|Refused to/.test(said.text())) faults.push(`${url}: ${said.text()}`);
  });
  await page.goto(url);
  return page;
}

const tells = (page, key, what) => row(page, key).locator(`.${what} dd`).textContent();
const row = (page, key) => page.locator(`.row[data-key="${key}"]`);
const is = (page, key, state) => row(page, key).and(page.locator(`[data-state="${state}"]`)).waitFor();
const live = (page) => page.locator('#link[data-state="live"]').waitFor();
// Until a function of the page, polled at each frame, gives something.
const until = (page, what, argument) => page.waitForFunction(what, argument, { polling: "raf" });

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document));
  assert.ok(passes.length > 10, "the rules were run");
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.any[0]?.message ?? ""}`).join(" | ")}`);
  assert.deepEqual(found, [], what);
}

async function fits(page, what) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${what}: ${wide} px of ${room}`);
}

// A picture is shown, and frames that differ are painted.
async function desktop(page, key) {
  await until(page, (key) => document.querySelector(`.row[data-key="${key}"] .shot img`)?.naturalWidth > 0, key);
}
async function watch(page, key) {
  await row(page, key).getByRole("button", { name: `Watch ${key}` }).click();
  const canvas = `.row[data-key="${key}"] canvas`;
  await until(page, (canvas) => document.querySelector(canvas).dataset.frames >= 2, canvas);
  const first = await page.evaluate((canvas) => document.querySelector(canvas).toDataURL(), canvas);
  await until(page, ([canvas, first]) => document.querySelector(canvas).toDataURL() !== first, [canvas, first]);
  const shades = await page.evaluate((canvas) => {
    const { width, height } = document.querySelector(canvas);
    return new Set(new Uint32Array(document.querySelector(canvas).getContext("2d").getImageData(0, 0, width, height).data.buffer)).size;
  }, canvas);
  assert.ok(shades > 10, `a picture of something: ${shades} colours`);
}

async function goesOn(page, key, seen) {
  await until(page, ([key, seen]) => document.querySelector(`[data-key="${key}"] canvas`).dataset.frames > seen + 2, [key, seen]);
}

try {
  const page = await open(`${base}/`);
  let sockets = 0;
  page.on("websocket", () => (sockets += 1));
  await live(page);
  await is(page, "desktop-ada", "connected");
  await is(page, "desktop-bob", "connected");
  assert.equal(await page.locator("#connected").textContent(), "2");
  step("it is live and both are there");

  await desktop(page, "desktop-ada");
  await desktop(page, "desktop-bob");
  await watch(page, "desktop-ada");
  await row(page, "desktop-ada").getByText(/^[1-9]\d* frames\/s/).waitFor();
  step("screenshots are shown, the stream paints frames that differ");

  const before = await row(page, "desktop-bob").locator(".down").textContent();
  await until(page, (before) => document.querySelector('[data-key="desktop-bob"] .down').textContent !== before, before);
  await until(page, () => document.querySelector("#received-spark polyline").getAttribute("points").split(" ").length >= 8);
  await until(page, () => /^[\d.]+ (ms|s)$/.test(document.querySelector('[data-key="desktop-ada"] .rtt dd').textContent));
  assert.deepEqual([await tells(page, "desktop-bob", "back"), await tells(page, "desktop-bob", "cause")], ["0", "–"]);
  step("counts go on");

  await tell("kill desktop-bob");
  await is(page, "desktop-bob", "grace");
  assert.equal(await page.locator("#grace").textContent(), "1");
  const left = await row(page, "desktop-bob").locator(".since").textContent();
  assert.match(left, /^for \d+ s, \d+ s left$/);
  const runs = (left) => {
    const seconds = (text) => Number(/(\d+) s left/.exec(text)[1]);
    return seconds(document.querySelector('[data-key="desktop-bob"] .since').textContent) < seconds(left);
  };
  await until(page, runs, left);
  await page.locator("#events li", { hasText: "desktop-bob" }).locator("b", { hasText: "Lost" }).waitFor();
  assert.equal(await tells(page, "desktop-bob", "cause"), "the connection was lost");
  step("the one that was killed is in grace, and its time runs");

  await page.evaluate(() => {
    window.waiting = new AbortController();
    fetch("/proxy/desktop-bob/", { signal: window.waiting.signal }).catch(() => {});
  });
  const waiting = (dials) => until(page, (dials) => document.getElementById("pending").textContent === dials, dials);
  await waiting("1");
  await until(page, () => document.querySelector('[data-key="desktop-bob"] .open dd').textContent.endsWith(", 1 wait"));
  await page.evaluate(() => window.waiting.abort());
  await waiting("0");
  step("a dial that waits for it is told, until it is given up");

  await fits(page, "wide");
  await page.screenshot({ path: picture, fullPage: true });
  await accessible(page, "light");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: picture.replace(/\.png$/, "-dark.png"), fullPage: true });
  await accessible(page, "dark");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width: 360, height: 740 });
    await fits(page, "360 px");
    await page.screenshot({ path: picture.replace(/\.png$/, `-360-${colorScheme}.png`), fullPage: true });
  }
  await accessible(page, "360 px");
  await page.setViewportSize({ width: 1240, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
  step("it fits, it is legible");

  await tell("start desktop-bob");
  await is(page, "desktop-bob", "connected");
  await page.locator("#events li", { hasText: "desktop-bob" }).locator("b", { hasText: "Reconnected" }).waitFor();
  step("it is back");

  const seen = (key) => page.evaluate((key) => Number(document.querySelector(`[data-key="${key}"] canvas`).dataset.frames), key);
  await tell("cut");
  await is(page, "desktop-ada", "grace");
  await row(page, "desktop-ada").getByText("Paused: the stream goes on when the sandbox is back.").waitFor();
  const paused = await seen("desktop-ada");
  await tell("mend");
  await is(page, "desktop-ada", "connected");
  await page.locator("#events li", { hasText: "desktop-ada" }).locator("b", { hasText: "Resumed" }).waitFor();
  await until(page, () => document.querySelector('[data-key="desktop-ada"] .back dd').textContent === "1");
  await goesOn(page, "desktop-ada", paused);
  assert.equal(sockets, 1, "it is the same stream");
  step("a stream whose link was cut goes on");

  await tell("hostile");
  await is(page, "hostile", "connected");
  assert.match(await row(page, "hostile").textContent(), /<img src=x onerror=document\.title='taken'>/);
  assert.equal(await row(page, "hostile").locator("img:not(.shot img)").count(), 0);
  assert.equal(await row(page, "hostile").getByRole("button").count(), 0, "no desktop, nothing to watch");
  await page.locator("#events li", { hasText: "<img src=x" }).waitFor();
  assert.match(await page.title(), /^Sandboxes/);
  step("markup stays text");

  await page.locator("#find").fill("BOB");
  await row(page, "desktop-ada").waitFor({ state: "detached" });
  assert.equal(await page.locator(".row").count(), 1);
  await page.locator("#find").fill("no such");
  await page.getByText("No sandbox is like that.").waitFor();
  await page.locator("#find").fill("");
  await page.locator("#state").selectOption("grace");
  await page.getByText("No sandbox is like that.").waitFor();
  await page.locator("#state").selectOption("");
  await is(page, "desktop-ada", "connected");
  step("rows can be chosen");

  await tell("crowd");
  await is(page, "crowd-49", "connected");
  await until(page, () => document.querySelectorAll(".row").length === 50);
  await page.getByText("50 of 63", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Next" }).click();
  await is(page, "desktop-bob", "connected");
  assert.equal(await page.locator(".row").count(), 13);
  await page.getByRole("button", { name: "Back" }).focus();
  await page.keyboard.press("Enter");
  await is(page, "crowd-00", "connected");
  await page.locator("#find").fill("desktop");
  await row(page, "crowd-00").waitFor({ state: "detached" });
  step("more than a page come by pages");

  const byPath = await open(`${base}/proxy/hostile/`);
  await byPath.waitForFunction(() => document.title.startsWith("stats"));
  assert.equal(await byPath.title(), "stats refused, exec refused, stream refused, own refused");
  const byName = await open(`http://hostile.localhost:${port}/`);
  await byName.waitForFunction(() => document.title.startsWith("stats"));
  assert.equal(await byName.title(), "stats refused, exec refused, stream refused, own taken");
  faults.splice(0, Infinity, ...faults.filter((fault) => !fault.includes("hostile"))); // they were to be refused
  step("a hostile page gets nothing that is not its own");

  const again = page.locator('#link[data-state="reconnecting"]').waitFor();
  await tell("restart");
  await again;
  await live(page);
  await is(page, "desktop-ada", "connected");
  await goesOn(page, "desktop-ada", await seen("desktop-ada"));
  step("a gateway that was killed is found again");

  const guarded = await open(`http://localhost:${await tell("guarded")}/`);
  await accessible(guarded, "the form");
  await guarded.screenshot({ path: picture.replace(/\.png$/, "-login.png") });
  await guarded.getByLabel("Caller token").fill("wrong");
  await guarded.keyboard.press("Enter");
  await guarded.getByText("That is not the token.").waitFor();
  await guarded.getByLabel("Caller token").fill(token);
  await guarded.keyboard.press("Enter");
  await live(guarded);
  const [cookie] = await guarded.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.domain], [true, "Strict", "localhost"]);
  assert.ok(!cookie.value.includes(token));
  await guarded.getByText("No sandbox has dialled in yet.").waitFor();
  step("the token opens the page once, and then its cookie");

  await guarded.evaluate(() => {
    const { createObjectURL, revokeObjectURL } = URL;
    window.pictures = new Set();
    URL.createObjectURL = (blob) => (window.pictures.add(createObjectURL(blob)), [...window.pictures].at(-1));
    URL.revokeObjectURL = (url) => (window.pictures.delete(url), revokeObjectURL(url));
  });
  await tell("hang"); // more desktops than a browser has connections; they are asked, and never answer
  await is(guarded, "desktop-hung-7", "connected");
  await tell("late");
  await is(guarded, "desktop-eve", "connected");
  await desktop(guarded, "desktop-eve");
  const shot = await guarded.evaluate(() => document.querySelector('[data-key="desktop-eve"] .shot img').src);
  await until(guarded, (shot) => document.querySelector('[data-key="desktop-eve"] .shot img').src !== shot, shot);
  assert.equal(await guarded.locator("body.stale").count(), 0);
  assert.equal(await guarded.evaluate(() => window.pictures.size), 1, "only the picture that is shown is kept");
  await guarded.locator("#find").fill("hung");
  await row(guarded, "desktop-eve").waitFor({ state: "detached" });
  assert.equal(await guarded.evaluate(() => window.pictures.size), 0);
  step("desktops that hang hold up neither the page nor others' pictures");

  assert.deepEqual(faults, []);
} finally {
  await browser.close();
}
process.exit(0);
