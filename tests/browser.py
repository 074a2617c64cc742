"""Chromium without a window and without a network: what a script finds in a page."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --allow-file-access-from-files --disable-web-security"
)


def found_by(page, folder, *, milliseconds=10000):
    """The title that a page's script has set when all is loaded; no address but those of files is answered."""
    command = [CHROMIUM, *_OPTIONS.split(), "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'p'}"]
    done = subprocess.run(
        [*command, f"--virtual-time-budget={milliseconds}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[:500] + done.stderr[-500:]
    return title[1]


_LOOK = """<!doctype html><script>
const look = async (name, width) => {
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.width = width; frame.height = 900; frame.src = name;
  await new Promise(done => frame.onload = done);
  const page = frame.contentDocument;
  await page.fonts.ready;
  const flat = box => box.width < 2 || box.height < 4;
  const cut = box => box.scrollWidth > box.clientWidth + 1;
  const found = {
    name, width,
    formulas: page.querySelectorAll("math").length,
    flat: [...page.querySelectorAll("math")].filter(m => flat(m.getBoundingClientRect())).map(m => m.textContent),
    font: page.fonts.check('16px "STIX Two Math"'),
    cut: [...page.querySelectorAll(".highlight pre")].filter(cut).map(b => b.textContent.slice(0, 80)),
    broken: [...page.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src),
    over: page.documentElement.scrollWidth - width,
  };
  frame.remove();
  return found;
};
onload = async () => {
  const all = [];
  for (const name of NAMES) for (const width of WIDTHS) all.push(await look(name, width));
  document.title = JSON.stringify(all);
};
</script><body></body>"""


def look_at(names, folder, scratch, *, widths):
    """What a browser shows of pages, each at every width of window: formulas, code that is cut, pictures missing."""
    probe = folder / "look.html"
    probe.write_text(_LOOK.replace("NAMES", json.dumps(names)).replace("WIDTHS", json.dumps(widths)), encoding="utf-8")
    return json.loads(html.unescape(found_by(probe, scratch, milliseconds=600000)))
