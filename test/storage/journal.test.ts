import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Journal, readJournal, truncateJournal } from '../../ts/storage/journal.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();

describe('Journal', () => {
  it('appends across openings', () => {
    const path = join(root, 'deep/a.jsonl');
    {
      using journal = new Journal(path, { syncEvery: 2 });
      for (let step = 0; step < 3; step += 1) journal.append({ step });
    }
    using again = new Journal(path);
    again.append({ step: 3, text: 'two\nlines' });
    expect(readJournal(path).map((entry) => entry.step)).toEqual([0, 1, 2, 3]);
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(5);
  });

  it('survives a last line torn at any byte, and goes on behind it', () => {
    const path = join(root, 'torn.jsonl');
    const whole = '{"step":1}\n{"step":2,"text":"ü"}\n';
    const bytes = Buffer.from(whole);
    for (let length = 0; length <= bytes.length; length += 1) {
      writeFileSync(path, bytes.subarray(0, length));
      const expected = (length >= 10 ? 1 : 0) + (length >= bytes.length - 1 ? 1 : 0);
      expect(readJournal(path), `${length} bytes`).toHaveLength(expected);
      using journal = new Journal(path);
      journal.append({ step: 9 });
      expect(readJournal(path).map((entry) => entry.step)).toEqual([1, 2].slice(0, expected).concat(9));
    }
  });

  it('names the line of damage that is no torn end', () => {
    const path = join(root, 'damaged.jsonl');
    writeFileSync(path, '{"a":1}\n{"a":\n{"a":3}\n');
    expect(() => readJournal(path)).toThrow(/ERR_LIBMOE_FILE.*damaged\.jsonl line 2/);
    expect(() => new Journal(path)).toThrow(/line 2/);
    writeFileSync(path, '{"a":1}\n5\n');
    expect(() => readJournal(path)).toThrow('line 2 must hold a JSON object');
  });

  it('is cut where a run goes back to', () => {
    const path = join(root, 'cut.jsonl');
    writeFileSync(path, '{"step":1}\n{"step":2}\n{"step":3}\n{"st');
    expect(truncateJournal(path, (entry) => (entry.step as number) <= 2)).toBe(2);
    expect(readFileSync(path, 'utf8')).toBe('{"step":1}\n{"step":2}\n');
  });

  it('refuses to write when closed', () => {
    const journal = new Journal(join(root, 'closed.jsonl'));
    journal.close();
    journal.close();
    expect(() => journal.append({})).toThrow('ERR_LIBMOE_STATE');
    expect(() => new Journal('/dev/null/x.jsonl')).toThrow('ERR_LIBMOE_FILE');
    expect(() => new Journal(join(root, 'n.jsonl'), { syncEvery: 0 })).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});
