"""How the page looks, by day and by night."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
.askonce{--ink:#1c2430;--soft:#5b6675;--line:#e3e7ec;
--card:#fff;--page:#f5f6f8;--served:#1f8a5b;--asked:#c9922e;
--passed:#8a94a3;--bad:#b3342c;color:var(--ink);background:var(--page);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;padding:2rem 1rem;margin:0}
@media (prefers-color-scheme:dark){.askonce{--ink:#e6e9ee;--soft:#9aa5b4;--line:#2c3440;
--card:#1a2029;--page:#12161c;
--served:#3fb984;--asked:#d9a94a;--passed:#76818f;--bad:#e8756b}}
body:has(>.askonce){margin:0}
.askonce *{box-sizing:border-box}
.askonce>*{max-width:64rem;margin:0 auto 1rem}
.askonce h1{font-size:1.6rem;margin:0}.askonce h2{font-size:1.05rem;margin:0 0 .6rem}
.askonce h3{font-size:.9rem;margin:1rem 0 .3rem;color:var(--soft);font-weight:600}
.askonce p{margin:.2rem 0;color:var(--soft)}
.askonce header b{color:var(--ink)}
.askonce section,.askonce .tiles>div{background:var(--card);border:1px solid var(--line);
border-radius:10px}
.askonce section{padding:1rem 1.2rem}
.askonce .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.8rem}
.askonce .tiles>div{padding:.8rem 1rem}
.askonce .tiles b{display:block;font-size:1.4rem;white-space:nowrap;font-variant-numeric:tabular-nums}
.askonce .tiles span,.askonce .legend{color:var(--soft);font-size:.85rem}
.askonce .tiles>div:first-child b{color:var(--served)}
.askonce .legend span{margin-right:1.2rem}
.askonce .legend i{display:inline-block;width:.75rem;height:.75rem;border-radius:2px;margin-right:.4rem}
.askonce svg{display:block;width:100%}
.askonce svg text{fill:var(--soft);font-size:11px}
.askonce .grid{stroke:var(--line)}.askonce .reach{fill:transparent}
.askonce .served{fill:var(--served);background:var(--served)}
.askonce .asked{fill:var(--asked);background:var(--asked)}
.askonce .passed{fill:var(--passed);background:var(--passed)}
.askonce .line{stroke:var(--served);stroke-width:2}.askonce .dot{fill:var(--served)}
.askonce table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.88rem}
.askonce .wide{overflow-x:auto}.askonce .bars+.wide{margin-top:.8rem}
.askonce .plot{min-width:36rem}
.askonce .figures th,.askonce .figures td{padding:.35rem .4rem;text-align:right;
border-top:1px solid var(--line);
white-space:nowrap;background:none}
.askonce .figures thead th{border-top:0;color:var(--soft);font-weight:500}
.askonce .figures th:first-child{text-align:left}
.askonce tbody th{font-weight:600}
.askonce .bars th,.askonce .bars td{padding:.15rem .6rem .15rem 0;text-align:left;background:none;border:0}
.askonce .bars th{width:28%;font-weight:500;overflow-wrap:anywhere}
.askonce .bars td:last-child{width:24%;color:var(--soft)}
.askonce .bars svg{height:12px}
.askonce .good{color:var(--served)}.askonce .bad{color:var(--bad)}
.askonce ul{margin:.3rem 0;padding-left:1.2rem;color:var(--asked)}
.askonce footer{font-size:.82rem}
"""
