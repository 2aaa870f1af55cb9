"""How the report of a study looks."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{--paper:#fbfaf6;--ink:#24272f;--faint:#6c707b;--hair:#e3e1d9;--card:#f2f0e9;
--c0:#3566c4;--c1:#d1452f;--c2:#2c8a5f;--c3:#a8731b}
@media(prefers-color-scheme:dark){:root{--paper:#15171b;--ink:#e7e4dc;--faint:#9a9da6;
--hair:#2c2f37;--card:#1d2026;--c0:#7ea4f4;--c1:#f0836f;--c2:#62c79a;--c3:#dbab5c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:17px/1.55 Charter,"Bitstream Charter","Iowan Old Style",Georgia,"DejaVu Serif",serif}
main{max-width:43rem;margin:0 auto;padding:3.2rem 1.25rem 4rem}
.over,.about,.small,figcaption,table,.legend,.glance,.notes,.none,.pairs,footer,svg text{
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.over{margin:0;color:var(--faint);font-size:.78rem;letter-spacing:.07em;text-transform:uppercase}
h1{font-weight:500;font-size:2.35rem;line-height:1.12;margin:.35rem 0 .7rem;
letter-spacing:-.012em;text-wrap:balance;overflow-wrap:anywhere}
h2{font-weight:500;font-size:1.5rem;line-height:1.2;margin:0 0 .6rem;letter-spacing:-.006em;
text-wrap:balance}
.about{color:var(--faint);font-size:.9rem;line-height:1.5;margin:0;overflow-wrap:anywhere}
section{margin-top:3.4rem}
p{margin:0 0 1rem;text-wrap:pretty}
figure{margin:1.2rem 0 1rem}
figcaption,.small{color:var(--faint);font-size:.84rem;line-height:1.5}
svg{display:block;width:100%;max-width:31rem;height:auto;margin:0 auto}
svg text{font-size:12.5px;fill:var(--faint);font-variant-numeric:tabular-nums}
svg .ink{fill:var(--ink)}
svg .grid{stroke:var(--hair)}
svg .mark{stroke:var(--faint);stroke-dasharray:3 3}
svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
svg .band{opacity:.17}
.legend{margin:0 0 .35rem;font-size:.84rem;color:var(--ink);display:flex;flex-wrap:wrap;
gap:.15rem 1.1rem}
.legend i{display:inline-block;width:.62rem;height:.62rem;border-radius:50%;margin-right:.42rem}
.glance{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.6rem,1fr));gap:1px;
background:var(--hair);border:1px solid var(--hair);border-radius:10px;overflow:hidden;
margin:2rem 0 0}
.glance div{background:var(--card);padding:.95rem 1rem}
.glance b{display:block;font-weight:500;font-size:1.62rem;line-height:1.15;
font-variant-numeric:tabular-nums}
.glance span{display:block;color:var(--faint);font-size:.82rem;line-height:1.35;margin-top:.2rem}
.notes{margin:1.3rem 0 0;padding:.8rem 1rem .8rem 2rem;border-radius:10px;background:var(--card);
font-size:.88rem;line-height:1.5}
.none{color:var(--faint);background:var(--card);border-radius:10px;padding:.8rem 1rem;
font-size:.92rem}
.wide{overflow-x:auto;margin:0 0 .8rem}
table{border-collapse:collapse;width:100%;font-size:.86rem;line-height:1.4;
font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--faint);text-align:left}
th,td{padding:.42rem .7rem .42rem 0;border-bottom:1px solid var(--hair);vertical-align:top}
td small{display:block;letter-spacing:-.01em;color:var(--faint);font-size:.92em;white-space:nowrap}
p small{color:var(--faint)}
.film{table-layout:fixed;margin:0 0 1.4rem;font-size:.78rem}
.film th,.film td{border:0;padding:1px;text-align:center;vertical-align:middle}
.film th:first-child{width:4.4rem;text-align:left}
.film img,.pairs img{width:100%;display:block;image-rendering:pixelated;border-radius:3px}
.film .no{color:var(--faint)}
.pairs{display:grid;grid-template-columns:repeat(3,1fr);gap:.9rem;font-size:.8rem;
color:var(--faint);margin:0 0 1.1rem}
.pairs div{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.pairs span{grid-column:1/-1;padding-top:.2rem}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
footer{margin-top:4rem;padding-top:1rem;border-top:1px solid var(--hair);color:var(--faint);
font-size:.8rem}
@media(max-width:34rem){body{font-size:16px}main{padding:2rem 1rem 3rem}h1{font-size:1.85rem}
h2{font-size:1.32rem}section{margin-top:2.7rem}.two{grid-template-columns:1fr}
.pairs{gap:.55rem}.film th:first-child{width:3.7rem}td,th{padding-right:.5rem}
table{font-size:.8rem}}
@media print{section{break-inside:avoid}}
"""
