import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';

/** Runs `body` while no other process does so with the same lock file, which holds the holder's process id. Waits half an hour at most. */
export async function withLock(file, body) {
  const until = Date.now() + 30 * 60_000;
  const own = `${file}.${process.pid}`;
  try {
    // Filled first, then named: a waiter that read an empty lock would take its holder for dead.
    await writeFile(own, String(process.pid));
    while (!(await taken(own, file))) {
      const holder = await readFile(file, 'utf8').catch(() => undefined);
      if (holder === undefined) continue; // given back meanwhile
      if (!alive(Number(holder))) {
        await removeDead(file, holder, `${own}.dead`);
        continue;
      }
      if (Date.now() > until)
        throw new Error(
          `ERR_LIBMOE_BUILD: another build (process ${holder}) has held ${file} for 30 minutes; end it or delete the file`,
        );
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    await rm(own, { force: true });
  }
  try {
    await body();
  } finally {
    await rm(file, { force: true });
  }
}

async function taken(own, file) {
  try {
    await link(own, file);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  }
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return pid > 0;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Others may have found the same dead holder: the lock that one of them has taken since goes back to its name. */
async function removeDead(file, holder, aside) {
  await rename(file, aside).catch(() => {});
  if ((await readFile(aside, 'utf8').catch(() => holder)) !== holder) await link(aside, file).catch(() => {});
  await rm(aside, { force: true });
}
