//! The directory with its threads, a real file and real mail: edits of every kind reach all cores.

use mio::{Events, Poll, Token, Waker};
use sluice::base::clock::Clock;
use sluice::cluster::Route;
use sluice::directory::{self, Directory, LookupResult, RouteEvent, Settings, Source, SubscriberId};
use sluice::net::mailbox::{MailboxReceiver, mailbox};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const CORES: usize = 3;

/// An empty folder of one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("directory-{test}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A routes file in which `www.example.com` has one backend of this port.
fn routes(port: u16) -> String {
    format!(r#"{{"frontends": {{"www.example.com": ["x", "http://10.0.0.1:{port}"], "*.other": ["y"]}}}}"#)
}

/// Replaces a file as editors do.
fn rename_over(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(&new, path).expect("a rename");
}

/// A core that keeps what it hears.
struct Core {
    id: SubscriberId,
    poll: Poll,
    receiver: MailboxReceiver<RouteEvent>,
    clock: Clock,
}

impl Core {
    /// The next letter for which `wanted` gives something; others are dropped.
    fn hear<T>(&mut self, what: &str, mut wanted: impl FnMut(RouteEvent) -> Option<T>) -> T {
        let deadline = self.clock.now() + PATIENCE;
        let mut events = Events::with_capacity(4);
        loop {
            while let Some(event) = self.receiver.receive() {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            let left = deadline.since(self.clock.now());
            assert!(!left.is_zero(), "{:?} did not hear {what}", self.id);
            self.poll.poll(&mut events, Some(left)).expect("a poll");
        }
    }

    fn hear_change(&mut self, of: &str) {
        self.hear(&format!("a change of {of}"), |event| match event {
            RouteEvent::Changed { hosts, .. } => hosts.iter().any(|host| **host == *of).then_some(()),
            _ => None,
        });
    }

    fn look_up(&mut self, directory: &Directory, asked: &str) -> Option<Arc<Route>> {
        assert!(directory.lookup(self.id, asked.into(), None));
        self.hear(&format!("an answer for {asked}"), |event| match event {
            RouteEvent::LookedUp { host, result, .. } if *host == *asked => match result {
                LookupResult::Found(route) => Some(Some(route)),
                LookupResult::Unknown => Some(None),
                LookupResult::Failed(reason) => panic!("{reason}"),
            },
            _ => None,
        })
    }

    fn port(&mut self, directory: &Directory) -> u16 {
        let route = self.look_up(directory, "www.example.com").expect("a route");
        route.marks[0].backend.endpoint().port()
    }
}

fn try_start(path: &Path) -> Result<(Directory, Vec<Core>), directory::Error> {
    let clock = Clock::new();
    let settings = Settings {
        source: Source::File(path.to_owned()),
        dns_refresh: Duration::from_secs(60),
        dns_servers: None,
        state_dir: None,
    };
    let directory = directory::start(&settings, clock)?;
    let cores = (0..CORES)
        .map(|_| {
            let poll = Poll::new().expect("a poll");
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
            let (sender, receiver) = mailbox(1024, waker);
            Core { id: directory.join(sender), poll, receiver, clock }
        })
        .collect();
    Ok((directory, cores))
}

fn start(path: &Path) -> (Directory, Vec<Core>) {
    try_start(path).expect("a directory")
}

/// Makes an edit and waits until all cores know of it and use the new list.
fn check_edit(directory: &Directory, cores: &mut [Core], port: u16, edit: impl FnOnce(&str)) -> Duration {
    let clock = cores[0].clock;
    for core in cores.iter_mut() {
        core.port(directory);
    }
    let before = clock.now();
    edit(&routes(port));
    for core in cores.iter_mut() {
        core.hear_change("www.example.com");
    }
    let took = clock.now().since(before);
    for core in cores.iter_mut() {
        assert_eq!(core.port(directory), port);
    }
    took
}

#[test]
fn edits_of_every_kind_reach_all_cores() {
    let folder = folder("edits");
    let path = folder.join("routes.json");
    fs::write(&path, routes(1)).expect("a file");
    let (directory, mut cores) = start(&path);
    let mut times = Vec::new();
    for port in (2..12).step_by(2) {
        times.push(check_edit(&directory, &mut cores, port, |text| rename_over(&path, text)));
        times.push(check_edit(&directory, &mut cores, port + 1, |text| fs::write(&path, text).expect("a write")));
    }
    times.sort_unstable();
    println!("from the edit to the last core: {times:?}");
    // A busy machine may hold up most of them.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
    check_edit(&directory, &mut cores, 20, |text| {
        fs::remove_file(&path).expect("a removal");
        fs::write(&path, text).expect("a write");
    });
    directory.stop();
    assert!(!directory.lookup(cores[0].id, "www.example.com".into(), None), "after the stop nobody answers");
    directory.stop();
}

#[test]
fn links_are_followed() {
    let folder = folder("links");
    let path = folder.join("routes.json");
    let elsewhere = folder.join("elsewhere");
    for (name, port) in [("elsewhere", 1), ("..one", 2), ("..two", 3)] {
        fs::create_dir(folder.join(name)).expect("a folder");
        fs::write(folder.join(name).join("routes.json"), routes(port)).expect("a file");
    }
    // A link to a file in another folder, which is edited there.
    symlink("elsewhere/routes.json", &path).expect("a link");
    let (directory, mut cores) = start(&path);
    assert_eq!(cores[0].port(&directory), 1);
    check_edit(&directory, &mut cores, 11, |text| rename_over(&elsewhere.join("routes.json"), text));
    check_edit(&directory, &mut cores, 12, |text| {
        fs::write(elsewhere.join("routes.json"), text).expect("a write");
    });
    // A volume of Kubernetes: the link in the middle is renamed over.
    symlink("..one", folder.join("..data")).expect("a link");
    check_edit(&directory, &mut cores, 2, |_| {
        symlink("..data/routes.json", folder.join("new")).expect("a link");
        fs::rename(folder.join("new"), &path).expect("a rename");
    });
    check_edit(&directory, &mut cores, 3, |_| {
        symlink("..two", folder.join("..tmp")).expect("a link");
        fs::rename(folder.join("..tmp"), folder.join("..data")).expect("a rename");
        fs::remove_dir_all(folder.join("..one")).expect("a removal");
    });
    check_edit(&directory, &mut cores, 4, |text| {
        fs::write(folder.join("..two/routes.json"), text).expect("a write");
    });
    directory.stop();
}

#[test]
fn a_folder_that_comes_back_is_watched_again() {
    let folder = folder("folder");
    let path = folder.join("sub/routes.json");
    fs::create_dir(folder.join("sub")).expect("a folder");
    fs::write(&path, routes(1)).expect("a file");
    let (directory, mut cores) = start(&path);
    check_edit(&directory, &mut cores, 2, |text| {
        fs::rename(folder.join("sub"), folder.join("old")).expect("a rename");
        fs::create_dir(folder.join("sub")).expect("a folder");
        fs::write(&path, text).expect("a write");
    });
    check_edit(&directory, &mut cores, 3, |text| rename_over(&path, text));
    directory.stop();
}

#[test]
fn a_bad_edit_changes_nothing_and_unknown_hosts_become_known() {
    let folder = folder("bad");
    let path = folder.join("routes.json");
    fs::write(&path, routes(1)).expect("a file");
    let (directory, mut cores) = start(&path);
    let core = &mut cores[0];
    let first = core.look_up(&directory, "www.example.com").expect("a route");
    assert!(core.look_up(&directory, "unknown").is_none());
    assert_eq!(core.look_up(&directory, "a.b.other").expect("a route").marks.len(), 0);
    for bad in ["", "{", r#"{"frontends": {"www.example.com": ["x", "10.0.0.2"]}}"#, r#"{"frontends": []}"#] {
        rename_over(&path, bad);
        directory.reload();
    }
    fs::remove_file(&path).expect("a removal");
    directory.reload();
    let text = routes(1).replace("*.other", "unknown");
    rename_over(&path, &text);
    let (hosts, unknowns) = core.hear("the first change", |event| match event {
        RouteEvent::Changed { hosts, unknowns } => Some((hosts, unknowns)),
        _ => None,
    });
    assert_eq!(hosts.iter().map(|host| &**host).collect::<Vec<_>>(), ["a.b.other"]);
    assert!(unknowns);
    assert!(core.look_up(&directory, "unknown").is_some());
    assert!(core.look_up(&directory, "a.b.other").is_none());
    let last = core.look_up(&directory, "www.example.com").expect("a route");
    assert!(Arc::ptr_eq(&first, &last), "what no edit touched is the same");
    directory.stop();
}

#[test]
fn names_of_backends_are_resolved_and_told_to_all_cores() {
    let folder = folder("names");
    let path = folder.join("routes.json");
    fs::write(&path, r#"{"frontends": {"*": ["x", "http://localhost:8080"]}}"#).expect("a file");
    let (directory, mut cores) = start(&path);
    let [route, other] = [0, 1].map(|core| cores[core].look_up(&directory, "any").expect("a route"));
    assert!(Arc::ptr_eq(&route, &other), "all cores share a route");
    let backend = route.marks[0].backend.id();
    cores[2].hear("the addresses", |event| match event {
        RouteEvent::Addresses { backend: id } => (id == backend).then_some(()),
        _ => None,
    });
    let addresses = format!("{:?}", route.marks[0].backend.addresses());
    assert!(addresses.contains("127.0.0.1:8080") || addresses.contains("[::1]:8080"), "{addresses}");
    drop(directory);
}

#[test]
fn a_start_without_good_routes_is_an_error_with_its_place() {
    let folder = folder("start");
    let path = folder.join("routes.json");
    let fail = || try_start(&path).err().expect("an error").to_string();
    let shown = path.display();
    assert!(fail().starts_with(&format!("reading the routes file {shown}: ")), "{}", fail());
    fs::write(&path, "{\"frontends\": {\n \"a\": [\"x\", \"y\"],\n \"b\": []}}").expect("a file");
    assert_eq!(
        fail(),
        format!(
            "{shown}: line 2, column 13: frontends[\"a\"][1]: found \"y\", expected http://host:port or https://host:port\n\
             {shown}: line 3, column 7: frontends[\"b\"]: found an empty list, \
             expected a list of an identifier and URLs of backends"
        )
    );
    fs::remove_file(&path).expect("a removal");
    fs::create_dir(&path).expect("a folder");
    assert!(fail().ends_with("it is no regular file"), "{}", fail());
}
