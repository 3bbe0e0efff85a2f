"""How reports look: light and dark as the reader's system is, one column on a phone, black on white in print."""

PALETTE = """
:root { --ground: #ffffff; --text: #1b2430; --muted: #5b6775; --rule: #d9dee5; --panel: #f5f7f9;
  --good: #1a7f4b; --bad: #b3261e; --warn: #8a5a00;
  --c0: #0f7f86; --c1: #b85c00; --c2: #5b4bc4; --c3: #2f7d32; --c4: #b0336b; --c5: #6b6200; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161d; --text: #e4e8ee; --muted: #9aa5b3; --rule: #2c3542;
  --panel: #1a202a; --good: #6fd19c; --bad: #ff8a80; --warn: #f0c36a;
  --c0: #5ec4c9; --c1: #f0a35e; --c2: #a79bf5; --c3: #8fce86; --c4: #f28bb7; --c5: #d8cf6a; } }
@media print { :root { --ground: #ffffff; --text: #000000; --muted: #444444; --rule: #bbbbbb; --panel: #ffffff;
  --good: #1a7f4b; --bad: #b3261e; --warn: #8a5a00;
  --c0: #0f7f86; --c1: #b85c00; --c2: #5b4bc4; --c3: #2f7d32; --c4: #b0336b; --c5: #6b6200; } }
"""
CHART = """
.chart { width: 100%; height: auto; display: block; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--muted); }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .raw { fill: none; stroke-width: 2.2; stroke-linecap: round; opacity: .45; }
.chart .mark { stroke: var(--ground); stroke-width: 1.5; }
.chart .interval { stroke-width: 1.2; opacity: .55; }
.chart .best { stroke: var(--text); stroke-width: 1; stroke-dasharray: 2 3; }
.chart .note { fill: var(--text); paint-order: stroke; stroke: var(--ground); stroke-width: 4; }
@media screen and (max-width: 40rem) { .chart text { font-size: 19px; } }
.chart .level { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 6 4; }
"""

PAGE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.about, .note, figcaption, th, dt { color: var(--muted); }
.note, figcaption { font-size: .9rem; }
figure { margin: 0 0 1rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.state { font-weight: 600; margin-right: .5rem; }
.verdict { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem; }
.verdict p:first-child { font-size: 1.15rem; font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr; gap: .25rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { min-width: 6rem; }
th:first-child, td:first-child, .texts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th { font-weight: 500; }
.texts { width: 100%; table-layout: fixed; } .texts th { text-align: left; }
.texts td { white-space: pre-wrap; }
.bars { display: grid; grid-template-columns: max-content max-content 1fr; gap: .2rem .8rem; align-items: center;
  font-variant-numeric: tabular-nums; }
.bars b { font-weight: 400; text-align: right; }
.bars i { display: block; height: .7rem; border-radius: 2px; background: var(--c0); min-width: 1px; }
.bars .plan { background: var(--c1); } .bars .free { background: var(--rule); }
.bars .part { color: var(--muted); padding-left: 1rem; }
.hit { background: color-mix(in srgb, var(--good) 18%, transparent); }
.miss { background: color-mix(in srgb, var(--bad) 14%, transparent); }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: .6rem .8rem;
  margin: .3rem 0; font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
summary { cursor: pointer; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  .texts, .texts tbody, .texts tr, .texts td { display: block; width: auto; } .texts thead { display: none; }
  .texts td { border: 0; padding: .1rem 0; } .texts tr { border-bottom: 1px solid var(--rule); padding: .4rem 0; }
  .texts td::before { content: attr(data-of) " "; color: var(--muted); }
  .bars { grid-template-columns: max-content max-content; } .bars i { grid-column: 1 / -1; } }
@media print { body { font-size: 11pt; } main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr, pre, .verdict { break-inside: avoid; } }
"""
