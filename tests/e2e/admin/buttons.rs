//! Every action of the dashboard, in a real browser: it asks first, is done, and its outcome is told.

use super::Admin;
use crate::succession::replaceable;
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::json;
use std::fs;

/// Opens the page with this host opened.
fn opened(admin: &Admin) -> Browser {
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    page.until("document.querySelectorAll('tr.host').length > 0");
    page.value(
        "[...document.querySelectorAll('tr.host')].find((row) => row.dataset.key === 'www.example.com').click()",
    );
    page.until("document.querySelectorAll('table.backends tbody tr').length === 1");
    page
}

#[test]
fn hosts_and_the_node_have_their_actions_at_the_page() {
    let backend = Backend::serve(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok");
    });
    let setup = Setup::for_backends([backend.url()]).route("*.wild.test", [backend.url()]);
    let setup = setup.option(HOST, "cache", json!({"enabled": true}));
    let admin = Admin::start(setup.with_access_log().workers(1));
    admin.proxy.client().get("a.wild.test", "/").expect_ok("ok");
    let lookup = || admin.proxy.client().get(HOST, "/").head.get("X-Cache-Lookup").map(str::to_owned);
    assert_eq!([lookup(), lookup()].map(Option::unwrap_or_default), ["miss", "hit"]);
    let totals = |name: &str| admin.json("/v1/status")["totals"][name].as_u64().expect("a count");
    let mut page = opened(&admin);
    page.value("document.querySelector('.about summary').click()");
    page.until("document.querySelector('.about details').innerText === '1 option\\ncache.enabled true'");

    let misses = totals("route_misses");
    page.confirm(".about", "Flush route");
    page.until_said(&format!("✓ flush {HOST}"));
    until("the route is looked up again", || lookup().is_some() && totals("route_misses") > misses);

    // A pattern has many hosts: the page asks for one.
    page.value("document.querySelectorAll('tr.host').forEach((row) => row.click())");
    let flush = "[...document.querySelectorAll('.about button')].find((one) => one.innerText === 'Flush route')";
    page.until(&format!("{flush}?.closest('tr').dataset.key === 'more *.wild.test'"));
    page.value(&format!("{flush}.click()"));
    page.until("document.querySelector('#fields input').value === 'a.wild.test'");
    page.value("document.querySelector('#form button.act').click()");
    page.until_said("✓ flush a.wild.test");
    page.value("document.querySelectorAll('tr.host').forEach((row) => row.click())");

    page.confirm(".about", "Purge cache");
    page.until_said("✓ 1 cached objects purged");
    assert_eq!(lookup().as_deref(), Some("stale"));

    // The menu works by keys, and closes at Escape.
    page.value("document.querySelector('#node summary').focus()");
    page.press("Enter");
    page.until("document.getElementById('node').open");
    page.picture("menu");
    page.press("Escape");
    page.until("!document.getElementById('node').open");

    fs::rename(admin.proxy.path("access.log"), admin.proxy.path("old.log")).expect("another name");
    page.value("document.querySelector('#node summary').click()");
    page.confirm("#node", "Reopen logs");
    page.until_said("✓ the access log is reopened");
    until("there is a new file", || admin.proxy.path("access.log").exists());

    page.until("!document.getElementById('node').open");
    page.value("document.querySelector('#node summary').click()");
    page.confirm("#node", "Reload");
    page.until_said("✓ routes, certificates and pages are read again");

    page.confirm("#workers", "Drain");
    page.until_said("✓ a successor of worker 0 accepts");
    until("the worker is replaced", || admin.json("/v1/status")["replaced_workers"] == 1);
    let asked = ["v1/actions/reload", "v1/actions/reopen-logs", "v1/workers/0/drain", "v1/cache/purge"];
    until("the log names all of them", || {
        let log = admin.proxy.stderr();
        asked.iter().all(|path| log.contains(&format!("admin: POST /{path}")))
    });
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

#[test]
fn a_backend_is_marked_drained_and_taken_back_at_the_page() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]));
    let status = || admin.proxy.client().get(HOST, "/").status();
    assert_eq!(status(), 200);
    let mut page = opened(&admin);
    // The connection of that request waits for the next one.
    page.until("document.querySelector('table.backends tbody tr').children[3].innerText === '1'");
    for (button, shown, expected) in [
        ("Mark dead", "✕ dead", 502),
        ("Mark alive", "● up", 200),
        ("Drain", "◌ draining", 502),
        ("Enable", "● up", 200),
        ("Disable", "◌ disabled", 502),
        ("Enable", "● up", 200),
    ] {
        page.confirm("table.backends", button);
        page.until(&format!("document.querySelector('table.backends .state').innerText === '{shown}'"));
        assert_eq!(status(), expected, "{button}");
    }
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

/// The page stays, and tells that another process serves.
#[test]
fn an_upgrade_is_begun_at_the_page_which_goes_on() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(replaceable(Setup::for_backends([backend.url()])));
    admin.proxy.client().get(HOST, "/").expect_ok("ok");
    let pid = |admin: &Admin| admin.json("/v1/status")["pid"].as_u64();
    let before = pid(&admin);
    let mut page = opened(&admin);
    page.value("document.querySelector('#node summary').click()");
    page.confirm("#node", "Upgrade");
    page.until("document.getElementById('said').innerText.includes('✓ another process serves: pid ')");
    let after = pid(&admin);
    assert_ne!(before, after);
    admin.proxy.follow(after.and_then(|pid| pid.try_into().ok()).expect("a process"));
    page.until("document.getElementById('stale').hidden");
    assert_eq!(page.value("document.getElementById('ready').innerText"), "✓ ready");
}
