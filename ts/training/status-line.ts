import type { Callback, Run } from './callbacks.ts';
import type { StepReport } from './step-report.ts';

/** Where a status line goes: `process.stderr` has this shape. */
export interface StatusOutput {
  /** As of a stream. */
  write(text: string): unknown;
  isTTY?: boolean | undefined;
  columns?: number | undefined;
}

/** Options of {@link statusLine}. */
export interface StatusLineOptions {
  output?: StatusOutput;
  /** What stands before the numbers. */
  label?: string;
  /** Seconds between two plain lines when the output is no terminal. Default 10. */
  plainEvery?: number;
  /** Seconds, for tests. */
  now?: () => number;
}

/** One line, rewritten in place: step, loss, tokens per second, time left. Where the output is no terminal, a plain line now and then. */
export function statusLine(options: StatusLineOptions = {}): Callback {
  const {
    output = process.stderr,
    label = 'train',
    plainEvery = 10,
    now = () => performance.now() / 1000,
  } = options;
  const interval = output.isTTY ? 0.1 : plainEvery;
  let started = 0;
  let firstStep = 0;
  let shown = Number.NEGATIVE_INFINITY;
  let dirty = false;
  /** Smoothed over some twenty steps: single steps jump. */
  let speed = 0;
  return {
    name: 'status',
    onStart(run) {
      started = now();
      firstStep = run.step;
    },
    onStep(report, run) {
      speed = speed === 0 ? report.tokensPerSecond : 0.95 * speed + 0.05 * report.tokensPerSecond;
      const time = now();
      const last = report.step >= run.totalSteps;
      if (!last && time - shown < interval) return;
      shown = time;
      const left = ((time - started) / (report.step - firstStep)) * (run.totalSteps - report.step);
      const text = `${label} ${describe(report, run, speed)}  ETA ${duration(left)}`;
      if (output.isTTY) output.write(`\r\x1b[K${text.slice(0, (output.columns ?? 80) - 1)}`);
      else output.write(`${text}\n`);
      dirty = output.isTTY === true;
    },
    close() {
      if (dirty) output.write('\n');
      dirty = false;
    },
  };
}

function describe(report: StepReport, run: Run, speed: number): string {
  const width = String(run.totalSteps).length;
  return [
    `${String(report.step).padStart(width)}/${run.totalSteps}`,
    `loss ${report.loss.toFixed(4)}`,
    `${short(speed)} tokens/s`,
  ].join('  ');
}

function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  return value >= 1e4 ? `${(value / 1e3).toFixed(1)}k` : value.toFixed(0);
}

function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value: number) => String(value).padStart(2, '0');
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
