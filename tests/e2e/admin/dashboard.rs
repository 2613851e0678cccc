//! The dashboard in a real browser.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::browser::Browser;
use crate::support::proxy::Setup;
use crate::support::tls::Authority;
use crate::support::{Gate, HOST, canned, until, unused_address};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The rows of backends that are shown, as a reader sees them.
const ROWS: &str = "[...document.querySelectorAll('tr.more tbody tr')].map((row) => row.innerText)";

/// Someone who has never seen sluice finds from the page alone which backend of a host is dead, and why.
#[test]
fn the_page_tells_which_backend_is_dead_and_why() {
    let well = Backend::always(canned::ok("ok"));
    let dead = format!("http://{}", unused_address());
    let mut setup = Setup::for_backends([well.url(), dead.clone()]);
    for number in 0..8 {
        setup = setup.route(&format!("shop-{number}.example.com"), [well.url()]);
    }
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    (0..8).for_each(|number| client.get(&format!("shop-{number}.example.com"), "/").expect_ok("ok"));
    until("the backend is broken", || {
        client.get(HOST, "/").expect_ok("ok");
        admin.json("/v1/backends?state=dead")["total"] == 1
    });
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    page.until("document.querySelectorAll('tr.host').length === 9");
    page.picture("overview");
    // What has trouble can be picked out, and opened without a mouse.
    page.value("document.getElementById('trouble').click()");
    page.until("document.querySelectorAll('tr.host').length === 1");
    assert!(page.text().contains(HOST), "{}", page.text());
    assert_eq!(page.value("document.querySelector('tr.host').children[1].innerText"), "▲ 1 / 2");
    page.value("document.activeElement.blur()");
    page.press("ArrowDown");
    page.press("Enter");
    page.until("document.querySelectorAll('tr.more tbody tr').length === 2");
    let rows = page.value(ROWS);
    let row =
        rows.as_array().and_then(|rows| rows.iter().filter_map(|row| row.as_str()).find(|row| row.contains(&dead)));
    let row = row.unwrap_or_else(|| panic!("no row of {dead}: {rows}"));
    assert!(row.contains("✕ dead it cannot be reached, or does not respond in time, for another "), "{row}");
    page.picture("dead");
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

#[test]
fn the_page_changes_in_place_and_acts_when_it_was_confirmed() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::for_backends([backend.url()]));
    let mut client = admin.proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    let mut page = Browser::open(&format!("http://{}/", admin.address), (390, 844));
    page.until("document.querySelectorAll('tr.host').length === 1");
    page.value("window.row = document.querySelector('tr.host'); window.row.focus(); window.row.click()");
    page.until("document.querySelectorAll('tr.more tbody tr').length === 1");
    page.value("window.backend = document.querySelector('tr.more tbody tr')");
    (0..5).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    page.until("window.row.children[4].textContent === '6'");
    let is_same = "document.querySelector('tr.host') === window.row && document.activeElement === window.row && \
                   document.querySelector('tr.more tbody tr') === window.backend";
    assert_eq!(page.value(is_same), true, "rows are changed in place and keep the focus");
    page.picture("phone");
    assert_eq!(
        page.value("document.documentElement.scrollWidth <= innerWidth"),
        true,
        "the page is no wider than a phone"
    );
    // Nothing is done before it was confirmed.
    let disable =
        "[...document.querySelectorAll('tr.more button')].find((button) => button.innerText === 'Disable').click()";
    page.value(disable);
    page.until("document.getElementById('ask').open");
    page.picture("question");
    page.press("Escape");
    page.until("!document.getElementById('ask').open");
    client.get(HOST, "/").expect_ok("ok");
    page.value(disable);
    page.value("document.querySelector('#ask button.act').click()");
    page.until("window.backend.innerText.includes('◌ disabled an operator has disabled it')");
    assert_eq!(client.get(HOST, "/").status(), 502);
    page.value("document.getElementById('theme').click()");
    page.picture("dark");
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

