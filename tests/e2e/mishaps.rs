//! Upgrades that follow one another closely, and processes that end in the midst of one.

use crate::succession::{fail_to_upgrade, is_zombie, open_logs, order, replaceable, upgrade, write_program};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{Gate, HOST, canned, until, unused_address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A backend that answers "/slow" once the gate is open, and everything else at once.
fn slow_backend() -> (Arc<Gate>, Backend) {
    let gate = Arc::new(Gate::default());
    let inner = Arc::clone(&gate);
    let backend = Backend::serve(move |request, conn| {
        if request.head.target() == "/slow" {
            inner.pass();
        }
        conn.send(canned::ok("ok"));
    });
    (gate, backend)
}

fn has_ended(pid: u32) -> bool {
    !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false) || is_zombie(pid)
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}

/// From the next start on routes come from a Redis that is not there.
fn lose_routes(proxy: &Proxy, change: impl Fn(&mut Value)) {
    let mut config: Value = serde_json::from_str(&proxy.read("config.json")).expect("a configuration");
    config["driver"] = format!("redis://{}", unused_address()).into();
    change(&mut config);
    proxy.replace("config.json", &config.to_string());
}

/// A new process has bound more sockets than there were, and is not ready: no client comes to it.
#[test]
fn a_new_process_that_waits_takes_no_client() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).workers(0).set("workers", 1).set("upgradeTimeout", 1);
    let proxy = replaceable(setup).start();
    lose_routes(&proxy, |config| config["server"]["workers"] = 8.into());
    let is_over = || proxy.stderr().contains("this process serves on as before");
    let mut during = 0;
    std::thread::scope(|scope| {
        let said = scope.spawn(|| fail_to_upgrade(&proxy));
        until("the new process has loaded what there is", || proxy.stderr().contains(" is away: "));
        while !is_over() {
            proxy.client().get(HOST, "/").expect_ok("ok");
            during += 1;
        }
        let said = said.join().expect("no panic");
        assert!(said.contains("no message arrived in time"), "{said}");
    });
    assert!(during > 20, "{during} clients came while the new process waited");
    proxy.client().get(HOST, "/").expect_ok("ok");
}

/// A request outlasts two upgrades: its client, who was not told to go, is served by the third process.
#[test]
fn a_client_that_finishes_late_is_passed_on_twice() {
    let (gate, backend) = slow_backend();
    let mut proxy = replaceable(Setup::for_backends([backend.url()]).with_access_log()).start();
    let mut late: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    late.iter_mut().for_each(|client| client.send(canned::get(HOST, "/slow")));
    backend.until_heads(5);
    let first = proxy.pid().as_raw().unsigned_abs();
    let second = upgrade(&mut proxy);
    let third = upgrade(&mut proxy);
    proxy.client().get(HOST, "/").expect_ok("ok");
    // The order reaches the first process, by way of the second.
    fs::rename(proxy.path("access.log"), proxy.path("access.log.1")).expect("a rotated log");
    proxy.signal(Signal::SIGUSR1);
    until("the log is opened again", || proxy.path("access.log").exists());
    // The first process writes the late requests: until it has opened the log again, they go to the old file.
    until("all have opened it", || [first, second, third].iter().all(|process| open_logs(&proxy, *process) == 0));
    assert!(!proxy.first_has_ended() && !has_ended(second), "they are not done");
    gate.open();
    for client in &mut late {
        let response = client.response_to("GET");
        response.expect_ok("ok");
        assert!(!response.head.lists("connection", "close"), "in {}", response.head);
    }
    late.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    until("the first two end", || proxy.first_has_ended() && has_ended(second));
    late.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    assert!(!has_ended(third));
    until("the late ones are in the new log", || proxy.read("access.log").matches("GET /slow ").count() == 5);
}

/// A client that always asks before it is answered is never idle: it is told to come again, and loses no answer that it
/// was promised.
#[test]
fn a_client_that_never_waits_is_told_to_come_again() {
    let (gate, backend) = slow_backend();
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let mut client = proxy.client();
    client.send([canned::get(HOST, "/slow"), canned::get(HOST, "/1"), canned::get(HOST, "/2")].concat());
    backend.until_heads(1);
    upgrade(&mut proxy);
    gate.open();
    let first = client.response_to("GET");
    first.expect_ok("ok");
    assert!(!first.head.lists("connection", "close"), "in {}", first.head);
    let second = client.response_to("GET");
    second.expect_ok("ok");
    assert!(second.head.lists("connection", "close"), "in {}", second.head);
    client.expect_closed();
    until("the first process ends", || proxy.first_has_ended());
}

/// The new process dies: who is still with the old one is told to go, and the old one ends.
#[test]
fn a_successor_that_dies_leaves_clients_that_are_told() {
    let (gate, backend) = slow_backend();
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    let mut late: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    late.iter_mut().for_each(|client| client.send(canned::get(HOST, "/slow")));
    backend.until_heads(5);
    let successor = upgrade(&mut proxy);
    kill(number(successor), Signal::SIGKILL).expect("its end");
    until("the old one learns it", || proxy.stderr().contains("the new process accepts no more clients"));
    // Those that have clients; the others have ended.
    let told = |what: &str| {
        let with_clients = |line: &&str| line.contains(what) && !line.contains("; 0 connections, ");
        proxy.stderr().lines().filter(with_clients).count()
    };
    until("its workers learn it", || told(": stopping; ") == told(": handing over; "));
    gate.open();
    for client in &mut late {
        let response = client.response_to("GET");
        response.expect_ok("ok");
        assert!(response.head.lists("connection", "close"), "in {}", response.head);
        client.expect_closed();
    }
    until("the old one ends", || proxy.first_has_ended());
}

