//! An upgrade: a new process takes the place of the one that runs, and no client notices.

use crate::service::Manager;
use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::tls::Authority;
use crate::support::{Gate, HOST, canned, until, unused_address};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A proxy whose program has a name of its own, which a test can give to another program.
pub(crate) fn replaceable(setup: Setup) -> Setup {
    let program = setup.dir().join("sluice");
    symlink(env!("CARGO_BIN_EXE_sluice"), &program).expect("a name for the program");
    let pid_file = setup.dir().join("sluice.pid");
    let setup = setup.set("pidFile", pid_file.to_str().expect("plain text")).set("drainTimeout", 60);
    setup.program(&program)
}

/// Orders an upgrade by the command, and waits for what it says.
pub(crate) fn order(proxy: &Proxy) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["upgrade", "--pid", &proxy.pid().to_string()]).output().expect("the command")
}

/// Upgrades the proxy: the new process.
#[track_caller]
pub(crate) fn upgrade(proxy: &mut Proxy) -> u32 {
    let before = proxy.pid();
    let output = order(proxy);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}{}", proxy.stderr());
    let pid = proxy.read("sluice.pid").trim().parse().expect("a number in the pid file");
    assert_eq!(said, format!("process {pid} has replaced process {before}\n"));
    proxy.follow(pid);
    pid
}

/// An upgrade that fails: why.
#[track_caller]
pub(crate) fn fail_to_upgrade(proxy: &Proxy) -> String {
    let before = proxy.read("sluice.pid");
    let output = order(proxy);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(proxy.read("sluice.pid"), before);
    until("the failure is in the log", || proxy.stderr().contains("this process serves on as before"));
    String::from_utf8(output.stderr).expect("text")
}

/// Gives the program's name to a script.
fn replace_program(proxy: &Proxy, script: &str) {
    write_program(&proxy.path("sluice"), script);
}

/// Writes a script. A shell does it: what is open for writing here, and so in each child that another test is just about
/// to start, cannot be run.
pub(crate) fn write_program(path: &Path, script: &str) {
    const WRITE: &str = "printf %s \"$1\" >\"$2.draft\" && chmod 755 \"$2.draft\" && mv \"$2.draft\" \"$2\"";
    let mut command = Command::new("sh");
    let status = command.args(["-c", WRITE, "sh", script]).arg(path).status();
    assert!(status.expect("a shell").success(), "writing a program");
}

#[test]
fn an_idle_client_is_served_by_the_next_process_and_the_one_after() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    // One that has not asked for anything yet, and one that is in the midst of its head.
    let mut silent = proxy.client();
    let mut slow = proxy.client();
    let request = canned::get(HOST, "/slow");
    let (start, rest) = request.split_at(20);
    slow.send(start);
    let first = upgrade(&mut proxy);
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    slow.send(rest);
    slow.response_to("GET").expect_ok("ok");
    until("the first process ends, with all its clients elsewhere", || proxy.first_has_ended());
    let second = upgrade(&mut proxy);
    assert_ne!(first, second);
    clients.iter_mut().chain([&mut slow, &mut silent]).for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    until("the second process ends", || !fs::exists(format!("/proc/{first}/exe")).unwrap_or(false) || is_zombie(first));
    clients.iter_mut().chain([&mut slow, &mut silent]).for_each(|client| client.get(HOST, "/").expect_ok("ok"));
}

/// How many files a process has open that were the access log before it was renamed.
pub(crate) fn open_logs(proxy: &Proxy, pid: u32) -> usize {
    let renamed = proxy.path("access.log.1");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    files.flatten().filter(|file| fs::read_link(file.path()).is_ok_and(|target| target == renamed)).count()
}

pub(crate) fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn nothing_fails_under_load() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let load = Load::start(proxy.address());
    for _ in 0..3 {
        let served = load.served();
        upgrade(&mut proxy);
        until("requests are answered after the upgrade", || load.served() > served + 200);
    }
    load.finish();
}

/// Clients that ask over and over again, half of them over a new connection each time.
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = move || Client::over(Box::new(connect(address, None)));
        let run = |keeps: bool| {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            thread::spawn(move || {
                let mut kept = client();
                while !over.load(Ordering::Relaxed) {
                    if keeps {
                        let response = kept.get(HOST, "/");
                        response.expect_ok("ok");
                        assert!(!response.head.lists("connection", "close"), "a plain client keeps its connection");
                    } else {
                        client().get(HOST, "/").expect_ok("ok");
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..8).map(|number| run(number % 2 == 0)).collect();
        Self { over, served, threads }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "clients whose requests failed");
    }
}

#[test]
fn a_new_program_that_does_not_serve_changes_nothing() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).set("upgradeTimeout", 0.4);
    let proxy = replaceable(setup).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    let table = [
        ("#!/bin/sh\nexit 7\n", "the new process ended before it served (exit status: 7)"),
        ("#!/bin/sh\nkill -9 $$\n", "the new process was ended before it served (signal: 9"),
        ("#!/bin/sh\nexec sleep 100\n", "no message arrived in time"),
        ("#!/bin/sh\necho hello >&0; exec sleep 100\n", "the bytes received are not a message of sluice"),
        ("#!/nowhere/sh\n", "No such file or directory"),
    ];
    for (script, expected) in table {
        replace_program(&proxy, script);
        let said = fail_to_upgrade(&proxy);
        assert!(said.contains(expected), "{script}: {said}");
        client.get(HOST, "/").expect_ok("ok");
        proxy.client().get(HOST, "/").expect_ok("ok");
    }
}

