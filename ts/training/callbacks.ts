import { fail } from '../native/index.ts';
import type { JsonValue } from '../storage/index.ts';
import type { StepReport, TrainingSummary } from './step-report.ts';

/** A running training, as callbacks see it. */
export interface Run {
  /** Steps done. */
  readonly step: number;
  /** Steps that there will be. */
  readonly totalSteps: number;
  readonly tokens: number;
  /** The run folder, when there is one. */
  readonly out: string | undefined;
  /** Ends training after the step that is running; a checkpoint is written first. */
  stop(): void;
  /**
   * Ends training after the step that is running as complete, such as when it no longer gets better. A resumed run goes on unless a callback says so
   * again in its `onStart`.
   * @param reason shown to people
   */
  finish(reason: string): void;
  /**
   * Asks for a checkpoint. It is written when every callback has seen the step, so that their states and logs belong to it.
   * Throws ERR_LIBMOE_STATE when there is no `out`.
   * @param name a file `checkpoints/<name>` will name it, as `latest` names the newest; it is kept as long as it has the name
   */
  requestCheckpoint(name?: string): void;
}

/** Something that happens beside training. Callbacks run one after the other, in their order; an error ends the training. */
export interface Callback {
  /** Names the callback's state in checkpoints. */
  readonly name: string;
  /** Before the first step; on a resumed run `run.step` is the step of the checkpoint. */
  onStart?(run: Run): void | Promise<void>;
  /** After every step. May add to the report; later callbacks see it. */
  onStep?(report: StepReport, run: Run): void | Promise<void>;
  /** Before a checkpoint is written: what was logged so far must last as long as it. */
  onCheckpoint?(run: Run): void | Promise<void>;
  /** After the last step, or after a stop. */
  onEnd?(summary: TrainingSummary, run: Run): void | Promise<void>;
  /** Always the last call, errors and `break` included: release what is held. */
  close?(): void;
  /** What a checkpoint must keep of this callback. */
  state?(): JsonValue;
  /** Takes back on a resume what {@link state} gave. */
  restore?(state: JsonValue): void;
}

/** Writes a checkpoint every `every` steps. The end of a training writes one in any case. */
export function checkpointEvery(every: number): Callback {
  if (!(Number.isInteger(every) && every > 0))
    fail('ERR_LIBMOE_ARGUMENT', `checkpointEvery must be a positive integer, got ${every}`);
  return {
    name: 'checkpoint',
    onStep(report, run) {
      if (report.step % every === 0) run.requestCheckpoint();
    },
  };
}
