export {
  type Curve,
  categoryFigure,
  confidenceFigure,
  evaluationFigure,
  type IntervalRow,
  intervalFigure,
  loadFigure,
  lossFigure,
  type Progress,
  palette,
  progressFigure,
  type Score,
  smooth,
} from './figures.ts';
export { type ReportOptions, type ReportSummary, report } from './html.ts';
export {
  categoryRecords,
  lastEvaluation,
  type MetricsLine,
  type RunEvaluation,
  type RunFolder,
  type RunSummary,
  readRunFolder,
} from './run-folder.ts';
export { compareTexts, type TextComparison } from './verdicts.ts';
