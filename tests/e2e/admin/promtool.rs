//! Prometheus' own tools: promtool checks the metrics and the rules, and the exporter for HAProxy reads the statistics.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, skipped, until, unused_address};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A tool: of the folder where `tests/run` unpacks it, or of the path.
fn tool(name: &str) -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/usr/bin").join(name);
    Command::new(if unpacked.exists() { unpacked.as_path() } else { Path::new(name) })
}

/// What the tool says, and whether its status was 0.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = tool("promtool");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut tool = spawned.expect("promtool");
    tool.stdin.take().expect("its input").write_all(input.as_bytes()).expect("writing");
    let output = tool.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn metrics_and_rules_are_good_to_promtool() {
    let version = tool("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_err() {
        return skipped("promtool is not installed (Debian: apt-get install prometheus)");
    }
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "buckets", r#"{"VIP": "5..20 %"}"#).option(
        HOST,
        "maxRequests",
        "100",
    );
    let admin = Admin::start(setup);
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let counted = format!("sluice_cluster_requests_total{{cluster=\"{HOST}\"}} 1");
    until("the request is counted", || admin.get("/metrics").text().contains(&counted));
    let (is_good, said) = promtool(&["check", "metrics"], &admin.get("/metrics").text());
    assert!(is_good && said.is_empty(), "{said}");
    for arguments in
        [["check", "rules", "config/prometheus/alerts.yml"], ["test", "rules", "config/prometheus/alerts_test.yml"]]
    {
        let (is_good, said) = promtool(&arguments, "");
        assert!(is_good && said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}

/// The exporter, which ends with the test.
struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_exporter_for_haproxy_reads_the_statistics() {
    let well = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let admin = Admin::start(Setup::for_backends([well.url(), dead.clone()]));
    let mut client = admin.proxy.client();
    until("the backend is found dead", || {
        client.get(HOST, "/").expect_ok("ok");
        admin.json("/v1/backends?state=dead")["total"] == 1
    });
    let address = unused_address();
    let spawned = tool("prometheus-haproxy-exporter")
        .arg(format!("--haproxy.scrape-uri=http://{}/haproxy?stats;csv", admin.host()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(Stdio::null())
        .spawn();
    let Ok(exporter) = spawned else {
        return skipped("the exporter is not installed (Debian: apt-get install prometheus-haproxy-exporter)");
    };
    let _exporter = Exporter(exporter);
    until("the exporter listens", || TcpStream::connect(address).is_ok());
    let text = Client::over(Box::new(connect(address, None))).get(&address.to_string(), "/metrics").text();
    for line in [
        "haproxy_up 1".to_owned(),
        "haproxy_exporter_csv_parse_failures_total 0".to_owned(),
        format!("haproxy_backend_up{{backend=\"{HOST}\"}} 1"),
        format!("haproxy_server_up{{backend=\"{HOST}\",server=\"{}\"}} 1", well.url()),
        format!("haproxy_server_up{{backend=\"{HOST}\",server=\"{dead}\"}} 0"),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}
