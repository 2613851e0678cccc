//! What the system around the program sees and sets: its pid file, the service manager, processors, limits.

use crate::succession::write_program;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, PATIENCE, canned, until};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, getuid};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

/// The lines that the service manager was told, message by message.
pub(crate) struct Manager(UnixDatagram);

impl Manager {
    pub(crate) fn listen(setup: Setup) -> (Self, Setup) {
        let path = setup.dir().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket for messages");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        (Self(socket), setup.env("NOTIFY_SOCKET", path.to_str().expect("a path of plain text")))
    }

    #[track_caller]
    pub(crate) fn expect(&self, lines: &[&str]) {
        let mut bytes = [0; 4096];
        let len = self.0.recv(&mut bytes).expect("a message to the service manager");
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let found: Vec<_> = text.lines().collect();
        assert!(lines.iter().all(|line| found.contains(line)), "expected {lines:?}, found {found:?}");
    }
}

fn pid_in(proxy: &Proxy, name: &str) -> String {
    proxy.read(name).trim().to_owned()
}

#[test]
fn the_pid_file_is_there_as_long_as_the_process() {
    let setup = Setup::new();
    let path = setup.dir().join("sluice.pid");
    let mut proxy = setup.set("pidFile", path.to_str().expect("plain text")).start();
    // Who connects may be faster than the file is written.
    until("the file names the process", || pid_in(&proxy, "sluice.pid") == proxy.pid().to_string());
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    assert!(!path.exists());
}

#[test]
fn a_pid_file_that_cannot_be_written_is_named() {
    let setup = Setup::new().set("pidFile", "/nowhere/sluice.pid");
    let (status, said) = setup.start_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("server.pidFile: writing /nowhere/sluice.pid: No such file"), "{said}");
}

#[test]
fn the_service_manager_is_told_what_happens() {
    let (manager, setup) = Manager::listen(Setup::new());
    let mut proxy = setup.start();
    manager.expect(&["READY=1"]);
    proxy.signal(Signal::SIGHUP);
    manager.expect(&["RELOADING=1"]);
    manager.expect(&["READY=1"]);
    proxy.signal(Signal::SIGTERM);
    manager.expect(&["STOPPING=1"]);
    assert!(proxy.until_exit().success());
}

/// One socket, and three workers who have it in common: a sibling cannot be bound beside it.
#[test]
fn a_socket_of_the_service_manager_is_taken_over() {
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).workers(3).activated(true).start();
    let mut clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.get(HOST, "/").expect_ok("ok"));
    assert!(proxy.stderr().contains("3 workers share 1 sockets"), "{}", proxy.stderr());
}

#[test]
fn a_socket_of_the_service_manager_that_nobody_wants_is_named() {
    let (status, said) = Setup::new().activated(false).start_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("which is no address of http.bind or https.bind"), "{said}");
}

#[test]
fn workers_are_pinned() {
    let cpus = sched_getaffinity(Pid::from_raw(0)).expect("the processors of this test");
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu).unwrap_or(false)).collect();
    let workers = cpus.len().min(4);
    let proxy = Setup::new().workers(workers).pinned().start();
    for (number, cpu) in cpus.iter().take(workers).enumerate() {
        let expected = ("worker-".to_owned() + &number.to_string(), cpu.to_string());
        until(&format!("worker {number} is on processor {cpu} alone"), || {
            task_states(&proxy).iter().any(|state| {
                let field = |name| state.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
                (field("Name:").to_owned(), field("Cpus_allowed_list:").to_owned()) == expected
            })
        });
    }
}

/// The kernel spreads connections by chance: with four workers, each gets 25 % of a thousand, give or take 1.4 % (one
/// standard deviation). Five and a half of these are allowed here.
#[test]
fn connections_are_spread_over_the_workers() {
    let mut proxy = Setup::new().workers(4).start();
    (0..1000).for_each(|_| assert_eq!(proxy.client().get("__ping__", "/").status(), 200));
    // It is told while it runs, and once more at the end.
    proxy.signal(Signal::SIGUSR1);
    until("the counts are told", || proxy.stderr().contains("so far; accepted_connections 1"));
    let stderr = proxy.stderr();
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.until_exit().success());
    assert_eq!(proxy.stderr().matches("connections of each worker: ").count(), 2);
    let counts = stderr.lines().find_map(|line| line.split_once("connections of each worker: ")).expect("the counts").1;
    let counts: Vec<u64> = counts.split(", ").map(|count| count.parse().expect("a number")).collect();
    // Those that wait for the proxy to accept at its start count too.
    assert!((1000..1010).contains(&counts.iter().sum::<u64>()), "{counts:?}");
    assert!(counts.len() == 4 && counts.iter().all(|count| (175..=325).contains(count)), "{counts:?}");
}

