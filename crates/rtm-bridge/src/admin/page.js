"use strict";
// Asks for status.json every two seconds and shows it. All that comes from the bridge is set as text, never as markup.
const EVERY = 2000, PATIENCE = 4000, BIN = 5;
const LEVELS = {
  losing: "Losing events", lost: "May have lost events", down: "Down", late: "Needs a look", note: "Good to know", good: "All is well",
};
const OUTCOMES = [
  ["page", "with events", ["page"]], ["empty", "empty", ["empty"]],
  ["failed", "refused or not sent", ["refused", "not_sent"]], ["doubt", "in doubt", ["in_doubt"]],
];
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, ...children) {
  const of = ["svg", "path", "line"].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) of.setAttribute(key, value);
  of.append(...children);
  return of;
}
const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const rate = (value) => number(value, value < 100 ? 1 : 0);
function age(seconds) {
  if (seconds == null) return "never";
  if (seconds < 10) return `${number(seconds, 1)} s`;
  if (seconds < 120) return `${number(Math.floor(seconds))} s`;
  if (seconds < 7200) return `${number(Math.floor(seconds / 60))} min`;
  if (seconds < 172800) return `${number(Math.floor(seconds / 3600))} h`;
  return `${number(Math.floor(seconds / 86400))} days`;
}
function size(bytes) {
  if (bytes == null) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${number(bytes, unit > 0 && bytes < 100 ? 1 : 0)} ${units[unit]}`;
}
const time = (text) => `${new Date(text).toISOString().slice(11, 19)} UTC`;
const sum = (values) => values.reduce((a, b) => a + b, 0);

// On a narrow screen a table's rows become blocks, and would lose their roles.
function table(label, columns, rows, layout) {
  const heads = columns.map((name) => element("th", { scope: "col", role: "columnheader" }, name));
  const body = rows.map(([first, ...cells]) => element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader" }, first),
    ...cells.map((cell, index) => element("td", { role: "cell", "data-label": columns[index + 1] }, cell))));
  return element("table", { role: "table", class: layout, "aria-label": label },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
    element("tbody", { role: "rowgroup" }, ...body));
}

const finding = ({ level, text }) =>
  element("p", { class: `finding ${level}` }, element("strong", null, LEVELS[level] ?? level), " ", element("span", null, text));

function figures(now) {
  const lost = sum(now.apps.map((app) => app.possibly_lost_ever));
  const waits = Math.max(0, ...now.sinks.map((sink) => sink.pending_events));
  const used = now.journal.max_bytes ? 100 * now.journal.used_bytes / now.journal.max_bytes : 0;
  return [
    ["Events a second", rate(sum(now.rings.map((ring) => ring.events_per_second)))],
    ["Waiting for a sink", number(waits)],
    ["Journal used", used > 0 && used < .1 ? "< 0.1 %" : `${number(used, used < 10 ? 1 : 0)} %`],
    ["Possibly lost, ever", number(lost)],
  ].map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value)));
}

function sinks(now) {
  const states = { up: ["good", "up"], late: ["late", "silent"], down: ["down", "down"] };
  return table("Sinks", ["Sink", "State", "Events waiting", "Oldest waits", "Last confirmation"], now.sinks.map((sink) => {
    const [level, word] = states[sink.health];
    const confirmed = sink.last_confirmation_age_seconds;
    return [
      sink.name === sink.kind ? sink.name : `${sink.name} (${sink.kind})`,
      element("span", { class: `state ${level}` }, sink.waiting_since && sink.health !== "up" ? `${word} since ${time(sink.waiting_since)}` : word),
      number(sink.pending_events),
      sink.oldest_pending_age_seconds == null ? "–" : age(sink.oldest_pending_age_seconds),
      confirmed == null ? "never" : `${age(confirmed)} ago`,
    ];
  }), "tall");
}

function budget({ by_outcome, began, requests_per_second: limit }) {
  const series = OUTCOMES.map(([, , names]) => by_outcome[names[0]].map((_, at) => sum(names.map((name) => by_outcome[name][at]))));
  const length = series[0].length;
  // Whole bins only, on the same seconds each time, so that the past does not flicker.
  const bins = [];
  for (let from = (BIN - began % BIN) % BIN; from + BIN <= length; from += BIN) {
    bins.push([from, series.map((counts) => sum(counts.slice(from, from + BIN)) / BIN)]);
  }
  const top = 1.08 * Math.max(1, limit, ...bins.map(([, values]) => sum(values)));
  const y = (value) => 100 - 100 * value / top;
  const paths = OUTCOMES.map(([name], index) => element("path", {
    class: name,
    d: bins.map(([from, values]) => {
      const [low, high] = [sum(values.slice(0, index)), sum(values.slice(0, index + 1))];
      const x = 300 - length + from;
      return high > low ? `M${x} ${y(low)}V${y(high)}h${BIN - .6}V${y(low)}z` : "";
    }).join(""),
  }));
  const minute = series.map((counts) => sum(counts.slice(-60)) / Math.max(1, Math.min(60, length)));
  const shares = OUTCOMES.map(([name, words], index) => [name, words, minute[index]]);
  shares.push(["unused", "unused", Math.max(0, limit - sum(minute))]);
  const words = `${rate(sum(minute))} of ${number(limit)} requests a second in the last minute`;
  const chart = element("svg", {
    viewBox: "0 0 300 100", preserveAspectRatio: "none", role: "img",
    "aria-label": `${words}: ${shares.map(([, name, value]) => `${rate(value)} ${name}`).join(", ")}`,
  }, ...paths, element("line", { x1: 0, x2: 300, y1: y(limit), y2: y(limit) }));
  return [
    element("p", null, `${words}.`), chart,
    element("p", { class: "axis quiet", "aria-hidden": "true" }, element("span", null, "5 min ago"), element("span", null, `dashed: the limit of ${number(limit)}`), element("span", null, "now")),
    element("ul", { class: "legend" }, ...shares.map(([name, text, value]) =>
      element("li", null, element("i", { class: name, "aria-hidden": "true" }), `${text} ${rate(value)}/s`))),
  ];
}

function rings(now, app) {
  const several = now.apps.length > 1;
  const shown = now.rings.filter((ring) => !app || ring.app === app);
  return table("Rings", ["Ring", "Events/s", "Requests/s", "Last answer", "Last gap", "Longest gap", "Possibly lost"], shown.map((ring) => [
    `${several ? `${ring.app} ` : ""}${ring.region} ${ring.stream}`,
    rate(ring.events_per_second), rate(ring.polls_per_second),
    ring.paused ? element("span", { class: "state note" }, "paused") : age(ring.last_poll_age_seconds),
    ring.last_gap_seconds == null ? "–" : age(ring.last_gap_seconds),
    age(ring.longest_gap_seconds), number(ring.possibly_lost_ever),
  ]), "dense");
}

function journal({ bytes, used_bytes, max_bytes, free_disk_bytes, min_free_disk_bytes }) {
  const onDisk = used_bytes > bytes ? ` (its files have ${size(bytes)})` : "";
  const words = `${size(used_bytes)} of ${size(max_bytes)} used${onDisk}; ${size(free_disk_bytes)} of the disk are free, of which ${size(min_free_disk_bytes)} are left alone.`;
  return [element("meter", { min: 0, max: max_bytes, high: .8 * max_bytes, low: .6 * max_bytes, optimum: 0, value: used_bytes, "aria-label": "Journal used" }), element("p", null, words)];
}

function recent(lines) {
  if (lines.length === 0) return [element("p", { class: "quiet" }, "None since the start.")];
  return [element("ul", { class: "logs" }, ...lines.map((line) => element("li", null,
    element("span", { class: `state ${line.level === "error" ? "losing" : "late"}` }, line.level), " ",
    element("span", { class: "quiet" }, line.count > 1 ? `${time(line.at)}, ${number(line.count)} times since ${time(line.first)}` : time(line.at)), " ",
    line.message, element("code", null, [line.of, line.details].filter(Boolean).join(" ")))))];
}

const settings = (sections) => sections.flatMap(({ name, values }) => [
  element("h3", null, name),
  element("dl", null, ...values.flatMap(([key, value]) => [element("dt", null, key), element("dd", null, value)])),
]);

function choices(apps) {
  const select = $("app");
  $("choice").hidden = apps.length < 2;
  const names = apps.map((app) => app.name).join("\n");
  if (select.dataset.names === names) return;
  const chosen = select.value;
  select.dataset.names = names;
  select.replaceChildren(element("option", { value: "" }, "all"), ...apps.map(({ name }) => element("option", { value: name }, name)));
  select.value = apps.some(({ name }) => name === chosen) ? chosen : "";
}

let said = null;
// Read out only what changes, and not every number.
function say(level, text) {
  document.title = `${LEVELS[level] ?? level} – rtm-bridge`;
  if (said !== level) $("said").textContent = text;
  said = level;
}

function show(now) {
  $("findings").replaceChildren(...now.findings.map(finding));
  $("clock").textContent = `${time(now.at)}${now.uptime_seconds == null ? "" : `, up for ${age(now.uptime_seconds)}`}`;
  $("recent").replaceChildren(...recent(now.recent));
  say(now.findings[0].level, now.findings[0].text);
  if (!now.rings) return;
  choices(now.apps);
  $("figures").replaceChildren(...figures(now));
  $("sinks").replaceChildren(sinks(now));
  $("budget").replaceChildren(...budget(now.budget));
  $("rings").replaceChildren(rings(now, $("app").value));
  $("journal").replaceChildren(...journal(now.journal));
  $("settings").replaceChildren(...settings(now.settings));
  $("version").textContent = `rtm-bridge ${now.version} (${now.commit})`;
}

let last = null, timer = null, asking = 0;
async function refresh() {
  clearTimeout(timer);
  asking += 1;
  const mine = asking;
  const app = $("app").value;
  try {
    const answer = await fetch(`status.json${app ? `?app=${encodeURIComponent(app)}` : ""}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    const now = await answer.json();
    // A later question has been asked.
    if (mine !== asking) return;
    show(now);
    last = now.at;
    $("lost").hidden = true;
    $("main").classList.remove("old");
  } catch {
    if (mine !== asking) return;
    const seconds = last && (Date.now() - Date.parse(last)) / 1000;
    const text = last
      ? `No contact with the bridge since ${time(last)} (${age(Math.max(0, seconds))}). What is below was true then.`
      : "No contact with the bridge yet.";
    $("lost").replaceChildren(finding({ level: "down", text }));
    $("lost").hidden = false;
    $("main").classList.add("old");
    say("down", text);
  }
  timer = setTimeout(refresh, EVERY);
}
$("app").addEventListener("change", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