#[test]
fn a_configuration_that_is_not_good_changes_nothing_and_is_named() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let good = proxy.read("config.json");
    proxy.replace("config.json", &good.replace("\"drainTimeout\": 60", "\"drainTimeout\": -1"));
    let said = fail_to_upgrade(&proxy);
    assert!(said.contains("server.drainTimeout: found -1"), "{said}");
    proxy.replace("config.json", &good);
    proxy.replace("routes.json", "{");
    let said = fail_to_upgrade(&proxy);
    assert!(said.contains("routes.json: line 1"), "{said}");
    proxy.client().get(HOST, "/").expect_ok("ok");
    proxy.write_routes(&json!({ HOST: frontend(HOST, [backend.url()]) }));
    upgrade(&mut proxy);
    proxy.client().get(HOST, "/").expect_ok("ok");
}

#[test]
fn a_second_order_is_refused_and_a_stop_ends_both() {
    let mut proxy = replaceable(Setup::new()).start();
    let child_file = proxy.path("child");
    replace_program(&proxy, &format!("#!/bin/sh\necho $$ >{}; exec sleep 100\n", child_file.display()));
    proxy.signal(Signal::SIGUSR2);
    until("the new process runs", || !proxy.read("child").is_empty());
    let second = order(&proxy);
    assert!(String::from_utf8_lossy(&second.stderr).contains("an upgrade is under way already"), "{second:?}");
    let child: u32 = proxy.read("child").trim().parse().expect("a number");
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    assert!(!fs::exists(format!("/proc/{child}")).unwrap_or(true) || is_zombie(child));
}

#[test]
fn other_workers_and_addresses_are_taken_up() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(0).set("workers", 3);
    let mut proxy = replaceable(setup).start();
    let old = proxy.address();
    let config = proxy.read("config.json");
    let added = unused_address();
    let bind = |addresses: &[SocketAddr]| {
        let items: Vec<_> = addresses.iter().map(|a| json!({"address": a.ip(), "port": a.port()})).collect();
        let mut value: Value = serde_json::from_str(&config).expect("a configuration");
        value["http"] = json!({ "bind": items });
        value
    };
    for (workers, addresses) in [(1, vec![old, added]), (5, vec![added, old]), (2, vec![added])] {
        let mut value = bind(&addresses);
        value["server"]["workers"] = workers.into();
        proxy.replace("config.json", &value.to_string());
        upgrade(&mut proxy);
        for address in addresses {
            for _ in 0..20 {
                let mut client = Client::over(Box::new(connect(address, None)));
                client.get(HOST, "/").expect_ok("ok");
            }
        }
    }
    until("the address that is no longer wanted is closed", || TcpStream::connect(old).is_err());
}

/// A request whose response has not begun lives on in the process that had it.
#[test]
fn what_is_under_way_finishes_where_it_began() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("finished"));
    });
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let mut client = proxy.client();
    client.send(canned::get(HOST, "/"));
    backend.until_heads(1);
    upgrade(&mut proxy);
    gate.open();
    client.response_to("GET").expect_ok("finished");
    // Its client is plain, so it has gone over, and is answered there.
    client.get(HOST, "/").expect_ok("finished");
    until("the first process ends", || proxy.first_has_ended());
    client.get(HOST, "/").expect_ok("finished");
}

/// Connections that were never accepted wait in a queue that both processes hold. The one client of the old process has a
/// request under way: an idle one would make room for the next.
#[test]
fn the_queue_of_a_process_that_does_not_accept_is_its_successors() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        if request.head.target() == "/held" {
            inner.pass();
        }
        conn.send(canned::ok("ok"));
    });
    let setup = Setup::for_backends([backend.url()]).workers(1).set("maxConnections", 1);
    let mut proxy = replaceable(setup).start();
    let mut first = proxy.client();
    first.send(canned::get(HOST, "/held"));
    backend.until_heads(1);
    let mut waiting: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(canned::get(HOST, "/")));
    let config = proxy.read("config.json").replace("\"maxConnections\": 1", "\"maxConnections\": 100");
    proxy.replace("config.json", &config);
    upgrade(&mut proxy);
    waiting.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
    gate.open();
    first.response_to("GET").expect_ok("ok");
    first.get(HOST, "/").expect_ok("ok");
}

