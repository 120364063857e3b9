import { spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** A script of bench/peers as a process of its own, for scripts that no bench case fits: one JSON line for another, as protocol.py answers. */
export function pythonPeer(python, script, args, name) {
  const child = spawn(python, [path.join(import.meta.dirname, 'peers', script), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const answer = JSON.parse((await lines.next()).value ?? '{"error": "it ended"}');
      if (answer.error) throw new Error(`${name}: ${answer.error}`);
      return answer;
    },
    end: () => child.kill(),
  };
}
