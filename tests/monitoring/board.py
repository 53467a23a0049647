"""A Prometheus that scrapes the daemon, and the board of Grafana, each query of which must answer something."""

import json
import os
import socket
import subprocess
import urllib.parse
import urllib.request

from bench import wait


class Prometheus:
    """A Prometheus with nothing but the daemon to scrape, each second."""

    def __init__(self, bench):
        directory = os.path.join(bench.directory, "prometheus")
        os.mkdir(directory)
        rules = os.path.abspath("example-configs/prometheus/rules.yml")
        config = os.path.join(directory, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: [{json.dumps(rules)}]\n"
                f"scrape_configs: [{{job_name: cmail-dispatchd, static_configs: [{{targets: ['{bench.address}']}}]}}]\n"
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={self.address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def query(self, expression):
        """Returns the samples that an expression comes to; nothing while it cannot be asked."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return []

    def close(self):
        self.process.kill()
        self.process.wait()


def queries():
    """Returns the expressions of the board, as Grafana would ask them."""
    with open("example-configs/prometheus/grafana.json", encoding="utf-8") as file:
        board = json.load(file)
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")
            yield panel["title"], expression


def check_board(bench):
    """Each query of the board answers; and no alert fires that should not."""
    prometheus = Prometheus(bench)
    try:
        wait("Prometheus scrapes", lambda: len(prometheus.query("count_over_time(up[30s]) >= 4")) == 1)
        count = 0
        for title, expression in queries():
            wait(f"{title}: {expression}", lambda: prometheus.query(expression))
            count += 1
        firing = {alert["metric"]["alertname"] for alert in prometheus.query('ALERTS{alertstate="firing"}')}
        # The bench has old mail, and mail that fails, but not for long enough.
        assert not firing, firing
        print(f"{count} queries of the board answer")
    finally:
        prometheus.close()
