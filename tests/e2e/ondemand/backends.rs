//! Backends and requests of clusters on demand over time: the cache, the queue, attributes.

use super::{Admin, arguments};
use crate::health::Site;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};

/// The objects of a cluster go with it: the next one of its name is another application.
#[test]
fn a_new_cluster_of_an_old_name_has_no_objects() {
    let response = |text: &str| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())
    };
    let [old, new] = ["old", "new"].map(|text| Backend::always(response(text)));
    let admin = Admin::start(Setup::new());
    for (backend, text) in [(&old, "old"), (&new, "new")] {
        admin.expect("PUT", "/web?hostname=a.test&cache-enabled=true", "", 201);
        admin.expect("PUT", "/web/backends/one", &arguments(backend), 201);
        for lookup in ["miss", "hit"] {
            let got = admin.proxy.client().get("a.test", "/");
            assert_eq!((got.text().as_str(), got.head.get("X-Cache-Lookup")), (text, Some(lookup)));
        }
        admin.expect("DELETE", "/web", "", 204);
    }
}

/// A request that waits in a cluster that goes is served by whoever has its host then.
#[test]
fn requests_that_wait_in_a_removed_cluster_find_their_route_anew() {
    let backend = Backend::always(canned::ok("of the file"));
    let admin = Admin::start(Setup::for_backends([backend.url()]));
    admin.expect("PUT", &format!("/web?hostname={HOST}&enqueue-on-unavailable=true&queue-timeout=300"), "", 201);
    let mut client = admin.proxy.client();
    client.send(canned::get(HOST, "/"));
    until("it waits", || admin.show("/web")["stats"]["queued"]["current"] == 1);
    admin.expect("DELETE", "/web", "", 204);
    client.response_to("GET").expect_ok("of the file");
}

#[test]
fn attributes_of_a_backend_can_be_taken_away() {
    let backend = Backend::always(canned::ok("ok"));
    let admin = Admin::start(Setup::new());
    admin.expect("PUT", "/web?hostname=a.test", "", 201);
    admin.expect("PUT", "/web/backends/one", &arguments(&backend), 201);
    for attribute in ["proxy=v1", "sni=x.test", "weight=0", "slowStart=10"] {
        admin.expect("POST", "/web/backends/one", attribute, 202);
        let (name, _) = attribute.split_once('=').expect("a name and a value");
        admin.expect("POST", "/web/backends/one", &format!("{name}="), 202);
        until("it serves as before", || admin.proxy.client().get("a.test", "/").text() == "ok");
    }
    admin.expect("POST", "/web/backends/one", "nonsense=", 400);
}

/// A backend that was down and comes back stays disabled (`sticky-offline-mode`) until it is unlocked.
#[test]
fn probes_take_backends_out_and_unlock_puts_one_back_that_stayed_disabled() {
    let site = Site::new("ok");
    let admin = Admin::start(Setup::new());
    admin.expect("PUT", "/web?hostname=a.test&sticky-offline-mode=true", "", 201);
    let probed = |mode: &str| {
        arguments(&site.backend).replace("mode=lazy", &format!("mode={mode}")).replace("interval=10", "interval=0.05")
    };
    admin.expect("PUT", "/web/backends/one", &probed("paranoid"), 201);
    let backend = || admin.show("/web/backends/one");
    until("it serves", || admin.proxy.client().get("a.test", "/").status() == 200);
    site.fail();
    until("it is offline", || backend()["health"]["state"] == "offline");
    assert_ne!(admin.proxy.client().get("a.test", "/").status(), 200);
    site.recover();
    until("it is back, and disabled", || backend()["enabled"] == false);
    assert_ne!(admin.proxy.client().get("a.test", "/").status(), 200);
    admin.expect("UNLOCK", "/web/backends/one", "", 202);
    until("it serves again", || admin.proxy.client().get("a.test", "/").text() == "ok");
    assert_eq!(backend()["enabled"], true);
    // The mode can be changed, and a cluster that goes is probed no more.
    admin.expect("POST", "/web/backends/one", "health-check-mode=off", 202);
    site.fail();
    let probes = site.probes().len();
    admin.expect("POST", "/web/backends/one", "health-check-mode=paranoid", 202);
    site.until_probes(probes + 1);
    admin.expect("DELETE", "/web", "", 204);
}