/// With thousands of hosts, a search and a turn of the page show their rows soon, and no script holds the page up.
#[test]
fn thousands_of_hosts_are_searched_and_paged_without_stalling() {
    const HOSTS: usize = 3000;
    let backend = Backend::always(canned::ok("ok"));
    let name = |number: usize| format!("host-{number:04}.test");
    let routes = (0..HOSTS).map(|number| (name(number), json!(["x", backend.url()])));
    let routes = json!({"frontends": serde_json::Map::from_iter(routes)});
    let admin = Admin::start(Setup::new().file("routes.json", &routes.to_string()));
    let mut client = admin.proxy.client();
    // A host is in use once a request has named it.
    for batch in (0..HOSTS).collect::<Vec<_>>().chunks(50) {
        client.send(batch.iter().map(|number| canned::get(&name(*number), "/")).collect::<String>());
        batch.iter().for_each(|_| client.response_to("GET").expect_ok("ok"));
    }
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    page.until("document.querySelectorAll('tr.host').length === 50");
    // The greatest pause between two turns of the page's own loop, and the time from a key to the rows it asked for.
    page.value(
        "window.pause = 0; let last = performance.now(); \
         setInterval(() => { const now = performance.now(); window.pause = Math.max(window.pause, now - last); last = now; }, 10); \
         window.first = () => document.querySelector('tr.host')?.dataset.key ?? ''; \
         window.shown = null; \
         window.expect = (is) => { window.shown = null; const began = performance.now(); const look = () => \
             is() ? window.shown = performance.now() - began : setTimeout(look, 10); look(); }",
    );
    let rows = "document.querySelectorAll('tr.host').length";
    let mut times = Vec::new();
    let mut measure = |page: &mut Browser, expected: &str, act: &dyn Fn(&mut Browser)| {
        page.value(&format!("window.expect(() => {expected})"));
        act(page);
        page.until("window.shown !== null");
        times.push(page.value("window.shown").as_f64().expect("a time"));
    };
    measure(&mut page, "window.first().includes('host-0050')", &|page| page.press("]"));
    measure(&mut page, &format!("{rows} === 1 && window.first().includes('host-2718')"), &|page| {
        page.press("/");
        page.call("Input.insertText", &json!({"text": "host-2718"}));
    });
    measure(&mut page, &format!("{rows} === 50 && window.first().includes('host-0000')"), &|page| {
        page.value("document.getElementById('search').select()");
        page.call("Input.insertText", &json!({"text": "host-"}));
    });
    let pause = page.value("window.pause").as_f64().expect("a time");
    // Far more than it takes, for a machine that is busy with other tests.
    assert!(times.iter().all(|time| *time < 5000.0) && pause < 2000.0, "{times:?} ms, the page paused {pause} ms");
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

/// The page warns of certificates that end soon, and tells where the time of requests goes and what tenants use.
#[test]
fn the_page_warns_of_certificates_and_shows_phases_and_tenants() {
    let (authority, backend) = (Authority::new(), Backend::always(canned::ok("ok")));
    let fresh = authority.issue(&["fresh.test"]);
    let soon = authority.issue_for(&["soon.test"], Duration::from_secs(10 * 86_400 + 3600));
    let setup = Setup::for_backends([backend.url()]).with_https().default_certificate(&fresh);
    let tenants = json!({"enabled": true, "requests": 100, "buckets": {"gold": "50..75 %"}});
    let admin = Admin::start(
        setup
            .set("tenants", tenants)
            .certificate("fresh.test", &fresh)
            .certificate("soon.test", &soon)
            .certificate("late.test", &authority.issue_until(&["late.test"], 2022)),
    );
    for name in ["fresh.test", "soon.test", "late.test"] {
        let _ = authority.trust().shown(&admin.proxy, name);
    }
    until("the certificates are known", || admin.json("/v1/certificates")["total"].as_u64() >= Some(3));
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    page.until("document.querySelectorAll('#certificates li').length === 2");
    // The page shows what is more than at its first look.
    let mut client = admin.proxy.client();
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("ok"));
    let told =
        page.value("[...document.querySelectorAll('#certificates li')].map((row) => row.innerText).sort().join()");
    assert_eq!(told, "⚠ soon.test ends in 10 days,✕ late.test has expired");
    page.until(
        "[...document.querySelectorAll('#latency dt')].map((row) => row.innerText).join() === \
                '50 %,90 %,99 %,99 %, queue,99 %, connect,99 %, first byte'",
    );
    page.until("/s$/.test(document.querySelector('#latency dd:last-child').innerText)");
    page.until("document.querySelector('#tenants table')?.innerText.includes('gold\\t50..75')");
    page.picture("certificates");
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}

