import { Command } from 'commander';

export function benchCommand(): Command {
  return new Command('bench').description('time the op families and compare with PyTorch').action(() => {});
}
