//! Clusters on disk: kept over restarts, upgrades and crashes.

use super::{Admin, arguments, free_port, with_state};
use crate::succession::{fail_to_upgrade, replaceable, upgrade};
use crate::support::backend::Backend;
use crate::support::{canned, until};
use nix::sys::signal::Signal;
use serde_json::json;
use sluice::base::clock::Clock;
use std::fs;

/// The files of the clusters.
pub(super) fn names(admin: &Admin) -> Vec<String> {
    let entries = fs::read_dir(admin.proxy.path("state")).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain text")).collect();
    names.sort();
    names
}

fn restart(admin: &mut Admin, signal: Signal) {
    admin.proxy.signal(signal);
    admin.proxy.until_exit();
    admin.proxy.restart();
    until("the proxy is ready", || admin.get("/readyz").status() == 200);
}

#[test]
fn clusters_are_there_again_after_a_restart() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(with_state());
    let port = free_port();
    admin.expect("PUT", "/app?hostname=app.test&queue-limit=7&terminate-protection=true", "", 201);
    admin.expect("PUT", "/app/backends/one", &format!("{}&terminate-protection=true", arguments(&backend)), 201);
    admin.expect("PUT", "/app/buckets/main", "rate=.5&ceil=.7", 204);
    admin.expect("PUT", "/app/buckets/upload", "rate=.5&ceil=.5&parent=main", 204);
    admin.expect("PUT", &format!("/port?port={port}"), "", 201);
    admin.expect("PUT", "/port/backends/one", &arguments(&backend), 201);
    admin.expect("PUT", "/gone?hostname=gone.test", "", 201);
    admin.expect("DELETE", "/gone", "", 204);
    let before = admin.show("/app");
    restart(&mut admin, Signal::SIGTERM);
    // A request is counted in it.
    let after = admin.show("/app");
    admin.proxy.client().get("app.test", "/").expect_ok("ok");
    admin.at(port).get("any.test", "/").expect_ok("ok");
    for name in ["queue-limit", "shaper", "cache", "terminate-protection", "hostname", "port"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    assert_eq!(after["members"][0]["terminate-protection"], true);
    assert_eq!(names(&admin), ["app.db", "port.db"]);
    admin.expect("DELETE", "/port", "", 204);
    until("the file goes", || names(&admin) == ["app.db"]);
}

/// The process is killed while clients edit. Each cluster is as it was after one of the edits, and the last one that was on
/// disk before the kill is not lost.
#[test]
fn a_kill_at_any_moment_leaves_whole_clusters() {
    let mut admin = Admin::start(with_state());
    admin.expect("PUT", "/app?hostname=app.test&queue-limit=0", "", 201);
    until("the cluster is on disk", || admin.proxy.path("state/app.db").exists());
    let mut limit = 0;
    for round in 0..8 {
        for _ in 0..20 + 7 * round {
            limit += 1;
            admin.expect("POST", "/app", &format!("queue-limit={limit}&retry-after={limit}"), 202);
            admin.expect("PUT", &format!("/n{limit}?hostname=n{limit}.test"), "", 201);
        }
        let file = admin.proxy.read("state/app.db");
        let on_disk = file
            .lines()
            .find_map(|line| line.strip_prefix("queue-limit="))
            .map_or(0, |text| text.parse::<u64>().expect("a number"));
        restart(&mut admin, Signal::SIGKILL);
        let found = admin.show("/app");
        let (queue, retry) = (found["queue-limit"].as_u64(), found["retry-after"].as_u64());
        assert!(queue >= Some(on_disk) && queue <= Some(limit), "{queue:?} after {on_disk} of {limit}");
        assert!(queue == retry || queue == Some(0), "{queue:?} {retry:?}");
        until("drafts are removed", || names(&admin).iter().all(|name| name.ends_with(".db")));
        assert!(!admin.proxy.stderr().contains("the cluster is not there"), "{}", admin.proxy.stderr());
    }
}

