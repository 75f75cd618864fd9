"""Skeleton and style sheet of report pages: system fonts, light and dark mode, narrow screens, tables that scroll."""

from __future__ import annotations

from html import escape

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #5b636d; --grid: #d3d7dc; --band: #f4f6f8; --mark: #0a5fa8; --data: #0072b2;
  --warn: #9a5b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e8ea; --soft: #a3abb4; --grid: #3a4149; --band: #1d2125;
    --mark: #79bdf2; --data: #4ba6e0; --warn: #e0a955;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .5rem 0; }
.lead { color: var(--soft); font-size: 1.05rem; }
nav { margin: 1rem 0 0; font-size: .92rem; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
a { color: var(--mark); }
ul { padding-left: 1.2rem; margin: .5rem 0; }
.findings li { margin: .25rem 0; }
.notes { color: var(--soft); font-size: .88rem; }
.caveats { border-left: 3px solid var(--warn); padding: .1rem 0 .1rem .9rem; margin: 1rem 0; }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1.2rem; margin: .6rem 0; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
pre {
  background: var(--band); border: 1px solid var(--grid); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
details > summary { cursor: pointer; color: var(--mark); margin: .6rem 0; }
.scroll { overflow-x: auto; margin: .8rem 0 .4rem; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .65rem; white-space: nowrap; text-align: left; vertical-align: baseline; }
table.wide { font-size: .82rem; }
.wide th, .wide td { padding: .26rem .42rem; }
table.wider { font-size: .74rem; }
.wider th, .wider td { padding: .24rem .28rem; }
th:first-child, td:first-child { padding-left: .3rem; }
thead th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
thead tr.groups th { border-bottom: none; padding-bottom: 0; }
thead tr.groups th.named span { display: block; border-bottom: 1px solid var(--soft); text-align: center; }
tbody th { font-weight: 400; }
thead tr:last-child th:first-child, tbody tr:not(.mean) th { position: sticky; left: 0; background: var(--paper); }
tbody tr:nth-child(even of :not([hidden], .mean)) > * { background: var(--band); }
tbody tr.mean { font-weight: 600; }
tbody tr.mean th { font-weight: 600; }
tbody td.name { white-space: normal; overflow-wrap: anywhere; }
tbody tr.mean.first > * { border-top: 1px solid var(--ink); }
table { border-bottom: 1.5px solid var(--ink); }
.number { text-align: right; }
.best { font-weight: 700; color: var(--mark); }
.missing { color: var(--soft); }
figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; }
svg { display: block; height: auto; max-width: 100%; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--grid); }
footer { color: var(--soft); font-size: .85rem; }
.sortable .scroll { max-height: 38rem; }
.sortable thead { position: sticky; top: 0; z-index: 1; background: var(--paper); }
.sortable thead tr:last-child th { box-shadow: 0 1.5px var(--ink); }
.sortable button { all: unset; cursor: pointer; }
.sortable button:hover { text-decoration: underline; }
.sortable button:focus-visible { outline: 2px solid var(--mark); }
.sortable th[aria-sort=ascending] button::after { content: ' ▲'; }
.sortable th[aria-sort=descending] button::after { content: ' ▼'; }
.sortable input {
  font: inherit; font-size: .9rem; width: 22rem; max-width: 100%; padding: .25rem .5rem; color: var(--ink);
  background: var(--paper); border: 1px solid var(--soft); border-radius: 4px;
}
.sortable output { display: inline-block; margin-left: .8rem; color: var(--soft); font-size: .88rem; }
@media (min-width: 66rem) {
  .scroll:has(> table.wide) { margin-right: calc((62rem - min(100vw, 98rem)) / 2); max-width: none; }
}
@media (max-width: 40rem) {
  main { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  dl.facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl.facts dd { margin-bottom: .5rem; }
  th, td { padding: .28rem .55rem; }
  svg { max-width: none; }
}
@media print {
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll, .sortable .scroll { overflow: visible; max-height: none; }
  .sortable input, .sortable output { display: none; }
  table, table.wide, table.wider { font-size: 6.5pt; }
  .wide th, .wide td { padding: .15rem .25rem; }
  figure, tr { break-inside: avoid; }
}
""".strip()


def document(title: str, header: str, body: str, script: str = '') -> str:
    """A complete HTML document with the style inline. header: HTML below the title. body: HTML of the sections. script:
    JavaScript for the end of the page, from a constant of this package."""
    tail = f'<script>\n{script}\n</script>\n' if script else ''
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
{header}
</header>
{body}
</main>
{tail}</body>
</html>
"""
