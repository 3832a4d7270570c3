"use strict";

const INCIDENT = "id title state impact services startedAt resolvedAt updates { at state message }";
const PAGE = `{ statusPage {
  overall updatedAt
  services { service name state since uptimePercent responseTime { lastMilliseconds p50 p95 }
             history { date uptimePercent worstState } }
  metrics { name value unit previous changePercent }
  openIncidents { ${INCIDENT} }
  incidents(first: 20) { edges { node { ${INCIDENT} } } }
} }`;
const LIVE = "subscription { serviceStatus { at } }";
const REFRESH_MS = 60_000;
const LONGEST_PAUSE_MS = 30_000;

const OVERALL = {
  OPERATIONAL: "Everything works.",
  DEGRADED: "Some of it is slow or not available.",
  DOWN: "The service is not available.",
  UNKNOWN: "Nothing is known: nobody is looking at the moment.",
};
const STATES = { OPERATIONAL: "Operational", DEGRADED: "Degraded", DOWN: "Down", UNKNOWN: "Unknown" };
const IMPACTS = { MINOR: "DEGRADED", MAJOR: "DEGRADED", CRITICAL: "DOWN" };
const METRICS = {
  DEPLOYMENTS: "Deployments", JOB_RUNS: "Job runs", SCANS: "Scans", DOCUMENTS: "Documents",
  SUCCESS_RATE: "Success rate", API_RESPONSE_TIME: "API response time",
};

const place = (id) => document.getElementById(id);

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (typeof content === "string") made.textContent = content;
  else made.append(...content.filter((each) => each !== null));
  return made;
}

const number = (value, digits = 0) => value.toLocaleString(undefined, { maximumFractionDigits: digits });
const moment = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const words = (value) => value.charAt(0) + value.slice(1).toLowerCase().replaceAll("_", " ");

function time(text) {
  return element("time", moment(text), { datetime: text });
}

function badge(state, text) {
  return element("span", text, { class: "badge", "data-state": state });
}

function service(each) {
  const bars = each.history.map((day) => {
    const uptime = day.uptimePercent === null ? "no data" : `${number(day.uptimePercent, 3)} % up`;
    return element("span", "", { class: day.worstState, title: `${day.date}: ${uptime}` });
  });
  const bad = each.history.filter((day) => day.worstState === "DEGRADED" || day.worstState === "DOWN").length;
  const uptime = each.uptimePercent === null ? null : `${number(each.uptimePercent, 3)} % up in ${each.history.length} days`;
  const { p50, p95 } = each.responseTime;
  const response = p50 === null ? null : `answers in ${number(p50, 1)} ms, 95 % in ${number(p95, 1)} ms`;
  return element("li", [
    element("div", [element("h3", each.name), badge(each.state, STATES[each.state])], { class: "head" }),
    element("div", bars, {
      class: "bars", role: "img",
      "aria-label": `${each.history.length} days, ${bad} of them with trouble`,
    }),
    element("p", [
      each.since === null ? null : element("span", ["since ", time(each.since)]),
      uptime === null ? null : element("span", uptime),
      response === null ? null : element("span", response),
    ], { class: "facts" }),
  ]);
}

function incident(each, names) {
  const state = each.state === "RESOLVED" ? "OPERATIONAL" : IMPACTS[each.impact];
  const affected = each.services.map((name) => names[name] ?? words(name)).join(", ");
  const length = each.resolvedAt === null ? [] : [" until ", time(each.resolvedAt)];
  return element("article", [
    element("div", [element("h3", each.title), badge(state, words(each.state))], { class: "head" }),
    element("p", [`${words(each.impact)}: ${affected}. From `, time(each.startedAt), ...length], { class: "note" }),
    element("ol", each.updates.map((update) => element("li", [
      element("strong", words(update.state)), " ", element("span", [time(update.at)], { class: "note" }),
      element("p", update.message),
    ]))),
  ], { class: "incident", id: each.id });
}

function metric(each) {
  const units = { COUNT: "", PERCENT: " %", MILLISECONDS: " ms" };
  const value = each.value === null ? "–" : `${number(each.value, 1)}${units[each.unit]}`;
  const change = each.changePercent === null
    ? null
    : element("small", `${each.changePercent > 0 ? "+" : ""}${number(each.changePercent, 1)} % to the day before`);
  return element("div", [element("dt", METRICS[each.name] ?? words(each.name)), element("dd", [value, change])]);
}

function show(page) {
  const overall = place("overall");
  overall.dataset.state = page.overall;
  if (overall.textContent !== OVERALL[page.overall]) overall.textContent = OVERALL[page.overall];
  document.title = page.overall === "OPERATIONAL" ? "Status of Switchyard" : `${STATES[page.overall]}: Status of Switchyard`;
  const names = Object.fromEntries(page.services.map((each) => [each.service, each.name]));
  place("services").replaceChildren(...page.services.map(service));
  place("metrics").replaceChildren(...page.metrics.map(metric));
  place("open").hidden = page.openIncidents.length === 0;
  place("open-list").replaceChildren(...page.openIncidents.map((each) => incident(each, names)));
  const past = page.incidents.edges.map((edge) => edge.node).filter((each) => each.resolvedAt !== null);
  place("past").replaceChildren(
    ...(past.length ? past.map((each) => incident(each, names)) : [element("p", "None.", { class: "note" })]),
  );
  place("updated").replaceChildren("As of ", time(page.updatedAt), ".");
}

let isReading = false;
let isSpoiled = false;

async function read() {
  if (isReading) {
    isSpoiled = true;
    return;
  }
  isReading = true;
  try {
    const answer = await fetch("graphql", {
      method: "POST",
      credentials: "omit",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ query: PAGE }),
    });
    const body = await answer.json();
    if (!body.data) throw new Error(body.errors?.[0]?.message ?? `status ${answer.status}`);
    show(body.data.statusPage);
    if (location.hash && !read.hasScrolled) {
      read.hasScrolled = true;
      place(location.hash.slice(1))?.scrollIntoView();
    }
  } catch {
    const overall = place("overall");
    overall.dataset.state = "UNKNOWN";
    overall.textContent = "The service does not answer. What is shown below may be old.";
  } finally {
    isReading = false;
    if (isSpoiled) {
      isSpoiled = false;
      read();
    }
  }
}

function listen(pause = 1_000) {
  const address = new URL("graphql", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, "graphql-transport-ws");
  let next = Math.min(LONGEST_PAUSE_MS, pause * 2);
  socket.onopen = () => socket.send(JSON.stringify({ type: "connection_init" }));
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "connection_ack") {
      socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: { query: LIVE } }));
    } else if (message.type === "ping") {
      socket.send(JSON.stringify({ type: "pong" }));
    } else if (message.type === "next") {
      next = 1_000;
      place("live").textContent = "Live.";
      read();
    }
  };
  socket.onclose = () => {
    place("live").textContent = "Not live; it is tried again.";
    // Browsers that lost the same server should not all come back at once.
    setTimeout(() => listen(next), next * (0.5 + Math.random()));
  };
}

read();
listen();
setInterval(read, REFRESH_MS);
