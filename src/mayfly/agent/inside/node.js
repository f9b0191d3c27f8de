// The JavaScript interpreter that keeps state: Node's own read-eval-print loop, without a terminal. It speaks to the
// agent over descriptor 3, in the messages of mayfly.agent.channel.
"use strict";

const net = require("node:net");
const repl = require("node:repl");
const util = require("node:util");
const { PassThrough } = require("node:stream");

const channel = new net.Socket({ fd: 3, readable: true, writable: true });
let received = Buffer.alloc(0);
let busy = false;
let count = 0;
let limits = { item: 1 << 20, left: 1 << 24, items: 1000, truncated: false };
let server = null;

function send(kind, shape) {
  const payload = shape === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(shape));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.length);
  head.write(kind, 4, "latin1");
  channel.write(Buffer.concat([head, payload]));
}

function start() {
  const input = new PassThrough();
  const output = new PassThrough();
  output.resume();
  server = repl.start({ input, output, prompt: "", terminal: false, useGlobal: false, breakEvalOnSigint: true });
  if (server._domain) {
    // Where the loop runs code in a domain, what it throws comes there and not to the callback.
    server._domain.removeAllListeners("error");
    server._domain.on("error", uncaught);
  }
  server.context.display = (...things) => things.forEach((thing) => show(thing, false));
  server.context.console = console;
  process.on("SIGINT", interrupted);
}

function interrupted() {
  if (busy) server.emit("SIGINT");
}

function clipped(text, mime, cut) {
  const size = Buffer.byteLength(text);
  if (size <= limits.item) return text;
  cut.push({ mime, bytes: size });
  return mime === "text/plain" ? Buffer.from(text).subarray(0, limits.item).toString().slice(0, -1) : undefined;
}

function show(thing, isMain) {
  if (limits.items <= 0 || limits.left <= 0) {
    limits.truncated = true;
    return;
  }
  const cut = [];
  const data = {};
  data["text/plain"] = clipped(util.inspect(thing, { depth: 4, maxArrayLength: 1000 }), "text/plain", cut);
  if (thing !== null && typeof thing === "object" && (Array.isArray(thing) || isPlain(thing))) {
    try {
      const json = JSON.stringify(thing);
      if (json !== undefined && clipped(json, "application/json", cut) !== undefined) {
        data["application/json"] = JSON.parse(json);
      }
    } catch {
      // what has no JSON is shown as text
    }
  }
  let shape = { data, metadata: {}, is_main_result: isMain, truncated: cut };
  const size = Buffer.byteLength(JSON.stringify(shape));
  if (size > limits.left) {
    shape = { data: {}, metadata: {}, is_main_result: isMain, truncated: [{ mime: "text/plain", bytes: size }] };
  }
  limits.truncated = limits.truncated || shape.truncated.length > 0;
  limits.left -= size;
  limits.items -= 1;
  send("r", shape);
}

function isPlain(thing) {
  const parent = Object.getPrototypeOf(thing);
  return parent === null || Object.getPrototypeOf(parent) === null;
}

function text(value, most) {
  try {
    return String(value).slice(0, most);
  } catch {
    return "";
  }
}

function report(error) {
  const isError = util.types.isNativeError(error) || (error !== null && typeof error === "object" && "stack" in error);
  const name = isError ? text(error.name || "Error", 200) : "Error";
  const value = isError ? text(error.message, 100000) : text(util.inspect(error), 100000);
  const own = isError ? stackOf(error) : `Uncaught ${value}`;
  const interrupted = isError && error.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED";
  send("e", { name: interrupted ? "KeyboardInterrupt" : name, value, traceback: own });
}

function run(order) {
  busy = true;
  count += 1;
  limits = { item: order.item_bytes, left: order.result_bytes, items: 1000, truncated: false };
  const before = {};
  for (const [name, value] of Object.entries(order.env)) {
    before[name] = process.env[name];
    process.env[name] = value;
  }
  const started = process.hrtime.bigint();
  const done = (failed, error, value) => {
    if (!busy) return;
    busy = false;
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    const took = Number(process.hrtime.bigint() - started) / 1e6;
    try {
      if (failed) report(error);
      else if (value !== undefined) show(value, true);
    } catch (broken) {
      failed = true;
      send("e", { name: "Error", value: text(broken, 1000), traceback: "" });
    }
    send("d", {
      status: failed ? "error" : "ok",
      execution_count: count,
      guest_ms: took,
      truncated: limits.truncated,
    });
  };
  ended = done;
  process.removeListener("SIGINT", interrupted); // while code holds the thread, the loop catches it by itself
  server.eval(`${order.code}\n`, server.context, `cell-${count}.js`, (error, value) => {
    if (error) done(true, error instanceof repl.Recoverable ? error.err : error);
    else done(false, null, value);
  });
  process.on("SIGINT", interrupted);
}

let ended = () => {};
function uncaught(error) {
  if (busy) ended(true, error instanceof repl.Recoverable ? error.err : error);
  else process.stderr.write(`Uncaught ${stackOf(error)}\n`);
}

function stackOf(error) {
  const stack = text(error && error.stack ? error.stack : error, 100000);
  return stack.split("\n").filter((line) => !/\(node:|at node:|inside\/node\.js/.test(line)).join("\n");
}

process.on("uncaughtException", uncaught);
process.on("unhandledRejection", (error) => {
  process.stderr.write(`Unhandled rejection: ${stackOf(error)}\n`);
});

function take(kind, payload) {
  if (kind === "I") {
    try {
      process.chdir(JSON.parse(payload).cwd);
      start();
      send("o");
    } catch (error) {
      send("f", text(error && error.message, 1000));
      process.exitCode = 1;
      channel.end();
    }
  } else if (kind === "R") {
    run(JSON.parse(payload));
  }
}

channel.on("data", (data) => {
  received = Buffer.concat([received, data]);
  while (received.length >= 5) {
    const size = received.readUInt32BE(0);
    if (received.length < 5 + size) return;
    const kind = received.toString("latin1", 4, 5);
    const payload = received.toString("utf8", 5, 5 + size);
    received = received.subarray(5 + size);
    take(kind, payload);
  }
});
channel.on("end", () => process.exit(0));
channel.on("error", () => process.exit(0));
