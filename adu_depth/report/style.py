"""The report's style sheet: light and dark by the reader's preference, from a phone's width up, and on paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf8;--card:#fff;--ink:#1c1b1a;--soft:#6a6762;--line:#e3dfd8;--accent:#a8326b;
--good:#14713c;--bad:#b3261e;--s0:#3a6fb0;--s1:#d9822b;--s2:#a8326b;--s3:#2f8f6b;--s4:#7a5bb5;--s5:#7d766c}
@media (prefers-color-scheme:dark){:root{--paper:#161518;--card:#1f1e22;--ink:#eceae6;--soft:#a29e97;--line:#35333a;
--accent:#f08bb4;--good:#6fcf97;--bad:#ff8a80;--s0:#7fb0ea;--s1:#f2ab5c;--s2:#f08bb4;--s3:#6fcfa6;--s4:#b9a2f0;--s5:#b5aea2}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:clamp(20px,5vw,56px) clamp(16px,4vw,40px) 80px}
h1{font-size:clamp(1.7rem,4.5vw,2.6rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 .3em;text-wrap:balance}
h2{font-size:1.35rem;letter-spacing:-.01em;margin:0 0 .8em;padding-top:.9em;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:0 0 .8em;overflow-wrap:anywhere}
h4{font-size:.9rem;font-weight:600;margin:0}
section{margin-top:44px}
.subtitle,.note{color:var(--soft);font-size:.9rem;margin:.3em 0;overflow-wrap:anywhere}
.verdict{font-size:clamp(1.15rem,2.6vw,1.45rem);line-height:1.4;margin:0 0 .3em;max-width:38em;text-wrap:pretty}
.verdict strong{color:var(--accent);font-weight:650}
.prose{columns:2 22em;column-gap:40px}
.prose p{margin:0 0 1em;break-inside:avoid}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.metrics{margin-top:22px;font-size:.95rem}
.metrics th,.metrics td{padding:9px 14px;text-align:right;border-bottom:1px solid var(--line);vertical-align:baseline}
.metrics th:first-child{text-align:left;padding-left:0}
.metrics thead th{font-size:.82rem;line-height:1.3;color:var(--soft);font-weight:600;vertical-align:bottom}
.metrics tbody th{font-weight:600}
.metrics small{display:block;font-weight:400;color:var(--soft);font-size:.78rem}
.metrics td{white-space:nowrap}
.metrics td b{font-weight:750}
.sd{color:var(--soft);font-size:.82em}
.arrow,.none{color:var(--soft);font-weight:400}
.better{color:var(--good)}
.worse{color:var(--bad)}
.scene{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:clamp(14px,2.5vw,24px);margin:0 0 24px}
.row+.row{margin-top:22px}
.rowhead{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:6px 28px;margin-bottom:8px}
.bar{flex:0 1 340px;min-width:220px;margin-right:14px;font-size:.72rem;color:var(--soft)}
.ramp{height:9px;border-radius:2px;box-shadow:0 0 0 1px var(--line)}
.ticks{position:relative;height:1.35em;font-variant-numeric:tabular-nums}
.ticks span{position:absolute;transform:translateX(-50%);white-space:nowrap}
.pics{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr));gap:12px}
figure{margin:0}
.pics img{display:block;width:100%;height:auto;border-radius:4px}
.pics figcaption{font-size:.82rem;color:var(--soft);padding-top:4px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:20px}
.chart{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 14px 6px}
.chart figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 16px;font-size:.85rem}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;color:var(--soft)}
.key{white-space:nowrap}
.swatch{display:inline-block;width:16px;height:3px;border-radius:2px;background:currentColor;vertical-align:middle;margin-right:6px}
svg{display:block;width:100%;height:auto;overflow:hidden}
polyline{fill:none;stroke:currentColor;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.line{stroke-width:2.2}.raw{stroke-width:1;opacity:.28}.dashed{stroke-dasharray:6 4}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.tick{fill:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
.series-0{color:var(--s0)}.series-1{color:var(--s1)}.series-2{color:var(--s2)}
.series-3{color:var(--s3)}.series-4{color:var(--s4)}.series-5{color:var(--s5)}
.stage{display:grid;grid-template-columns:minmax(8em,14em) 1fr 6.5em;gap:12px;align-items:center;padding:3px 0;
font-size:.92rem}
.stage i{display:block;height:12px;border-radius:3px;background:var(--s0)}
.num{text-align:right;font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:600;font-size:.95rem;padding:6px 0}
.facts{font-size:.86rem}
.facts th,.facts td{text-align:left;font-weight:400;padding:5px 18px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}
.facts th{color:var(--soft);width:1%;white-space:nowrap}
.facts td{overflow-wrap:anywhere;min-width:10em}
@media (max-width:640px){body{font-size:16px}.metrics{font-size:.8rem}.metrics th,.metrics td{padding:8px 0 8px 8px}
.metrics small{display:none}.sd{display:block}.stage{grid-template-columns:7.5em 1fr 5.6em;gap:8px;font-size:.84rem}
.facts th{white-space:normal;width:45%;overflow-wrap:anywhere}.tick{font-size:17px}.bar{flex:1 1 100%;margin:0 14px}}
@media print{section{break-inside:auto}.scene,.chart{break-inside:avoid}}
"""

PICTURE_STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
.title{fill:#1c1b1a;font-size:16px;font-weight:600}
.tick{fill:#6a6762;font-size:13px;font-variant-numeric:tabular-nums}
polyline{fill:none;stroke:currentColor;stroke-linejoin:round;stroke-width:2.2}
.grid{stroke:#e3dfd8}.axis{stroke:#6a6762}
.series-0{color:#3a6fb0}.series-1{color:#d9822b}.series-2{color:#a8326b}
.series-3{color:#2f8f6b}.series-4{color:#7a5bb5}.series-5{color:#7d766c}
"""
"""For a chart that is a file of its own: always light, as documents are that take it in."""
