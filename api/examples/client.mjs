#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// A client of sandboxd in Node's standard library: create a sandbox, run a command on a terminal,
// change its size, send it a signal, remove the sandbox.
//
//     SBX_SOCKET=/run/sandboxd/sandboxd.sock node client.mjs [WORKSPACE]
import assert from 'node:assert';
import http from 'node:http';
import path from 'node:path';

const socketPath = process.env.SBX_SOCKET ?? '/run/sandboxd/sandboxd.sock';
const [STDIN, STDOUT, STDERR, RESIZE, SIGNAL, DETACH, EXIT, ERROR, GAP] = Array(9).keys();

class ApiError extends Error {
  constructor(error) {
    super(`${error.code}: ${error.message}`);
    this.code = error.code;
  }
}

// One request; resolves to the decoded answer.
function call(method, where, body) {
  const data = body === undefined ? '' : JSON.stringify(body);
  const headers = { 'Content-Length': Buffer.byteLength(data) };
  if (data) headers['Content-Type'] = 'application/json';
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, method, path: '/v1' + where, headers, agent: false });
    request.on('error', reject);
    request.on('response', async (response) => {
      let text = '';
      for await (const piece of response.setEncoding('utf8')) text += piece;
      const decoded = text ? JSON.parse(text) : null;
      if (response.statusCode >= 400) reject(new ApiError(decoded.error));
      else resolve(decoded);
    });
    request.end(data);
  });
}

// The stream of an exec: send records, get them by the callback.
class Stream {
  static attach(sandbox, exec, onRecord) {
    return new Promise((resolve, reject) => {
      const request = http.request({
        socketPath, agent: false, path: `/v1/sandboxes/${sandbox}/execs/${exec}/attach`,
        headers: { Connection: 'Upgrade', Upgrade: 'sbx-stream' },
      });
      request.on('error', reject);
      request.on('response', (r) => reject(new Error(`no upgrade: ${r.statusCode}`)));
      request.on('upgrade', (_, socket, head) => resolve(new Stream(socket, head, onRecord)));
      request.end();
    });
  }

  constructor(socket, head, onRecord) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.onRecord = onRecord;
    this.ended = new Promise((resolve, reject) => {
      socket.on('data', (data) => this.#take(data, resolve, reject));
      socket.on('close', () => reject(new Error('closed before the exit record')));
      socket.on('error', reject);
    });
    if (head.length) socket.unshift(head); // came together with the answer
  }

  #take(data, resolve, reject) {
    this.buffer = Buffer.concat([this.buffer, data]);
    while (this.buffer.length >= 8) {
      const end = 8 + this.buffer.readUInt32BE(4);
      if (this.buffer.length < end) return;
      const type = this.buffer[0];
      const payload = this.buffer.subarray(8, end);
      this.buffer = this.buffer.subarray(end);
      if (type === EXIT) resolve(JSON.parse(payload));
      else if (type === ERROR) reject(new ApiError(JSON.parse(payload).error));
      else this.onRecord(type, payload);
      if (type === EXIT || type === ERROR) this.socket.end();
    }
  }

  send(type, payload = Buffer.alloc(0)) {
    const header = Buffer.alloc(8);
    header[0] = type;
    header.writeUInt32BE(payload.length, 4);
    this.socket.write(Buffer.concat([header, payload]));
  }

  write(text) { this.send(STDIN, Buffer.from(text)); }
  signal(number) { this.send(SIGNAL, Buffer.from([number])); }
  resize(rows, cols) {
    const size = Buffer.alloc(4);
    size.writeUInt16BE(rows, 0);
    size.writeUInt16BE(cols, 2);
    this.send(RESIZE, size);
  }
}

// Resolves when what was seen so far has `text` in it.
class Screen {
  text = '';
  waiting = [];
  add(piece) {
    this.text += piece;
    this.waiting = this.waiting.filter((w) => !this.text.includes(w.text) || w.resolve());
  }
  shows(text) {
    if (this.text.includes(text)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`'${text}' does not come: ${this.text}`)), 60000);
      this.waiting.push({ text, resolve: () => { clearTimeout(timer); resolve(); } });
    });
  }
}

async function terminal(box) {
  const exec = await call('POST', `/sandboxes/${box}/execs`, {
    command: ['sh', '-c', 'stty size; read line; stty size; exec cat'],
    tty: true, stdin: true, rows: 33, cols: 101,
  });
  const screen = new Screen();
  const stream = await Stream.attach(box, exec.id, (type, payload) => {
    if (type === STDOUT) screen.add(payload.toString());
  });
  await screen.shows('33 101');
  stream.resize(44, 122);
  stream.write('\r');
  await screen.shows('44 122');
  stream.write('hello\r');
  await screen.shows('hello\r\nhello'); // the terminal's echo, then cat, which so is there
  stream.write('\x03'); // Ctrl-C, as the terminal of the guest knows it
  const end = await stream.ended;
  assert.deepEqual([end.end, end.exit_code], ['signal', 130]);
  console.log('terminal: ended by', end.end, end.signal);
}

async function main() {
  console.log('sandboxd', (await call('GET', '/version')).version);
  const request = { labels: { 'made-by': 'client.mjs' } };
  if (process.argv[2]) request.workspace = { path: path.resolve(process.argv[2]) };
  const box = (await call('POST', '/sandboxes', request)).id;
  try {
    await terminal(box);
    const result = await call('POST', `/sandboxes/${box}/run`, { command: ['uname', '-r'] });
    console.log('kernel of the guest:', result.stdout.trim());
    await assert.rejects(call('GET', '/sandboxes/no-such-box'), { code: 'sandbox_not_found' });
  } finally {
    await call('DELETE', `/sandboxes/${box}?force=true`);
  }
  console.log('client.mjs: done');
}

await main();