/// The access log is one file of both, and both open it again.
#[test]
fn the_access_log_is_shared() {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |_, conn| {
        inner.pass();
        conn.send(canned::ok("finished"));
    });
    let mut proxy = replaceable(Setup::for_backends([backend.url()]).with_access_log()).start();
    let mut old = proxy.client();
    old.send(canned::get(HOST, "/old"));
    backend.until_heads(1);
    let processes = [proxy.pid().as_raw().unsigned_abs(), upgrade(&mut proxy)];
    fs::rename(proxy.path("access.log"), proxy.path("access.log.1")).expect("a rotated log");
    proxy.signal(Signal::SIGUSR1);
    until("the log is opened again by both", || processes.iter().all(|process| open_logs(&proxy, *process) == 0));
    gate.open();
    old.response_to("GET").expect_ok("finished");
    proxy.client().get(HOST, "/new").expect_ok("finished");
    until("both lines are in the new file", || {
        let log = proxy.read("access.log");
        log.contains("GET /old ") && log.contains("GET /new ")
    });
}

/// An encrypted client cannot change processes: its next answer says that it is the last.
#[test]
fn encrypted_clients_are_told_to_come_again() {
    let backend = Backend::always(canned::ok("ok"));
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https().certificate(HOST, &authority.issue(&[HOST]));
    let mut proxy = replaceable(setup).start();
    let trust = authority.trust();
    let mut client = trust.client(&proxy, HOST);
    client.get(HOST, "/").expect_ok("ok");
    upgrade(&mut proxy);
    let response = client.get(HOST, "/");
    response.expect_ok("ok");
    assert!(response.head.lists("connection", "close"), "in {}", response.head);
    client.expect_closed();
    trust.client(&proxy, HOST).get(HOST, "/").expect_ok("ok");
    until("the first process ends", || proxy.first_has_ended());
}

/// The service manager learns who is the service now from the one that was, which says nothing more.
#[test]
fn the_service_manager_is_told_of_the_new_process() {
    let (manager, setup) = Manager::listen(replaceable(Setup::new()).set("upgradeTimeout", 0.4));
    let mut proxy = setup.start();
    manager.expect(&["READY=1"]);
    replace_program(&proxy, "#!/bin/sh\nexit 7\n");
    let _ = fail_to_upgrade(&proxy);
    manager.expect(&["RELOADING=1"]);
    manager.expect(&["READY=1"]);
    replace_program(&proxy, &format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_sluice")));
    let pid = upgrade(&mut proxy);
    manager.expect(&["RELOADING=1"]);
    manager.expect(&[&format!("MAINPID={pid}"), "READY=1"]);
    until("the first process ends", || proxy.first_has_ended());
    proxy.signal(Signal::SIGTERM);
    manager.expect(&["STOPPING=1"]);
}

/// A limit below what any process holds: workers are renewed in vain, and then the process, but not before it has an age.
#[test]
fn a_process_that_holds_too_much_renews_itself() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).set("memoryLimit", 1 << 20).set("memoryUpgrade", true);
    let mut proxy = replaceable(setup.set("memoryCheckInterval", 0.004)).start();
    // The successor stays: it reads that it is not to be renewed in its turn.
    let config = proxy.read("config.json");
    proxy.replace("config.json", &config.replace("\"memoryUpgrade\": true", "\"memoryUpgrade\": false"));
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    let first = proxy.pid().to_string();
    until("another process serves", || {
        client.get(HOST, "/").expect_ok("ok");
        let now = proxy.read("sluice.pid");
        !now.is_empty() && now.trim() != first
    });
    let successor = proxy.read("sluice.pid").trim().parse().expect("a number");
    proxy.follow(successor);
    // A thread of its own writes the log, so the file with the number may be there first.
    until("the log says why", || proxy.stderr().contains("replaced for its memory"));
    client.get(HOST, "/").expect_ok("ok");
    until("the first process ends", || proxy.first_has_ended());
    client.get(HOST, "/").expect_ok("ok");
}

/// Somebody who is not this node's sluice is left alone.
#[test]
fn only_a_sluice_is_told_to_upgrade() {
    let mut other = Command::new("sleep").arg("100").spawn().expect("a process");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["upgrade", "--pid", &other.id().to_string()]).output().expect("the command");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not wait for SIGUSR2"), "{output:?}");
    assert!(other.try_wait().expect("its state").is_none(), "it lives");
    other.kill().expect("its end");
    other.wait().expect("its end");
}
