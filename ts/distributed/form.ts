import { hostname, networkInterfaces } from 'node:os';
import { fail, LibmoeError, native } from '../native/index.ts';
import { broadcast, openConnection } from '../tensor/collective.ts';
import { type DeviceName, tensor, zeros } from '../tensor/index.ts';
import { findMpi, findNccl } from './engines.ts';
import type { LaunchEnvironment } from './environment.ts';
import { connectedGroup, GroupState } from './group.ts';
import type { ProcessGroup } from './process-group.ts';
import { Rendezvous, type RendezvousPlace } from './rendezvous.ts';
import { RendezvousServer } from './rendezvous-server.ts';

/** What is known before the ranks meet. */
export interface GroupPlan {
  engine: 'mpi' | 'nccl';
  device: DeviceName;
  launch: LaunchEnvironment;
  /** Seconds. */
  timeout: number;
}

/** Forms a group with this engine, of one rank too. {@link initProcessGroup} chooses the engine. */
export function formGroup(plan: GroupPlan): Promise<ProcessGroup> {
  return plan.engine === 'nccl' ? formNccl(plan) : formMpi(plan);
}

/** NCCL connects by a unique id that rank 0 makes, so the ranks meet first. */
async function formNccl(plan: GroupPlan): Promise<ProcessGroup> {
  const { device, launch, timeout } = plan;
  const { rank, worldSize, localRank } = launch;
  const place = masterPlace(plan);
  if (!place)
    fail(
      'ERR_LIBMOE_CONFIG',
      `rank ${rank} of ${worldSize} does not know where rank 0 is: set MASTER_ADDR and MASTER_PORT (libmoe launch and torchrun do; under Slurm, ` +
        'MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -1))',
    );
  // A rank that cannot take part says so to the others instead of letting them wait.
  const library = findNccl();
  const state = new GroupState();
  let problem = library.reason ?? '';
  let share: Uint8Array = new Uint8Array();
  try {
    if (!problem && rank === 0) share = native().ncclUniqueId();
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  const me = { rank, engine: `NCCL ${library.version ?? ''}`, share, problem };
  const rendezvous = await Rendezvous.join(place, me, state);
  const open = { engine: 'nccl', device, rank, worldSize, timeout, id: rendezvous.share } as const;
  try {
    const { connection, connected } = openConnection(open);
    state.connection = connection;
    try {
      await connected;
    } catch (error) {
      const reason =
        state.reason || (await rendezvous.report(1, (error as Error).message.replace(/^ERR_\w+: /, '')));
      state.connection = undefined;
      await native().closeCommunicator(connection.number, false);
      throw new LibmoeError('ERR_LIBMOE_COLLECTIVE', reason, { cause: error });
    }
    return connectedGroup({ rank, localRank, backend: 'nccl', connection, rendezvous, state, timeout });
  } catch (error) {
    rendezvous.close();
    throw error;
  }
}

/** mpirun has connected the processes already, and can tell all of them where rank 0 listens. */
async function formMpi(plan: GroupPlan): Promise<ProcessGroup> {
  const { device, launch, timeout } = plan;
  const { rank, worldSize, localRank } = launch;
  const library = findMpi();
  if (!library.available)
    fail('ERR_LIBMOE_COLLECTIVE', `rank ${rank} of ${worldSize} has no MPI: ${library.reason}`);
  const state = new GroupState();
  const { connection, connected } = openConnection({
    engine: 'mpi',
    device,
    rank,
    worldSize,
    timeout,
    id: new Uint8Array(),
  });
  try {
    await inTime(
      connected,
      timeout,
      `rank ${rank}: MPI_Init has not returned for ${timeout} s: a rank was not started, or MPI cannot reach its machine`,
    );
    let server: RendezvousServer | undefined;
    let place = masterPlace(plan);
    if (!place) {
      const alone = launch.localWorldSize === worldSize;
      if (rank === 0) {
        const listening = await RendezvousServer.listen({
          host: alone ? '127.0.0.1' : '0.0.0.0',
          port: 0,
          worldSize,
          timeout,
        });
        server = listening.server;
        place = { host: '127.0.0.1', port: listening.port, worldSize, timeout };
      }
      const told = await addressOfRank0(connection, place?.port ?? 0);
      place ??= {
        host: told.host === hostname() ? '127.0.0.1' : told.address,
        port: told.port,
        worldSize,
        timeout,
      };
    }
    const me = { rank, engine: library.version ?? 'MPI', share: new Uint8Array(), problem: '' };
    const rendezvous = await Rendezvous.join(place, me, state, server);
    state.connection = connection;
    return connectedGroup({ rank, localRank, backend: 'mpi', connection, rendezvous, state, timeout });
  } catch (error) {
    void native()
      .closeCommunicator(connection.number, false)
      .catch(() => {});
    throw error;
  }
}

/** Rank 0's address, from the environment; undefined when it does not say. */
function masterPlace({ launch, timeout }: GroupPlan): RendezvousPlace | undefined {
  const { masterAddress, masterPort, worldSize } = launch;
  if (masterAddress === undefined || masterPort === undefined) return undefined;
  return { host: masterAddress, port: masterPort, worldSize, timeout };
}

interface Address {
  host: string;
  address: string;
  port: number;
}

const addressBytes = 512;

/** Tells all ranks, through the engine, where rank 0 listens. */
async function addressOfRank0(connection: Parameters<typeof broadcast>[0], port: number): Promise<Address> {
  const outside = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ internal, family }) => !internal && family === 'IPv4');
  const mine: Address = { host: hostname(), address: outside?.address ?? '127.0.0.1', port };
  const text = Buffer.alloc(addressBytes, ' ');
  text.write(JSON.stringify(mine));
  using bytes =
    port > 0 ? tensor(new Uint8Array(text), [addressBytes]) : zeros([addressBytes], { dtype: 'u8' });
  await broadcast(connection, 'finding rank 0', bytes, 0);
  return JSON.parse(
    Buffer.from(bytes.readSync() as Uint8Array)
      .toString()
      .trim(),
  ) as Address;
}

async function inTime(promise: Promise<void>, seconds: number, message: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new LibmoeError('ERR_LIBMOE_COLLECTIVE', message)), seconds * 1000);
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
