"""How the demo's page looks: its style sheet and its one script."""

STYLE = """
:root{color-scheme:light dark;--page:#f4f6f7;--card:#fff;--line:#dfe4e7;--text:#1d282e;--muted:#5d6a72;--accent:#0f5e6e;
--sent:#2a7d4f;--dead:#b3372e;--doubt:#8a3f9c;--other:#9a6700;--hover:#eaf2f4}
@media (prefers-color-scheme:dark){:root{--page:#12171a;--card:#1b2226;--line:#333e45;--text:#e6ebee;--muted:#9caab2;
--accent:#7fc8d6;--sent:#6cc492;--dead:#ef8b82;--doubt:#cf97dd;--other:#dba84c;--hover:#223036}}
*{box-sizing:border-box}
body{margin:0 auto;padding:40px 24px 80px;max-width:1180px;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{margin:0;font-size:30px;font-weight:650;letter-spacing:-.01em}
h2{margin:44px 0 14px;font-size:19px;font-weight:650}
h3{margin:0 0 12px;font-size:19px;font-weight:600;line-height:1.3;overflow-wrap:anywhere}
header p{margin:6px 0 22px;font-weight:600}
header .good{color:var(--sent)}header .bad,header li{color:var(--dead)}
header p span{color:var(--muted);font-weight:400}
a{color:var(--accent)}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:0}
.tile{flex:1 1 120px;padding:12px 16px;background:var(--card);border:1px solid var(--line);border-radius:10px;
border-top:3px solid var(--other)}
.tile dt{color:var(--muted);font-size:13px}
.tile dd{margin:0;font-size:24px;font-weight:650;font-variant-numeric:tabular-nums}
.tile.sent{border-top-color:var(--sent)}.tile.dead{border-top-color:var(--dead)}
.tile.in_doubt,.tile.repeated{border-top-color:var(--doubt)}
.viewer{display:grid;grid-template-columns:262px minmax(0,1fr);background:var(--card);border:1px solid var(--line);
border-radius:10px;overflow:hidden}
fieldset{margin:0;padding:8px;border:0;border-right:1px solid var(--line);min-width:0}
legend{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
fieldset label{display:flex;justify-content:space-between;gap:8px;padding:8px 12px;border-radius:7px;cursor:pointer}
fieldset span{white-space:nowrap}fieldset small{color:var(--muted);font-variant-numeric:tabular-nums}
label:hover{background:var(--hover)}
label:has(:checked){background:var(--hover);color:var(--accent)}
label:has(:focus-visible){outline:2px solid var(--accent);outline-offset:-2px}
input[type=radio]{position:absolute;opacity:0;width:0;height:0}
.mails{padding:22px 24px 24px;min-width:0}
article{display:none}
.fields{margin:0 0 14px;font-size:13px}
.fields div{display:grid;grid-template-columns:120px minmax(0,1fr);gap:8px}
.fields dt{color:var(--muted)}.fields dd{margin:0;overflow-wrap:anywhere}
.tabs{display:flex;align-items:center;gap:4px;margin-bottom:10px}
.tabs label{padding:5px 12px;border-radius:7px;cursor:pointer;font-size:14px}
.tabs a{margin-left:auto;font-size:14px}
iframe,pre{width:100%;height:740px;margin:0;border:1px solid var(--line);border-radius:8px}
iframe{background:#f2f4f5;display:block}
pre{display:none;padding:18px 20px;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;
font:13px/1.55 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
article:has(.text:checked) iframe{display:none}article:has(.text:checked) pre{display:block}
.scroll{max-height:640px;overflow:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{width:100%;border-collapse:collapse;font-size:14px}
th{position:sticky;top:0;background:var(--card);text-align:left;font-weight:600;color:var(--muted);font-size:13px;
box-shadow:inset 0 -1px var(--line)}
th,td{padding:7px 14px;vertical-align:top}td{border-top:1px solid var(--line);overflow-wrap:anywhere}
td:first-child{color:var(--muted);font-variant-numeric:tabular-nums;white-space:nowrap}
#mails td:last-child{color:var(--muted);white-space:nowrap}
tbody tr:hover{background:var(--hover)}
b{padding:1px 8px;border:1px solid currentColor;border-radius:99px;font-size:12px;font-weight:600;color:var(--doubt);
white-space:nowrap}
b.dead{color:var(--dead)}b.expired,b.cancelled,b.suppressed,b.pending{color:var(--other)}
input[type=search]{width:min(420px,100%);padding:8px 12px;font:inherit;color:inherit;background:var(--card);
border:1px solid var(--line);border-radius:8px}
output{margin-left:10px;color:var(--muted)}
@media (max-width:760px){body{padding:24px 14px 60px}.viewer{grid-template-columns:1fr}
fieldset{display:flex;flex-wrap:wrap;border-right:0;border-bottom:1px solid var(--line)}
.mails{padding:16px 14px}.fields div{grid-template-columns:96px minmax(0,1fr)}}
"""

SCRIPT = """
const search = document.getElementById("search"), found = document.getElementById("found");
const rows = [...document.querySelectorAll("#mails tbody tr")].map(row => [row, row.textContent.toLowerCase()]);
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  for (const [row, text] of rows) {
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  found.textContent = search.value.trim() ? shown.toLocaleString("en") + " found" : "";
});
"""