/// The text of `/proc/<pid>/task/<task>/status` for every thread.
fn task_states(proxy: &Proxy) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the proxy's threads");
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect()
}

#[test]
fn root_becomes_www_data_after_binding() {
    if !getuid().is_root() {
        return;
    }
    let Ok(Some(account)) = User::from_name("www-data") else { return };
    let backend = Backend::always(canned::ok("ok"));
    let proxy = Setup::for_backends([backend.url()]).with_default_user().start();
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    until("every thread of the proxy has the other user, and no right of root's", || {
        task_states(&proxy).iter().all(|state| {
            let field = |name| state.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
            [("Uid:", &uid), ("Gid:", &gid)]
                .into_iter()
                .all(|(name, id)| field(name).split_whitespace().all(|it| it == id))
                && field("Groups:") == gid
                && field("CapEff:").trim_matches('0').is_empty()
        })
    });
    proxy.client().get(HOST, "/").expect_ok("ok");
}

/// The limit of open files is the hard one, and says how many clients there may be.
#[test]
fn open_files_are_as_many_as_the_system_allows() {
    let proxy = Setup::new().prelude("ulimit -Sn 256; ulimit -Hn 600; ").start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).expect("its limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit of open files");
    assert_eq!(files.split_whitespace().filter(|word| *word == "600").count(), 2, "{files}");
    until("it is told", || proxy.stderr().contains("600 open files: up to 118 connections for each of 2 workers"));
    let _silent: Vec<TcpStream> =
        (0..400).map(|_| TcpStream::connect(proxy.address()).expect("a place in the queue")).collect();
    let files = || fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("its files").count();
    until("both workers have taken in as many as they may", || files() > 2 * 118);
    assert!(!proxy.stderr().contains("accepting a connection"), "{}", proxy.stderr());
}

/// A proxy that this script starts, in which `"$PROGRAM" "$@"` is the program: it may lie where only root can go.
fn started_by(script: &str) -> Option<Setup> {
    if !getuid().is_root() {
        return None;
    }
    let setup = Setup::new();
    let program = setup.dir().join("started");
    let path = env!("CARGO_BIN_EXE_sluice");
    write_program(&program, &format!("#!/bin/sh\nexec 9<{path}\nPROGRAM=/proc/self/fd/9\n{script}\n"));
    Some(setup.program(&program))
}

fn users_of(proxy: &Proxy) -> BTreeSet<String> {
    let of = |state: &String| {
        let line = state.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    task_states(proxy).iter().flat_map(of).collect()
}

/// In a container the process may have a number that no file of users knows.
#[test]
fn a_user_without_a_name_serves() {
    let script = "exec setpriv --reuid 54321 --regid 54321 --clear-groups $PROGRAM \"$@\"";
    let Some(setup) = started_by(script) else { return };
    let backend = Backend::always(canned::ok("ok"));
    let proxy = setup.route(HOST, [backend.url()]).start();
    proxy.client().get(HOST, "/").expect_ok("ok");
    assert_eq!(users_of(&proxy), ["54321".to_owned()].into());
}

/// Small images have no user www-data.
#[test]
fn without_www_data_root_becomes_nobody() {
    let script = "cd ${0%/*}\ngrep -v ^www-data: /etc/passwd >passwd\ngrep -v ^www-data: /etc/group >group\n\
                  exec unshare --mount sh -c 'mount --bind passwd /etc/passwd && mount --bind group /etc/group && \
                  exec \"$@\"' sh $PROGRAM \"$@\"";
    let can = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    let Some(setup) = started_by(script).filter(|_| can.is_ok_and(|status| status.success())) else { return };
    let backend = Backend::always(canned::ok("ok"));
    let proxy = setup.route(HOST, [backend.url()]).with_default_user().start();
    proxy.client().get(HOST, "/").expect_ok("ok");
    assert!(proxy.stderr().contains("there is no user www-data here"), "{}", proxy.stderr());
    until("all threads have the other user", || users_of(&proxy) == ["65534".to_owned()].into());
}
