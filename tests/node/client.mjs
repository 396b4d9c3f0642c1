// A client of the TypeScript SDK that a test drives.
//
//     node client.mjs PACKAGES '{"url": ...}'                  | '{"command": ..., "args": [...]}'
//
// PACKAGES is the folder that has `node_modules`. The server is further described by "era", "legacy",
// "auto" or a revision. Requests are read from stdin and answered on stdout, one JSON value a line: first
// who met whom; then {"answer"} or {"error"} for each request, which is one of
//
//     {"list": true}                       the names of all tools
//     {"page": cursor or null}             one page of them
//     {"call": {"name", "arguments"}}      a call, with its progress; "abort": n ends it at the nth
//     {"changed": true}                    the names of the tools after they have changed

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [packages, server] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');
const { StdioClientTransport } = require('@modelcontextprotocol/client/stdio');

const say = value => process.stdout.write(`${JSON.stringify(value)}\n`);
const names = tools => tools.map(tool => tool.name);

const { url, command, args, era } = JSON.parse(server);
const changes = [];
let changed = () => {};
const client = new Client(
  { name: 'tests', version: '1' },
  {
    versionNegotiation: { mode: ['legacy', 'auto'].includes(era) ? era : { pin: era } },
    listChanged: {
      tools: {
        debounceMs: 0,
        onChanged: (error, tools) => {
          changes.push(error ? { failure: String(error) } : names(tools));
          changed();
        },
      },
    },
  },
);

async function call({ call, abort }) {
  const ending = new AbortController();
  const progress = [];
  const onprogress = ({ progress: done, total, message }) => {
    progress.push([done, total ?? null, message ?? '']);
    if (progress.length === abort) ending.abort('enough');
  };
  try {
    const result = await client.callTool(call, { onprogress, signal: ending.signal });
    return { ...result, progress };
  } catch (error) {
    if (!ending.signal.aborted) throw error;
    return { aborted: String(error), progress };
  }
}

async function answer(request) {
  if ('list' in request) return names((await client.listTools()).tools);
  if ('call' in request) return call(request);
  if ('page' in request) {
    // `listTools` without a cursor would collect all pages.
    const params = request.page === null ? {} : { cursor: request.page };
    const { tools, nextCursor } = await client.request({ method: 'tools/list', params });
    return { names: names(tools), next: nextCursor ?? null };
  }
  while (changes.length === 0) await new Promise(resolve => (changed = resolve));
  return changes.shift();
}

const transport = url
  ? new StreamableHTTPClientTransport(new URL(url))
  : new StdioClientTransport({ command, args, env: process.env });
await client.connect(transport);
say({
  sdk: JSON.parse(readFileSync(`${packages}/node_modules/@modelcontextprotocol/client/package.json`)).version,
  node: process.versions.node,
  protocol: client.getNegotiatedProtocolVersion(),
  server: client.getServerVersion().name,
  pid: transport.pid ?? null,
});
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say({ answer: await answer(JSON.parse(line)) });
  } catch ({ constructor, code, message, data }) {
    say({ error: { kind: constructor.name, code: code ?? null, message, data: data ?? null } });
  }
}
await client.close();