/// The new process serves, and then hangs with the line full of clients that it does not take. The old one need not wait
/// for it: a second order ends it at once.
#[test]
fn a_successor_that_hangs_does_not_keep_the_old_process() {
    const CLIENTS: usize = 400;
    let (gate, backend) = slow_backend();
    let setup = Setup::for_backends([backend.url()]).set("maxSockets", CLIENTS + 1);
    let mut proxy = replaceable(setup).start();
    let first = proxy.pid();
    let mut late: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    late.iter_mut().for_each(|client| client.send(canned::get(HOST, "/slow")));
    backend.until_heads(CLIENTS);
    upgrade(&mut proxy);
    proxy.while_stopped(|| {
        gate.open();
        late.iter_mut().for_each(|client| client.response_to("GET").expect_ok("ok"));
        // An order before that would end those that have yet to go.
        until("the first hundred have gone", || open_clients(&proxy, first) <= CLIENTS - 100);
        // Orders that come at once are one.
        until("the old process ends", || {
            let _ = kill(first, Signal::SIGTERM);
            proxy_has_ended(first)
        });
        // It would wait ten seconds for the first client that does not fit, and say so.
        let said = proxy.stderr();
        assert!(said.contains("does not accept clients; the wait ends") && !said.contains("upgrade: only "), "{said}");
    });
    let is_served =
        |client: &mut Client| client.try_send(canned::get(HOST, "/")) && client.try_response_to("GET").is_ok();
    let served = late.iter_mut().map(is_served).filter(|served| *served).count();
    assert!(served >= 100, "{served} clients had gone over before the line was full");
}

/// How many connections of clients a process has open.
fn open_clients(proxy: &Proxy, pid: Pid) -> usize {
    let IpAddr::V4(ip) = proxy.address().ip() else { panic!("the address of {proxy}") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), proxy.address().port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the connections of the system");
    let sockets: BTreeSet<String> = table.lines().filter_map(|line| established(line, &local)).collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_str().is_some_and(|target| sockets.contains(target))).count()
}

/// The name of the socket of a line of `/proc/net/tcp`, if it is an established connection at this local address.
fn established(line: &str, local: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let is_meant = fields.get(1) == Some(&local) && fields.get(3) == Some(&"01");
    is_meant.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
}

fn proxy_has_ended(pid: Pid) -> bool {
    has_ended(pid.as_raw().unsigned_abs())
}

/// The old process dies while the new one, which has all its sockets, waits for routes: so the new one serves.
#[test]
fn a_successor_whose_predecessor_dies_serves() {
    let backend = Backend::always(canned::ok("ok"));
    let mut proxy = replaceable(Setup::for_backends([backend.url()])).start();
    lose_routes(&proxy, |_| ());
    proxy.signal(Signal::SIGUSR2);
    until("the new process waits", || proxy.stderr().contains(" is away: "));
    let first = proxy.pid();
    proxy.signal(Signal::SIGKILL);
    until("the new one is the service", || {
        let now = proxy.read("sluice.pid");
        !now.trim().is_empty() && now.trim() != first.to_string()
    });
    let successor = proxy.read("sluice.pid").trim().parse().expect("a number");
    proxy.follow(successor);
    // Its routes are away, and it says so.
    assert_eq!(proxy.client().get(HOST, "/").status(), 503);
    assert!(proxy.stderr().contains("this one serves at once"), "{}", proxy.stderr());
    proxy.signal(Signal::SIGTERM);
    until("it ends", || has_ended(successor));
}

/// A successor that cannot serve has put its number nowhere, and the next order finds the process that serves.
#[test]
fn the_pid_file_names_who_serves() {
    let proxy = replaceable(Setup::new().set("upgradeTimeout", 0.3)).start();
    let own = proxy.read("sluice.pid");
    lose_routes(&proxy, |_| ());
    for _ in 0..2 {
        assert_eq!(order(&proxy).status.code(), Some(1));
        assert_eq!(proxy.read("sluice.pid"), own);
    }
}

/// A signal that comes while a command waits for its upgrade is refused, and the command waits on.
#[test]
fn whoever_waits_for_an_upgrade_hears_of_that_one() {
    let proxy = replaceable(Setup::new().set("upgradeTimeout", 1)).start();
    lose_routes(&proxy, |_| ());
    std::thread::scope(|scope| {
        let said = scope.spawn(|| fail_to_upgrade(&proxy));
        until("the new process waits", || proxy.stderr().contains(" is away: "));
        proxy.signal(Signal::SIGUSR2);
        until("the signal is refused", || proxy.stderr().contains("refused: an upgrade is under way already"));
        let said = said.join().expect("no panic");
        assert!(said.contains("no message arrived in time"), "{said}");
    });
}

/// Process 1 of a container is no process to be succeeded.
#[test]
fn the_first_process_of_a_container_refuses() {
    let can = Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        // Only root may make such a container, and not everywhere.
        return;
    }
    let setup = Setup::new();
    let program = setup.dir().join("contained");
    write_program(
        &program,
        &format!("#!/bin/sh\nexec unshare --pid --fork --kill-child {} \"$@\"\n", env!("CARGO_BIN_EXE_sluice")),
    );
    let proxy = setup.program(&program).start();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", proxy.pid())).expect("its children");
    let inner = children.trim().parse().expect("one child");
    kill(Pid::from_raw(inner), Signal::SIGUSR2).expect("an order");
    until("it refuses", || proxy.stderr().contains("upgrade: refused: this is process 1 of its container"));
    assert!(proxy.accepts());
}