/// The JavaScript that clicks the button of this text which is shown below the hosts.
fn click(text: &str) -> String {
    format!("[...document.querySelectorAll('.demand button')].find((button) => button.innerText === '{text}').click()")
}

/// Fills the form that is open, and submits it.
fn submit(page: &mut Browser, values: &[(&str, &str)]) {
    page.until("document.getElementById('form').open");
    for (name, value) in values {
        page.value(&format!("document.querySelector('#fields [name={name}]').value = '{value}'"));
    }
    page.value("document.querySelector('#form button.act').click()");
}

#[test]
fn clusters_on_demand_are_made_changed_and_removed_at_the_page() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new());
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    page.until("document.getElementById('empty')?.hidden === false");
    page.value("document.getElementById('new-cluster').click()");
    submit(&mut page, &[("name", "web"), ("hostname", "web.test")]);
    page.until("!document.getElementById('form').open");
    page.until("document.querySelectorAll('tr.host').length === 1");
    // What is refused is told in the form.
    page.value("document.getElementById('new-cluster').click()");
    submit(&mut page, &[("name", "other"), ("hostname", "web.test")]);
    page.until("document.getElementById('form-problem').innerText.includes('cluster web is for the same requests')");
    page.value("document.getElementById('form-cancel').click()");
    page.until("document.querySelector('.demand .why')?.innerText === 'on demand, for web.test'");
    page.value(&click("Add backend"));
    let (ip, port) = (backend.address().ip().to_string(), backend.address().port().to_string());
    submit(&mut page, &[("name", "one"), ("hostname", &ip), ("port", &port), ("capacity", "4")]);
    page.until("document.querySelectorAll('.demand tbody tr').length === 1");
    assert_eq!(admin.proxy.client().get("web.test", "/").text(), "ok");
    page.picture("on-demand");
    // Each change asks first.
    let confirm = |page: &mut Browser| {
        page.until("document.getElementById('ask').open");
        page.value("document.querySelector('#ask button.act').click()");
    };
    page.value(&click("Lock"));
    page.until("document.getElementById('ask').open");
    assert_eq!(admin.proxy.client().get("web.test", "/").text(), "ok", "nothing is done before it was confirmed");
    confirm(&mut page);
    page.until("document.querySelector('.demand tbody').innerText.includes('locked')");
    assert_ne!(admin.proxy.client().get("web.test", "/").status(), 200);
    page.value(&click("Unlock"));
    confirm(&mut page);
    page.until("!document.querySelector('.demand tbody').innerText.includes('locked')");
    assert_eq!(admin.proxy.client().get("web.test", "/").text(), "ok");
    page.value(&click("Remove"));
    confirm(&mut page);
    page.until("document.querySelectorAll('.demand tbody tr').length === 0");
    page.value(&click("Delete cluster"));
    confirm(&mut page);
    page.until("document.querySelectorAll('tr.host').length === 0");
    assert_eq!(admin.get("/director/web").status(), 404);
    // A browser complains of each response that is no success: names that are free, and the refused one.
    let is_expected = |text: &&String| text.contains("a status of 404") || text.contains("a status of 409");
    assert!(page.complaints().iter().all(|text| is_expected(&text)), "{:?}", page.complaints());
}

