"""What watches Holdfast: a real Prometheus takes its metrics and rules, and every panel of the dashboard shows something."""
import os
import sys
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from harness import *

ALERTS, DASHBOARD = (os.path.join(ROOT, "deploy", name) for name in ("alerts.yaml", "dashboard.json"))
QUICK = "failover:\n  probe_interval: 100ms\n  takeover_after: 1s\ndirectory:\n  catch_all: [example.org]\n"


class Prometheus:
    """On loopback, with a folder of its own; looks once a second."""

    def __init__(self, scene, target):
        self.port = free_port()
        config = scene.path("prometheus.yaml")
        with open(config, "w") as file:
            file.write(f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{ALERTS}]\n"
                       f"scrape_configs: [{{job_name: holdfast, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n")
        log = open(scene.path("prometheus.log"), "w")
        self.process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={scene.path('tsdb')}",
                                         f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)
        scene.stack.callback(self.stop)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def get(self, what, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
            return json.load(answer)["data"]
        return None

    def rules(self):
        """By the alert's name."""
        answer = self.get("rules") or {"groups": []}
        return {rule["name"]: rule for group in answer["groups"] for rule in group["rules"]}


def queries(dashboard):
    """(panel, expression) as Grafana asks for it when everything is chosen."""
    chosen = {"$__rate_interval": "1m", "$__range": "5m", "$instance": ".*", "$route": ".*"}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in chosen.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


@test("the rules and the metrics are what Prometheus' own checks accept")
def _(scene):
    run("promtool", "check", "rules", "--lint-fatal", ALERTS, check=True)
    http = free_port()
    holdfast = Holdfast(scene, scene.primary())
    holdfast.admin = f"http: 127.0.0.1:{http}"
    holdfast.start()
    page = run("curl", "-s", f"http://127.0.0.1:{http}/metrics").stdout
    checked = run("promtool", "check", "metrics", input=page)
    equal(checked.stdout + checked.stderr, "")


@test("Prometheus collects it, sees a hold, and every panel of the dashboard has something to show")
def _(scene):
    http, port = free_port(), free_port()
    primary = scene.primary(port=port)
    certificate, key = scene.certificate("mail.example.org")
    store = free_port()  # nobody is there
    holdfast = Holdfast(scene, primary, listener="tls: starttls", yaml=QUICK + f"mailbox:\n  feed: lmtp://127.0.0.1:{store}\ntls:\n  certificates:\n    - certificate: {certificate}\n      key: {key}\n")
    holdfast.admin = f"http: 127.0.0.1:{http}"
    holdfast.start()
    prometheus = Prometheus(scene, http)
    assert scene.client(holdfast.port).send_mail().startswith("250")
    wait_for(lambda: prometheus.rules().get("HoldfastHolds", {}).get("health") == "ok", 60, what="a first look")
    equal({name for name, rule in prometheus.rules().items() if rule["state"] != "inactive"}, set())
    primary.stop()
    wait_for(lambda: holdfast.status()["routes"][0]["state"] == "hold", what="hold")
    assert scene.client(holdfast.port).send_mail().startswith("250")
    wait_for(lambda: {"HoldfastHolds", "HoldfastUpstreamFails"} <= {name for name, rule in prometheus.rules().items() if rule["state"] != "inactive"}, what="the alerts")
    equal({name: rule.get("lastError") for name, rule in prometheus.rules().items() if rule["health"] != "ok"}, {})

    with open(DASHBOARD) as file:
        dashboard = json.load(file)
    asked = list(queries(dashboard))
    assert len(asked) > 20 and all("$" not in expression for _, expression in asked), asked
    client = scene.client(holdfast.port)
    client.ask("EHLO client.example.net")

    def shows(expression):
        client.send_mail(helo=None)  # what is counted must grow between two looks
        return (prometheus.get("query", query=expression) or {"result": []})["result"]
    for panel, expression in asked:
        wait_for(lambda: shows(expression), what=f"something in the panel {panel}: {expression}")
    [state] = prometheus.get("query", query=next(expression for panel, expression in asked if panel == "State of each route"))["result"]
    equal((state["metric"]["route"], state["value"][1]), ("primary", "2"))
    for variable in dashboard["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["definition"]).groups()
        assert prometheus.get(f"label/{label}/values", **{"match[]": metric}), variable


main()
