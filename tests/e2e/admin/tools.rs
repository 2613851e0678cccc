//! `sluice status` and `sluice why`.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until, unused_address};
use serde_json::json;
use std::process::Command;

impl Admin {
    /// What the program says with these arguments and this node's configuration, and whether its status was 0.
    fn tool(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.args(arguments).arg("--config").arg(self.proxy.path("config.json")).output();
        let output = output.expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

#[test]
fn the_status_and_the_reason_are_told_on_the_command_line() {
    let well = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let setup = Setup::for_backends([well.url(), dead.clone()]).route("down.test", [dead.clone()]);
    let admin = Admin::start_with(setup, json!({"token": "s3cret"}));
    let mut client = admin.proxy.client();
    until("the backend is found dead", || {
        client.get(HOST, "/").expect_ok("ok");
        admin.tool(&["why", HOST]).1.contains(&format!("backend {dead}: dead: it cannot be reached"))
    });
    let (is_well, said) = admin.tool(&["why", HOST]);
    assert!(is_well && said.contains("1 of 2 backends may serve: a request goes to one of them\n"), "{said}");
    assert_eq!(admin.proxy.client().get("down.test", "/").status(), 502);
    let (is_well, said) = admin.tool(&["why", "down.test"]);
    assert!(!is_well || said.contains("backend"), "{said}");
    let (is_well, said) = admin.tool(&["why", HOST, "/api/x?y=1"]);
    assert!(is_well, "{said}");
    for part in [
        format!("1. host: GET /api/x?y=1 of {HOST}\n"),
        format!("backend: {dead} is dead: it cannot be reached"),
        "choice: one of 1 backends, by the scheduler random\n".to_owned(),
    ] {
        assert!(said.contains(&part), "no {part:?} in {said}");
    }
    let (_, said) = admin.tool(&["why", "down.test"]);
    let line = format!(" s ago: 502 (connect_failed) at {dead}: ");
    assert!(said.contains("the last that failed:\n") && said.contains(&line), "{said}");
    let (is_well, said) = admin.tool(&["why", "nobody.test"]);
    assert!(!is_well && said.starts_with("nobody.test: not in use on this node"), "{said}");
    let (is_well, said) = admin.tool(&["status"]);
    assert!(is_well, "{said}");
    for part in
        [": ready\n", "worker ", "failures: ", "routes: from file", &format!("  {HOST}: degraded, 1 of 2 backends up")]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("s3cret"));
    let elsewhere = unused_address().to_string();
    let (is_well, said) = admin.tool(&["status", "--admin", &elsewhere]);
    assert!(
        !is_well && said.contains(&format!("asking the admin service at {elsewhere}: Connection refused")),
        "{said}"
    );
    let (is_well, said) = admin.tool(&["status", "--admin", &admin.host()]);
    assert!(!is_well && said.contains("401, admin.token is asked for"), "{said}");
}