#[test]
fn damaged_files_are_set_aside_and_files_of_x0d_are_read() {
    let backend = Backend::always(canned::ok("imported"));
    let (ip, port) = (backend.address().ip(), backend.address().port());
    let x0d = format!(
        "[director]\nenabled=true\nqueue-limit=5\nqueue-timeout=60\nscheduler=rr\nallow-x-sendfile=false\n\
         [ondemand]\nhostname=x0d.test\n[backend=one]\nrole=active\ncapacity=1\nenabled=true\ntransport=tcp\nprotocol=http\n\
         health-check-mode=lazy\nhealth-check-interval=2\nhost={ip}\nport={port}\n"
    );
    let rewrite = format!(
        "[director]\nqueue-timeout=30000\nscheduler=rr\nhealth-check-success-threshold=3\n\
         [backend=one]\ncapacity=0\nenabled=true\nprotocol=http\nhealth-check-interval=10000\nhost={ip}\nport={port}\n"
    );
    let setup = with_state().file("state/x0d.db", &x0d).file("state/rewrite.test.cluster.conf", &rewrite);
    let setup = setup.file("state/bad.db", "[director]\nenabled").file("state/left.7.draft", "[dir");
    let mut admin = Admin::start(setup);
    for host in ["x0d.test", "rewrite.test"] {
        admin.proxy.client().get(host, "/").expect_ok("imported");
    }
    let expected = [
        "bad.db.damaged",
        "rewrite.test.cluster.conf",
        "rewrite.test.cluster.conf.x0d",
        "rewrite.test.db",
        "x0d.db",
        "x0d.db.x0d",
    ];
    until("the files are there", || names(&admin) == expected);
    let stderr = admin.proxy.stderr();
    for expected in [
        "bad.db: line 2: expected key=value; the cluster is not there: it is kept as bad.db.damaged",
        "x0d.db: a file of x0d: times are seconds (x0d 0.8 to 0.10)",
        "rewrite.test.cluster.conf: a file of x0d: times are milliseconds",
    ] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    assert_eq!(admin.proxy.read("state/x0d.db.x0d"), x0d);
    assert_eq!(admin.show("/rewrite.test")["queue-timeout"], 30);
    restart(&mut admin, Signal::SIGTERM);
    assert_eq!(admin.show("/x0d")["queue-limit"], 5);
    assert!(!admin.proxy.stderr().contains("a file of x0d"), "they are this program's now");
}

#[test]
fn a_successor_has_the_clusters_and_their_ports() {
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(replaceable(with_state()));
    let port = free_port();
    admin.expect("PUT", &format!("/port?port={port}"), "", 201);
    admin.expect("PUT", "/port/backends/one", &arguments(&backend), 201);
    until("it serves", || admin.at(port).get("a.test", "/").status() == 200);
    let successor = upgrade(&mut admin.proxy);
    until("the service is the successor's", || admin.json("/v1/status")["pid"] == successor);
    for _ in 0..10 {
        admin.at(port).get("a.test", "/").expect_ok("ok");
    }
    admin.expect("POST", "/port", "queue-limit=3", 202);
    assert_eq!(admin.show("/port")["queue-limit"], 3);
    admin.expect("DELETE", "/port", "", 204);
}

/// A cluster cannot be written, so a successor would have an older one.
#[test]
fn an_upgrade_fails_while_an_edit_is_not_on_disk() {
    let mut admin = Admin::start(replaceable(with_state()));
    admin.expect("PUT", "/app?hostname=app.test&queue-limit=1", "", 201);
    until("it is on disk", || names(&admin) == ["app.db"]);
    let file = admin.proxy.path("state/app.db");
    fs::remove_file(&file).expect("a file");
    fs::create_dir(&file).expect("a folder in its place");
    admin.expect("POST", "/app", "queue-limit=2", 202);
    until("the log names it", || admin.proxy.stderr().contains("server.stateDir: the file of app: "));
    // Others do not wait for it.
    admin.expect("PUT", "/other?hostname=other.test", "", 201);
    until("another one is on disk", || names(&admin).contains(&"other.db".to_owned()));
    let why = fail_to_upgrade(&admin.proxy);
    assert!(why.contains("server.stateDir: not all clusters on demand could be written"), "{why}");
    admin.expect("POST", "/app", "queue-limit=3", 202);
    fs::remove_dir(&file).expect("the folder goes");
    until("it is written again", || names(&admin) == ["app.db", "other.db"]);
    let successor = upgrade(&mut admin.proxy);
    until("the service is the successor's", || admin.json("/v1/status")["pid"] == successor);
    assert_eq!(admin.show("/app")["queue-limit"], 3);
}

