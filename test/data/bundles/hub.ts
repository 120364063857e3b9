import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export const commit = '0123456789abcdef0123456789abcdef01234567';

/** A hub of one data set, as far as a download needs one: its commit, its files in two pages, and parts of each. */
export interface Hub {
  url: string;
  /** What was asked for, `path` or `path from byte`. */
  asked: string[];
  /** Ends the connection after this many bytes of a body, once. */
  cutAfter?: number;
  close(): Promise<void>;
}

export async function startHub(
  id: string,
  files: Record<string, string>,
  options: { large?: readonly string[]; wrongHash?: string; token?: string } = {},
): Promise<Hub> {
  const asked: string[] = [];
  const hub: Hub = {
    url: '',
    asked,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
  const list = Object.entries(files).map(([path, content]) => {
    const size = Buffer.byteLength(content);
    const wrong = path === options.wrongHash ? 'x' : '';
    return {
      type: 'file',
      path,
      size,
      oid: createHash('sha1').update(`blob ${size}\0${wrong}`).update(content).digest('hex'),
      ...(options.large?.includes(path) && {
        lfs: { oid: createHash('sha256').update(content).digest('hex'), size, pointerSize: 130 },
      }),
    };
  });
  const server: Server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, hub.url);
    const path = decodeURIComponent(pathname);
    const json = (value: unknown, headers = {}) =>
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
    if (options.token && request.headers.authorization !== `Bearer ${options.token}`)
      return response.writeHead(401).end('{"error":"who are you?"}');
    if (path === `/api/datasets/${id}/revision/main` || path === `/api/datasets/${id}/revision/${commit}`)
      return json({ _id: '1', id, sha: commit, lastModified: '2026-01-01T00:00:00Z' });
    if (path === `/api/datasets/${id}/tree/${commit}`) {
      const second = searchParams.has('cursor');
      const half = Math.ceil(list.length / 2);
      const link = { link: `<${hub.url}${pathname}?cursor=2>; rel="next"` };
      return json(
        [{ type: 'directory', path: 'data', size: 0 }, ...(second ? list.slice(half) : list.slice(0, half))],
        second ? {} : link,
      );
    }
    const name = path.startsWith(`/datasets/${id}/resolve/${commit}/`)
      ? path.slice(`/datasets/${id}/resolve/${commit}/`.length)
      : undefined;
    const content = name === undefined ? undefined : files[name];
    if (content === undefined) return response.writeHead(404).end('{"error":"not found"}');
    const bytes = Buffer.from(content);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const begin = Number(from ?? 0);
    const end = to === undefined ? bytes.length : Math.min(Number(to) + 1, bytes.length);
    if (end - begin !== 1) asked.push(begin === 0 ? name! : `${name} from ${begin}`);
    response.writeHead(from === undefined ? 200 : 206, {
      'content-length': end - begin,
      'content-range': `bytes ${begin}-${end - 1}/${bytes.length}`,
      etag: '"e"',
    });
    const body = bytes.subarray(begin, end);
    if (hub.cutAfter !== undefined && body.length > hub.cutAfter) {
      const cut = hub.cutAfter;
      delete hub.cutAfter;
      response.write(body.subarray(0, cut), () => setTimeout(() => response.destroy(), 50));
      return undefined;
    }
    return response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return hub;
}
