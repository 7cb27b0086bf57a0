"""The style sheet of the page: dark on light, one column that fits 320 pixels, and a version for paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --line: #c9ced6; --soft: #f3f5f8; --ink: #1b1f24; --dim: #4a525c; --link: #0b57a4; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1112px; padding: 0 16px 48px; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.25; margin: 0 0 8px; }
h1 { font-size: 1.7rem; }
h2 { font-size: 1.3rem; margin-top: 40px; padding-bottom: 4px; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1.08rem; margin-top: 28px; }
p { margin: 0 0 12px; max-width: 72ch; }
ul { margin: 0 0 12px; padding-left: 22px; }
li { max-width: 72ch; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
.skip { position: absolute; left: -9999px; }
.skip:focus { position: static; }
header { padding: 28px 0 4px; }
.kind { margin: 0; color: var(--dim); }
.dim { color: var(--dim); }
nav ul { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 8px 0 0; padding: 10px 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
code { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; font-size: .92em; }
code, td, th, li, figcaption { unicode-bidi: isolate; }
.score { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; padding: 0; list-style: none; }
.score li { flex: 1 1 160px; padding: 12px 14px; border: 1px solid var(--line); border-radius: 6px;
  background: var(--soft); }
.score b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.score span { display: block; color: var(--dim); font-size: .92rem; }
.notice { margin: 0 0 12px; padding: 10px 14px; border-left: 5px solid #e69f00; background: #fff6e0; max-width: none; }
.notice p, .notice ul { margin-bottom: 0; max-width: 90ch; }
.scroll { overflow-x: auto; margin: 0 0 16px; max-width: 100%; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; padding: 4px 0 6px; font-weight: 600; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--dim); vertical-align: bottom; }
tbody th { font-weight: 500; }
.scroll th, .scroll td { overflow-wrap: normal; }
.scroll th code, .scroll td code { overflow-wrap: anywhere; }
.scroll tbody th { min-width: 11ch; max-width: 34ch; overflow-wrap: break-word; }
.scroll tbody th code { display: inline-block; min-width: 13ch; overflow-wrap: anywhere; }
.within { display: inline-block; color: var(--dim); font-size: .92em; min-width: 15ch; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.numbers thead th:not(:first-child) { white-space: normal; }
.facts { width: 100%; table-layout: fixed; margin: 0 0 16px; }
.facts th { width: 32%; font-weight: 500; }
.facts td ul { padding-left: 18px; margin: 0; }
figure { margin: 0 0 20px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 0 32px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--dim); font-size: .92rem; margin: 4px 0 8px; max-width: 90ch; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--link); padding: 2px 0; }
details > :not(summary) { margin-top: 8px; }
.video { border-top: 1px solid var(--line); padding-top: 4px; margin-top: 28px; }
.faces { display: flex; flex-wrap: wrap; gap: 8px; list-style: none; padding: 0; margin: 0 0 12px; }
.faces img { display: block; width: 72px; height: 72px; object-fit: cover; }
.faces span { display: block; font-size: .8rem; color: var(--dim); text-align: center; }
footer { margin-top: 48px; padding-top: 10px; border-top: 1px solid var(--line); color: var(--dim); font-size: .9rem; }
@media (max-width: 719px) {
  h1 { font-size: 1.35rem; }
  th, td { padding: 4px 6px; }
  .within { display: block; min-width: 0; }
  .scroll table { font-size: .88rem; }
  .facts th { width: 38%; }
}
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip { display: none; }
  a { color: inherit; text-decoration: none; }
  h2, h3 { break-after: avoid; }
  figure, .score li, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  figure img { max-height: 240mm; }
}
"""
