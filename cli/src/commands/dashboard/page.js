// Reads the data every few seconds and draws it. All data becomes text nodes or numbers, never HTML.
"use strict";
const INTERVAL = 4000;
const MAX_NODES = 60;
const MAX_BLOCKS_OF_NODE = 48;
const MAX_CELLS = 64;
const CELL = 7;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const count = (number) => Number(number).toLocaleString("en-US");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// An element with a class, and with texts or elements in it.
function el(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function age(time, now) {
  const seconds = Math.max(0, Math.round((now - new Date(time)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

function drawTotals(data) {
  const sum = (field) => data.pools.reduce((total, pool) => total + pool[field], 0);
  const owners = new Set(data.nodes.filter((row) => row.pool).map((row) => row.node));
  const urgent = data.problems.filter((problem) => problem.severity !== "info").length;
  const total = (number, label, bad) => el("div", bad ? "total bad" : "total", el("b", "", count(number)), el("span", "", label));
  byId("totals").replaceChildren(
    total(sum("used"), "addresses in use"),
    total(sum("free"), "addresses free"),
    total(data.pools.length, data.pools.length === 1 ? "pool" : "pools"),
    total(owners.size, owners.size === 1 ? "node with blocks" : "nodes with blocks"),
    total(urgent, urgent === 1 ? "problem" : "problems", urgent > 0),
  );
}

function drawProblems(problems, missing) {
  const row = (problem) =>
    el("li", "", el("span", `badge ${problem.severity}`, problem.severity), el("div", "", el("b", "", problem.object), problem.message));
  const rows = problems.map(row);
  if (!problems.some((problem) => problem.severity !== "info")) {
    const all = missing.length === 0;
    const text = all ? "✓ Nothing is wrong." : "Nothing is wrong in what your rights show. See the end of the page.";
    rows.unshift(el("li", "none", text));
  }
  byId("problems").replaceChildren(...rows);
}

const BAD_STATES = { NotReady: "error", Full: "error", NoFreeBlock: "warning", PartlyAccepted: "warning", Misconfigured: "warning" };
const STATES = ["used", "cooling", "reserved", "free"];

function bar(pool) {
  const made = el("div", "bar");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", STATES.map((state) => `${state} ${pool[state]}`).join(", "));
  for (const state of STATES.filter((one) => pool[one] > 0)) {
    const part = el("i", state);
    part.style.flexGrow = String(pool[state]);
    made.append(part);
  }
  return made;
}

function legend(pool) {
  const items = STATES.map((state) => el("span", "", el("i", state), `${count(pool[state])} ${state}`));
  const blocks = `${plural(pool.blocks.claimed, "claimed block")}, ${count(pool.blocks.free)} free`;
  const unused = pool.fragmentationPercent === undefined ? "" : `, ${pool.fragmentationPercent}% of claimed addresses unused`;
  return el("div", "legend", ...items, el("span", "push", blocks + unused));
}

// One square for each address of a block, or for several in a large block.
function tile(block) {
  const perCell = Math.ceil(block.size / MAX_CELLS);
  const cells = Math.ceil(block.size / perCell);
  const columns = cells <= 8 ? cells : cells <= 32 ? 8 : 16;
  const taken = new Array(cells).fill(0);
  const held = new Array(cells).fill(0);
  for (const offset of block.assigned) taken[Math.floor(offset / perCell)] += 1;
  for (const offset of block.reserved) held[Math.floor(offset / perCell)] += 1;
  const paths = { most: "", some: "", none: "", held: "" };
  for (let cell = 0; cell < cells; cell += 1) {
    const kind = taken[cell] * 2 > perCell ? "most" : taken[cell] > 0 ? "some" : held[cell] >= perCell ? "held" : "none";
    const [x, y] = [(cell % columns) * (CELL + 1), Math.floor(cell / columns) * (CELL + 1)];
    paths[kind] += `M${x} ${y}h${CELL}v${CELL}h-${CELL}z`;
  }
  const [width, height] = [columns * (CELL + 1) - 1, Math.ceil(cells / columns) * (CELL + 1) - 1];
  const label = `${block.name}, ${block.range}: ${block.assigned.length} of ${block.size} used, ${block.reserved.length} reserved`;
  const made = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const title = svg("title", {});
  title.textContent = label;
  made.append(title, ...Object.entries(paths).filter(([, d]) => d).map(([kind, d]) => svg("path", { class: kind, d })));
  return made;
}

function hollow() {
  const made = svg("svg", { width: 22, height: 13, viewBox: "0 0 22 13", "aria-hidden": "true" });
  made.append(svg("rect", { class: "hollow", x: 0.5, y: 0.5, width: 21, height: 12, rx: 2 }));
  return made;
}

function limited(items, limit, noun) {
  const more = items.length - limit;
  return more > 0 ? [...items.slice(0, limit), el("span", "quiet", `and ${plural(more, noun)} more`)] : items;
}

function blocksByNode(map, nodes) {
  const byNode = new Map();
  for (const block of map.claimed) byNode.set(block.node, [...(byNode.get(block.node) ?? []), block]);
  const sorted = [...byNode].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
  const rows = el("div", "rows");
  for (const [node, blocks] of sorted.slice(0, MAX_NODES)) {
    const row = nodes.find((one) => one.node === node && one.pool === map.pool);
    const about = row ? `${count(row.used)} used, ${count(row.unused)} unused${row.exists ? "" : ", deleted"}` : "";
    rows.append(el("div", "name", node, el("small", "", about)));
    rows.append(el("div", "tiles", ...limited(blocks.map(tile), MAX_BLOCKS_OF_NODE, "block")));
  }
  if (sorted.length > MAX_NODES) {
    rows.append(el("div", "name", "…"), el("span", "quiet", `${plural(sorted.length - MAX_NODES, "node")} more: kubectl bobbin map ${map.pool}`));
  }
  if (map.freeBlocks + map.uncarvedBlocks > 0) {
    const tiles = Array.from({ length: Math.min(map.freeBlocks, MAX_BLOCKS_OF_NODE) }, hollow);
    const text = `${plural(map.freeBlocks, "free block")}, ${count(map.uncarvedBlocks)} more can be created`;
    rows.append(el("div", "name", "no node"), el("div", "tiles", ...tiles, el("span", "quiet", text)));
  }
  return rows;
}

function drawPools(data) {
  const card = (pool) => {
    const subnets = pool.subnets.map((one) => [one.ipv4, one.ipv6].filter(Boolean).join(" and "));
    const shown = subnets.slice(0, 3).join(", ") + (subnets.length > 3 ? ` and ${subnets.length - 3} more` : "");
    const tone = BAD_STATES[pool.state] ?? (pool.state === "Ready" ? "good" : "info");
    const head = el("div", "head", el("h3", "", pool.name), el("span", `badge ${tone}`, pool.state), el("span", "quiet", shown));
    const map = data.maps.find((one) => one.pool === pool.name);
    return el("article", "card", head, bar(pool), legend(pool), ...(map ? [blocksByNode(map, data.nodes)] : []));
  };
  const none = el("p", "card quiet", "There are no pools. Create one: kubectl apply -f pool.yaml");
  byId("pools").replaceChildren(...(data.pools.length ? data.pools.map(card) : [none]));
}

function drawEvents(events, now) {
  const row = (event) =>
    el("li", "", el("span", "quiet", event.lastSeen ? `${age(event.lastSeen, now)} ago` : ""),
      el("div", "", el("b", "warning", event.reason), el("span", "quiet", event.object), el("div", "", event.message)));
  byId("events").replaceChildren(...(events.length ? events.map(row) : [el("li", "none", "No Warning event of Bobbin.")]));
}

let drawn = "";
let readAt = null;

function draw(data) {
  readAt = data.readAt;
  // Unchanged data is not drawn again, so that a selection of text stays. Ages change once a minute.
  const key = JSON.stringify({ ...data, readAt: Math.floor(new Date(data.readAt) / 60000) });
  if (key === drawn) return;
  byId("server").textContent = data.server;
  drawTotals(data);
  drawProblems(data.problems, data.missing);
  drawPools(data);
  drawEvents(data.events, new Date(data.readAt));
  byId("missing").replaceChildren(...data.missing.map((text) => el("li", "", `Not shown: ${text}`)));
  drawn = key;
}

function report(failure) {
  // Screen readers announce each change of this text.
  const banner = byId("failure");
  if (banner.textContent !== failure) {
    banner.textContent = failure;
    banner.hidden = !failure;
  }
  byId("state").className = failure ? "stale" : "fresh";
  const when = readAt ? new Date(readAt).toLocaleTimeString() : "never";
  byId("state-text").textContent = failure ? `not current, last read: ${when}` : `read at ${when}`;
}

async function refresh() {
  let answer;
  try {
    answer = await fetch("data.json", { cache: "no-store" });
  } catch {
    report("The command kubectl bobbin dashboard has ended. Start it again, and open the URL that it prints.");
    return;
  }
  if (!answer.ok) {
    report((await answer.text()).trim());
    return;
  }
  draw(await answer.json());
  report("");
}

async function loop() {
  try {
    if (!document.hidden) await refresh();
  } catch (error) {
    console.error(error);
    report(`This page can't show the data: ${error.message}`);
  }
  setTimeout(loop, INTERVAL);
}
loop();
