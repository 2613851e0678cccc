//! What Prometheus' own tool says of the metrics and of the rules.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use std::io::Write;
use std::process::{Command, Stdio};

/// What the tool says, and whether its status was 0.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
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
    let version = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_err() {
        return eprintln!("skipped: promtool is not installed (Debian: apt-get install prometheus)");
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
