export { palette, smooth } from './draw.ts';
export { evaluationFigure, type Score } from './evaluation-figure.ts';
export { type IntervalRow, intervalFigure } from './interval-figure.ts';
export { type Curve, lossFigure } from './loss-figure.ts';
export { type Progress, progressFigure } from './progress-figure.ts';
export { categoryFigure, confidenceFigure, loadFigure } from './routing-figures.ts';
