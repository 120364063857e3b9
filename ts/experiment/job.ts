import type { EvalModel, TaskChoice } from '../evaluation/index.ts';
import type { BatchKind, BatchSource, Callback, Strategy, TrainableModel } from '../training/index.ts';
import type { AnyRecipe } from './recipe.ts';

/** What a job is made for. */
export interface JobSetting {
  /** The run folder. */
  out: string;
  /** The run's own checkpoint, when it goes on. */
  checkpoint: string | undefined;
  strategy: Strategy;
  log: (line: string) => void;
  signal: AbortSignal | undefined;
}

/** A recipe made ready: what its kind of model brings to the one way in which all are trained and evaluated. */
export interface Job<Batch> {
  readonly model: TrainableModel<Batch> & { activationCheckpointing: boolean };
  readonly loader: BatchSource<Batch>;
  readonly batches: BatchKind<Batch>;
  readonly steps: number;
  readonly checkpointEvery: number;
  /** The recipe with what only a run can know: repeating it repeats the run. */
  readonly resolved: AnyRecipe;
  /** For people and for `summary.json`. */
  readonly facts: {
    model: string;
    parameters: number;
    activeParameters: number;
    /** Absent where it depends on the images between the tokens. */
    flopsPerToken?: number;
  };
  /** Writes the model and what belongs to it into a checkpoint folder, and reads the model back. */
  saveModel(folder: string): void | Promise<void>;
  loadModel(folder: string): void | Promise<void>;
  /** What is evaluated; empty: nothing. */
  tasks(): Promise<TaskChoice[]>;
  /** The model as it is now, to be asked. @param facts stand in the results */
  evaluated(facts: Readonly<Record<string, string | number>>): EvalModel;
  /** What happens beside training in this kind of run alone. */
  callbacks(): Promise<Callback[]>;
  dispose(): void | Promise<void>;
}
