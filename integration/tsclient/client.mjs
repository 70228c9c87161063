// Clients of the official TypeScript SDK under load. What they see goes to standard output, one JSON object a line:
//
//   {"kind":"ready"}                                              all have their sessions
//   {"kind":"call","client":"ts-0","tool":"add","nonce":"...", ...}  a call has ended, in one way or another
//   {"kind":"tick","client":"ts-0","source":"...","number":1}     a message of the server's own
//   {"kind":"last","client":"ts-0","error":""}                    the call after all faults; empty: the session is still good
//   {"kind":"fatal","error":"..."}                                nothing more will come
//
// usage: node client.mjs URL...    one client for each; they call until standard input ends
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

const callTimeout = 60_000;
const pause = 100; // ms between two calls of one client

const say = line => process.stdout.write(JSON.stringify(line) + '\n');
const wait = ms => new Promise(resolve => setTimeout(resolve, ms));

let stopping = false;
process.stdin.resume();
process.stdin.on('end', () => { stopping = true; });

async function open(name, url) {
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    // The SDK gives up after two tries by default; in a fault a third may be needed.
    reconnectionOptions: { initialReconnectionDelay: 200, maxReconnectionDelay: 2000, reconnectionDelayGrowFactor: 1.5, maxRetries: 10 },
  });
  const client = new Client({ name, version: '1' });
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
    say({ kind: 'tick', client: name, source: params.data.source, number: params.data.number });
  });
  await client.connect(transport);
  await client.setLoggingLevel('info');
  return { name, client };
}

async function call({ name, client }, tool, args) {
  const progress = [];
  const line = { kind: 'call', client: name, tool, nonce: args.nonce, progress };
  try {
    const result = await client.callTool({ name: tool, arguments: args }, undefined, {
      timeout: callTimeout,
      onprogress: p => progress.push({ nonce: p.message ?? '', number: p.progress }),
    });
    line.text = result.content.map(part => part.text).join('');
    line.is_error = Boolean(result.isError);
  } catch (error) {
    line.error = String(error.message ?? error);
    line.code = typeof error.code === 'number' ? error.code : 0;
    // What the SDK makes of an HTTP status has the body in its text.
    line.reason = error.data?.reason ?? /"reason":"([a-z_]+)"/.exec(line.error)?.[1] ?? '';
  }
  return line;
}

async function load(session) {
  for (let i = 0; !stopping; i++) {
    const nonce = `${session.name}-${i}`;
    const [tool, args] = [
      ['add', { a: i, b: 1, nonce }],
      ['effect', { nonce }],
      ['count', { to: 5, interval_ms: 150, nonce }],
    ][i % 3];
    say({ ...await call(session, tool, args), want: i + 1 });
    await wait(pause);
  }
}

try {
  const sessions = await Promise.all(process.argv.slice(2).map((url, i) => open(`ts-${i}`, url)));
  say({ kind: 'ready' });
  await Promise.all(sessions.map(load));
  for (const session of sessions) {
    const last = await call(session, 'add', { a: 1, b: 1, nonce: `${session.name}-last` });
    say({ kind: 'last', client: session.name, error: last.error ?? '' });
  }
  process.exit(0);
} catch (error) {
  say({ kind: 'fatal', error: String(error.stack ?? error) });
  process.exit(1);
}
