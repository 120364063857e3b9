/** The whole style of a report; nothing is loaded from anywhere. */
export const style = `
:root { --ink: #1b1f24; --quiet: #57606a; --line: #d8dee4; --soft: #f6f8fa; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 36px 28px 72px; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 14px; margin-bottom: 26px; }
h1 { font-size: 29px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 44px 0 6px; }
h3 { font-size: 16px; margin: 26px 0 6px; }
p { margin: 6px 0 12px; }
.meta, figcaption, .hint { color: var(--quiet); font-size: 13.5px; }
.verdict { border-left: 5px solid var(--accent); background: #eef6fb; padding: 13px 18px; margin: 0 0 12px; border-radius: 0 6px 6px 0; }
.verdict strong { display: block; font-size: 12.5px; text-transform: uppercase; letter-spacing: 0.05em; color: var(--quiet); margin-bottom: 2px; }
.verdict.open { border-left-color: #9aa4af; background: var(--soft); }
.verdict p { margin: 0; font-size: 16px; }
.note { border-left: 4px solid #E69F00; background: #fff8e6; padding: 8px 14px; margin: 8px 0; border-radius: 0 6px 6px 0; font-size: 14px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 10px 0 6px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--ink); padding: 6px 14px 6px 0; vertical-align: bottom; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: 6px 14px 6px 0; vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.best { font-weight: 700; }
td small, th small { color: var(--quiet); font-weight: 400; }
td small { display: block; }
figure { margin: 12px 0 8px; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: 4px; max-width: 78ch; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
details { border: 1px solid var(--line); border-radius: 6px; margin: 8px 0; }
summary { cursor: pointer; padding: 8px 14px; font-weight: 500; }
details > :not(summary) { margin: 0; padding: 4px 14px 12px; }
pre { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-x: auto; white-space: pre; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; font-size: 14px; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 56px; border-top: 1px solid var(--line); padding-top: 12px; }
@media print { main { padding: 0; max-width: none; } figure, tr, .verdict { break-inside: avoid; } }
`;