#[test]
fn the_name_of_a_file_that_cannot_be_read_is_reserved() {
    let setup = with_state();
    let state = setup.dir().join("state");
    fs::create_dir(&state).expect("a folder");
    std::os::unix::fs::symlink("app.db", state.join("app.db")).expect("a link to itself");
    let admin = Admin::start(setup);
    let response = admin.expect("PUT", "/app?hostname=app.test", "", 409);
    assert!(response.text().contains("cluster app cannot be made: app.db cannot be read"), "{}", response.text());
    assert!(admin.proxy.stderr().contains("the cluster is not there, and the file stays"), "{}", admin.proxy.stderr());
    admin.expect("PUT", "/other?hostname=app.test", "", 201);
    assert!(state.join("app.db").is_symlink());
}

/// `loadtest/ondemand` has ten thousand, and measures them. With as many here, a loaded machine takes longer than tests wait.
#[test]
fn thousands_of_clusters_are_made_and_read_again() {
    const CLUSTERS: usize = 3_000;
    const CLIENTS: usize = 8;
    let backend = Backend::always(canned::ok("ok"));
    let mut admin = Admin::start(with_state());
    let clock = Clock::new();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (admin, backend) = (&admin, &backend);
            scope.spawn(move || {
                let mut connection = admin.client();
                for number in (client..CLUSTERS).step_by(CLIENTS) {
                    let put = admin.request("PUT", &format!("/c{number}?hostname=c{number}.test"), "");
                    assert_eq!(connection.exchange(put).status(), 201);
                    if number % 100 == 0 {
                        let put = admin.request("PUT", &format!("/c{number}/backends/one"), &arguments(backend));
                        assert_eq!(connection.exchange(put).status(), 201);
                    }
                }
            });
        }
    });
    let made = clock.now().since(sluice::base::clock::Moment::ZERO);
    admin.proxy.signal(Signal::SIGTERM);
    admin.proxy.until_exit();
    let began = clock.now();
    admin.proxy.restart();
    until("a cluster serves", || admin.proxy.client().get("c2900.test", "/").status() == 200);
    let took = clock.now().since(began);
    println!("{CLUSTERS} clusters were made in {made:?} by {CLIENTS} clients, and served {took:?} after a restart");
    assert_eq!(names(&admin).len(), CLUSTERS);
    assert_eq!(admin.json("/v1/frontends?search=c123")["total"], json!(11));
}

/// A cluster leaves while the node is down, here because its file is removed. One of its name that is made later gets none of the
/// objects on the disk; one that stays keeps its own.
#[test]
fn a_later_cluster_gets_no_cached_object_of_an_earlier_one() {
    let backend = |name: &'static str| {
        Backend::serve(move |_, conn| {
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length:";
            conn.send(format!("{head} {}\r\n\r\n{name}", name.len()));
        })
    };
    let (old, new) = (backend("old"), backend("new"));
    let setup = with_state();
    let objects = setup.dir().join("objects");
    let mut admin = Admin::start(setup.set("cacheDisk", json!({"path": objects.to_str(), "bytes": "64MB"})));
    let make = |admin: &Admin, name: &str, backend: &Backend| {
        admin.expect("PUT", &format!("/{name}?hostname={name}.test&cache-enabled=true"), "", 201);
        admin.expect("PUT", &format!("/{name}/backends/one"), &arguments(backend), 201);
    };
    let ask = |admin: &Admin, host: &str| {
        let response = admin.proxy.client().get(host, "/");
        (response.head.get("X-Cache-Lookup").unwrap_or_default().to_owned(), response.text())
    };
    for name in ["leaves", "stays"] {
        make(&admin, name, &old);
        assert_eq!(ask(&admin, &format!("{name}.test")), ("miss".to_owned(), "old".to_owned()));
    }
    until("the clusters are on the disk", || names(&admin) == ["leaves.db", "stays.db"]);
    until("the objects are on the disk", || admin.json("/v1/status")["cache"]["disk"]["written"] == 2);
    admin.proxy.signal(Signal::SIGTERM);
    admin.proxy.until_exit();
    fs::remove_file(admin.proxy.path("state").join("leaves.db")).expect("a file");
    admin.proxy.restart();
    until("the objects are read", || admin.proxy.stderr().contains("server.cacheDisk: 2 files"));
    make(&admin, "leaves", &new);
    assert_eq!(ask(&admin, "leaves.test"), ("miss".to_owned(), "new".to_owned()));
    assert_eq!(ask(&admin, "stays.test"), ("hit".to_owned(), "old".to_owned()));
    // And within the life of the process.
    admin.expect("DELETE", "/leaves", "", 204);
    make(&admin, "leaves", &old);
    assert_eq!(ask(&admin, "leaves.test"), ("miss".to_owned(), "old".to_owned()));
}