/// A node in trouble: a backend that is dead, one with a queue, classes, and certificates that end. All of it is at the page, in
/// words and signs, for whoever sees no colours.
#[test]
fn the_page_of_a_node_in_trouble_names_all_of_it() {
    let (authority, gate) = (Authority::new(), Arc::new(Gate::default()));
    let passage = Arc::clone(&gate);
    let slow = Backend::serve(move |_, conn| {
        passage.pass();
        conn.send(canned::ok("ok"));
    });
    let (well, dead) = (Backend::always(canned::ok("ok")), format!("http://{}", unused_address()));
    let mut setup = Setup::for_backends([well.url(), dead])
        .with_https()
        .default_certificate(&authority.issue(&["fresh.test"]))
        .certificate("soon.test", &authority.issue_for(&["soon.test"], Duration::from_secs(3 * 86_400 + 3600)))
        .route("api.example.com", [format!("{}#capacity=2", slow.url())])
        .option("api.example.com", "buckets", json!({"VIP": "50..100 %"}));
    let names: Vec<String> = (0..20).map(|number| format!("shop-{number:02}.example.com")).collect();
    for name in &names {
        setup = setup.route(name, [well.url()]);
    }
    let admin = Admin::start(setup);
    let mut client = admin.proxy.client();
    (0..60).for_each(|round| client.get(&names[round * round % 20], "/").expect_ok("ok"));
    until("the backend is broken", || {
        client.get(HOST, "/").expect_ok("ok");
        admin.json("/v1/backends?state=dead")["total"] == 1
    });
    assert_eq!(client.get("unknown.test", "/").status(), 400);
    let _ = authority.trust().shown(&admin.proxy, "soon.test");
    let mut clients: Vec<_> = (0..7).map(|_| admin.proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send(canned::get("api.example.com", "/")));
    until("five requests wait", || admin.json("/v1/frontends/api.example.com")["waiting"] == 5);
    let mut page = Browser::open(&format!("http://{}/", admin.address), (1280, 900));
    let row =
        |host: &str| format!("[...document.querySelectorAll('tr.host')].find((row) => row.dataset.key === '{host}')");
    page.until(&format!("{}?.children[3].innerText === '5'", row("api.example.com")));
    page.until(&format!("{}?.children[1].innerText === '▲ 1 / 2'", row(HOST)));
    page.until("document.getElementById('certificates').innerText === '⚠ soon.test ends in 3 days'");
    page.until("document.getElementById('reasons').innerText.includes('unknown_host')");
    page.until("document.getElementById('attention').innerText.includes('▲ 2 hosts with trouble')");
    page.until("document.getElementById('attention').innerText.includes('soon.test ends in 3 days')");
    page.until("document.querySelectorAll('#rate-line path').length > 0");
    page.picture("trouble-light");
    page.value("document.querySelector('#attention button').click()");
    page.until("document.querySelectorAll('tr.host').length === 2");
    page.value(&format!(
        "document.getElementById('theme').click(); {}.click(); {}.click()",
        row("api.example.com"),
        row(HOST)
    ));
    page.until("document.querySelectorAll('tr.more table.backends').length === 2");
    page.until("document.querySelector('tr.more .about').innerText.includes('5 waiting')");
    page.until("document.querySelector('tr.more .buckets').innerText.includes('VIP')");
    page.picture("trouble-dark");
    let phone = json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true});
    page.call("Emulation.setDeviceMetricsOverride", &phone);
    page.until("document.documentElement.scrollWidth <= innerWidth");
    page.picture("trouble-phone");
    gate.open();
    clients.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
    assert!(page.complaints().is_empty(), "{:?}", page.complaints());
}
