import { fail, native } from '../native/index.ts';
import { checkInPlace, checkPieces, checkReducible, checkRoot, checkRows } from '../tensor/collective.ts';
import { type DeviceName, type Tensor, view } from '../tensor/index.ts';
import type { ProcessGroup, Work } from './process-group.ts';

const done: Work = { wait: async () => {} };

function copyOver(from: Tensor, to: Tensor, count: number): void {
  if (count === 0) return;
  using source = view(from, [count]);
  using target = view(to, [count]);
  native().copy(target.handle, source.handle);
}

/** The group of one process: every collective is a copy at most. Checks its arguments as the others do, so that what runs alone runs together. */
export function aloneGroup(device: DeviceName, localRank: number): ProcessGroup {
  const group = { worldSize: 1, device };
  let left = false;
  const enter = (op: string) => {
    if (left)
      fail('ERR_LIBMOE_STATE', `${op}: this process group was disposed of; make one with initProcessGroup()`);
  };
  return {
    rank: 0,
    worldSize: 1,
    localRank,
    backend: 'none',
    allReduce(tensor) {
      enter('allReduce');
      checkInPlace('allReduce', group, tensor);
      checkReducible('allReduce', tensor);
      return done;
    },
    reduceScatter(input, output) {
      enter('reduceScatter');
      checkPieces(
        'reduceScatter',
        group,
        { name: 'input', tensor: input },
        { name: 'output', tensor: output },
      );
      checkReducible('reduceScatter', input);
      copyOver(input, output, output.size);
      return done;
    },
    allGather(input, output) {
      enter('allGather');
      checkPieces('allGather', group, { name: 'output', tensor: output }, { name: 'input', tensor: input });
      copyOver(input, output, input.size);
      return done;
    },
    allToAll(input, inputCounts, output, outputCounts) {
      enter('allToAll');
      const width = checkRows('allToAll', group, input, inputCounts, output, outputCounts);
      if (inputCounts[0] !== outputCounts[0])
        fail(
          'ERR_LIBMOE_ARGUMENT',
          `allToAll: rank 0 sends itself ${inputCounts[0]} rows and expects ${outputCounts[0]}`,
        );
      copyOver(input, output, inputCounts[0]! * width);
      return done;
    },
    broadcast(tensor, root) {
      enter('broadcast');
      checkInPlace('broadcast', group, tensor);
      checkRoot('broadcast', group, root);
      return done;
    },
    async barrier() {
      enter('barrier');
    },
    async sumNumbers(values) {
      enter('sumNumbers');
      return [...values];
    },
    async dispose() {
      left = true;
    },
  };
}
