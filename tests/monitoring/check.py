"""What monitoring sees of a daemon at work, by the tools that administrators use: promtool, the OpenMetrics parser, Chromium.

    check.py BINARY [PICTURE]     PICTURE: where a picture of the page is put, by day and by night
"""

import subprocess
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from bench import Bench, wait
from board import check_board
from browser import Browser

DELIVERED = 'cmail_dispatch_attempts_total{result="delivered"} 400'


def check_texts(bench):
    """Both formats are right, and say the same."""
    families = {family.name: family for family in open_metrics(bench.get("/metrics"))}
    text = bench.get("/metrics", "text/plain")
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    names = {sample.name for family in families.values() for sample in family.samples}
    others = {sample.name for family in prometheus(text) for sample in family.samples}
    assert names == others, names ^ others
    assert all(name.startswith("cmail_dispatch_") for name in names), names
    assert all(family.documentation for family in families.values())
    results = {sample.labels["result"]: sample.value for sample in families["cmail_dispatch_attempts"].samples}
    assert results["delivered"] == 400 and results["deferred"] >= 219, results
    print(f"{len(families)} metrics are told, in both formats")


def check_page(bench, browser, picture):
    """The page loads, fills, shows hostile words as words, and survives a daemon that stops."""
    text = lambda place: browser.value(f"document.getElementById('{place}').innerText") or ""
    url = f"http://{bench.address}/"
    browser.open(url)
    wait("the page is up", lambda: text("state") == "up")
    wait("it shows what waits", lambda: browser.value("document.querySelectorAll('#queue tbody tr').length") >= 4)
    for place, words in [
        ("failures", "<script>alert(1)</script>"),
        ("troubled", "127.0.0.9:1"),
        ("kinds", "recipient"),
        ("outcomes", "400"),
        ("phases", "transfer"),
        ("tiles", "delivered per minute"),
    ]:
        assert words in text(place), (place, text(place))
    assert browser.value("document.querySelectorAll('#rate rect').length") > 1
    assert browser.value("document.querySelectorAll('script').length") == 1
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    if picture:
        for name, scheme in [("light", "light"), ("dark", "dark")]:
            browser.open(url, height=1100, scheme=scheme)
            wait("the page is up", lambda: text("state") == "up")
            browser.picture(f"{picture}-{name}.png")
    browser.open(url, width=380)
    wait("the narrow page is up", lambda: text("state") == "up")
    assert browser.value(wide), "the page is wider than a telephone"
    assert browser.errors == [], browser.errors
    bench.stop()
    wait("the page says that the daemon is gone", lambda: text("state") == "gone")
    assert "does not answer" in text("notice") and "400" in text("outcomes")
    bench.start()
    wait("the page finds it again", lambda: text("state") == "up")
    wrong = [error for error in browser.errors if "status.json" not in error]
    assert wrong == [], wrong
    print("the page loads, fills, and survives a daemon that stops")


def check_rules():
    """The alerts are rules, and fire when they must and only then."""
    for words in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            ["promtool", *words], cwd="example-configs/prometheus", text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    print("the alerts fire when they must, and only then")


def main():
    binary, picture = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    bench = Bench(binary)
    browser = Browser("chromium")
    try:
        bench.start()
        bench.make_busy()
        wait("mail is delivered", lambda: DELIVERED in (bench.get("/metrics") or ""))
        wait("the age is known", lambda: "oldest_mail_seconds 4" in (bench.get("/metrics") or ""))
        check_texts(bench)
        check_rules()
        check_board(bench)
        check_page(bench, browser, picture)
    finally:
        browser.close()
        bench.close()


main()
