//! Tests with a disk that loses power at any operation and any byte, and with a full disk.

use super::super::disk::Folder;
use super::super::file::parse;
use super::super::load::State;
use super::*;
use std::cell::{Cell, RefCell};
use std::fs;

/// A disk with the behaviour of a journalling file system: until it is synchronised, content may be lost from any byte
/// on, and names may be the old ones.
#[derive(Default)]
struct Model {
    files: RefCell<Vec<Vec<u8>>>,
    /// Bytes of each file that are safe.
    synced: RefCell<Vec<usize>>,
    names: RefCell<BTreeMap<String, usize>>,
    /// The sets of names since the last synchronisation, the oldest first: after a crash the disk has one of them.
    history: RefCell<Vec<BTreeMap<String, usize>>>,
    left: Cell<usize>,
    /// Operations fail instead of a power failure.
    room: Cell<usize>,
    refuses_links: Cell<bool>,
    /// The only file that cannot get a second name.
    stuck: RefCell<Option<String>>,
}

impl Model {
    fn new(operations: usize) -> Self {
        let model = Self { left: Cell::new(operations), room: Cell::new(usize::MAX), ..Self::default() };
        model.history.borrow_mut().push(BTreeMap::new());
        model
    }

    fn step(&self) -> io::Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other("the power is gone")),
        }
    }

    fn note_names(&self) {
        self.history.borrow_mut().push(self.names.borrow().clone());
    }

    fn at(&self, name: &str) -> io::Result<usize> {
        self.names.borrow().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A possible state of the files after a crash.
    fn after_crash(&self, rng: &mut fastrand::Rng) -> BTreeMap<String, String> {
        let history = self.history.borrow();
        let names = &history[rng.usize(..history.len())];
        let content = |file: usize| {
            let (bytes, synced) = (&self.files.borrow()[file], self.synced.borrow()[file]);
            String::from_utf8_lossy(&bytes[..rng.clone().usize(synced..=bytes.len())]).into_owned()
        };
        names.iter().map(|(name, file)| (name.clone(), content(*file))).collect()
    }
}

impl Disk for Model {
    fn create(&self, name: &str) -> io::Result<()> {
        self.step()?;
        self.files.borrow_mut().push(Vec::new());
        self.synced.borrow_mut().push(0);
        self.names.borrow_mut().insert(name.to_owned(), self.files.borrow().len() - 1);
        self.note_names();
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let room = self.room.get().checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        self.room.set(room);
        let file = self.at(name)?;
        self.files.borrow_mut()[file].extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            self.step()?;
            let file = self.at(name)?;
            self.synced.borrow_mut()[file] = self.files.borrow()[file].len();
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        if self.stuck.borrow().as_deref() == Some(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = self.at(from)?;
        self.names.borrow_mut().remove(from);
        self.names.borrow_mut().insert(to.to_owned(), file);
        self.note_names();
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        if self.refuses_links.get() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let file = self.at(from)?;
        if self.has(to)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.names.borrow_mut().insert(to.to_owned(), file);
        self.note_names();
        Ok(())
    }

    fn copy(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.files.borrow()[self.at(from)?].clone();
        if self.has(to)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.create(to)?;
        content.chunks(1).try_for_each(|piece| self.append(to, piece))?;
        self.sync(&[to.to_owned()])
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.names.borrow().contains_key(name))
    }

    fn is_same(&self, one: &str, other: &str) -> io::Result<bool> {
        let files = self.files.borrow();
        Ok(files[self.at(one)?] == files[self.at(other)?])
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step()?;
        self.names.borrow_mut().remove(name);
        self.note_names();
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.step()?;
        *self.history.borrow_mut() = vec![self.names.borrow().clone()];
        Ok(())
    }
}

fn cluster(version: u16) -> ClusterDefinition {
    let mut cluster = ClusterDefinition::new("x");
    cluster.apply(&[("port".to_owned(), version.to_string())]).expect("a good port");
    cluster
}

/// The version of the cluster in the files; `None` without a file.
fn version(files: &BTreeMap<String, String>) -> Option<u16> {
    let text = files.get("x.db")?;
    let read = parse("x", text, false).unwrap_or_else(|problem| panic!("{problem}: {text:?}"));
    read.definition.port
}

#[test]
fn a_crash_between_any_two_bytes_leaves_the_old_or_the_new_file() {
    let mut rng = fastrand::Rng::with_seed(1);
    let (old, new) = (file::render(&cluster(1)), file::render(&cluster(2)));
    // One operation for each byte, so that the power can fail between any two.
    let all = 2 * (old.len() + new.len() + 8);
    for operations in 0..all {
        let disk = Model::new(operations);
        let mut safe = None;
        let mut last = None;
        for version in [Some(1), Some(2), None] {
            last = version;
            let wanted = Wanted::from([("x".into(), version.map(|version| Arc::new(cluster(version))))]);
            if !write_all(&disk, &mut Preserver::default(), wanted, 1).wanted.is_empty() {
                break;
            }
            safe = version;
        }
        for _ in 0..4 {
            let found = version(&disk.after_crash(&mut rng));
            assert!(found == safe || found == last, "{operations} operations: {found:?}, not {safe:?} or {last:?}");
        }
    }
}

/// The failed writes of these, sorted.
fn failures(disk: &Model, wanted: impl IntoIterator<Item = (&'static str, Option<u16>)>) -> BTreeMap<Box<str>, String> {
    let wanted =
        wanted.into_iter().map(|(name, version)| (name.into(), version.map(|version| Arc::new(cluster(version)))));
    write_all(disk, &mut Preserver::default(), wanted.collect(), 9).problems
}

#[test]
fn on_a_full_disk_the_old_file_stays_until_there_is_room() {
    let disk = Model::new(usize::MAX);
    assert_eq!(failures(&disk, [("x", Some(1))]), BTreeMap::new());
    let length = file::render(&cluster(2)).len();
    for room in 0..length {
        disk.room.set(room);
        let problems = failures(&disk, [("x", Some(2))]);
        assert!(problems.len() == 1 && problems.contains_key("x"), "{problems:?}");
        let files = disk.after_crash(&mut fastrand::Rng::with_seed(room as u64));
        assert_eq!(version(&files), Some(1));
    }
    assert_eq!(disk.names.borrow().len(), 1, "what could not be written takes no room");
    disk.room.set(length);
    assert_eq!(failures(&disk, [("x", Some(2))]), BTreeMap::new());
    assert_eq!(version(&disk.after_crash(&mut fastrand::Rng::with_seed(0))), Some(2));
}

#[test]
fn a_cluster_that_cannot_be_written_keeps_no_other_from_the_disk() {
    let disk = Model::new(usize::MAX);
    *disk.stuck.borrow_mut() = Some("b.db".to_owned());
    let problems = failures(&disk, [("a", Some(1)), ("b", Some(1)), ("gone", None), ("x", Some(2))]);
    assert_eq!(problems.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"], "{problems:?}");
    let files = disk.after_crash(&mut fastrand::Rng::with_seed(0));
    assert!(files.contains_key("a.db") && version(&files) == Some(2));
}

/// A disk with a file of x0d, and the names of the files to be kept.
fn with_original(taken: &[(&str, &str)]) -> (Model, Preserver) {
    let disk = Model::new(usize::MAX);
    for (name, text) in [("x.db", "of x0d")].iter().chain(taken) {
        disk.create(name).and_then(|()| disk.append(name, text.as_bytes())).expect("a file");
        disk.sync(&[(*name).to_owned()]).and_then(|()| disk.sync_folder()).expect("a file");
    }
    let originals = vec![("x".into(), "x.db".to_owned())];
    let preserver = Preserver::begin(&disk, Findings { originals, ..Findings::default() });
    (disk, preserver)
}

#[test]
fn a_file_of_x0d_is_kept_before_it_is_replaced_or_it_is_not_replaced() {
    let wanted = || Wanted::from([("x".into(), Some(Arc::new(cluster(1))))]);
    let tables: [(&[_], _, _); 4] = [
        (&[], "x.db.x0d", 2),
        (&[("x.db.x0d", "another")], "x.db.x0d.2", 3),
        (&[("x.db.x0d", "of x0d")], "x.db.x0d", 2),
        (&[("x.db.x0d", ""), ("x.db.x0d.2", "of x0d")], "x.db.x0d.2", 3),
    ];
    for (taken, kept, count) in tables {
        for refuses_links in [false, true] {
            let (disk, mut preserver) = with_original(taken);
            disk.refuses_links.set(refuses_links);
            assert_eq!(write_all(&disk, &mut preserver, wanted(), 9).problems, BTreeMap::new());
            let files = disk.after_crash(&mut fastrand::Rng::with_seed(0));
            assert_eq!(files[kept], "of x0d", "{taken:?} {files:?}");
            assert_eq!((version(&files), files.len()), (Some(1), count), "{files:?}");
        }
    }
    // There is no room for a copy: the original stays.
    let (disk, mut preserver) = with_original(&[]);
    disk.refuses_links.set(true);
    disk.room.set(3);
    let problems = write_all(&disk, &mut preserver, wanted(), 9).problems;
    assert!(problems["x"].starts_with("keeping x.db, which x0d has written: "), "{problems:?}");
    assert_eq!(disk.after_crash(&mut fastrand::Rng::with_seed(0))["x.db"], "of x0d");
    // A removal would cost the original too.
    let removal = Wanted::from([("x".into(), None)]);
    assert_eq!(write_all(&disk, &mut preserver, removal, 9).problems.len(), 1);
    disk.room.set(usize::MAX);
    assert_eq!(write_all(&disk, &mut preserver, wanted(), 9).problems.len(), 0);
}

/// A folder of its own, removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-{name}-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("a file"));
        Self(folder)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a text")).collect();
        names.sort();
        names
    }

    fn load(&self) -> (Vec<ClusterDefinition>, Findings) {
        let loaded = State::load_files(&self.0);
        (loaded.clusters.into_iter().map(|(cluster, _)| cluster).collect(), loaded.findings)
    }

    fn store(&self, findings: Findings) -> Store {
        Store::start(Folder::new(&self.0), findings, Clock::new()).expect("a thread")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_folder_of_the_system_keeps_clusters_and_sets_damaged_files_aside_once_the_process_serves() {
    let files = [("bad.db", "[director]\nx"), ("bad.db.damaged", "older"), ("a b.db", "[director]\n")];
    let folder = Scratch::new("state", &files);
    fs::write(folder.0.join("y.7.draft"), "[dir").expect("a file");
    let (clusters, findings) = folder.load();
    assert_eq!(clusters, []);
    let store = folder.store(findings);
    for version in 1..=200 {
        store.save("x", Some(Arc::new(cluster(version))));
    }
    store.save("bad", Some(Arc::new(cluster(9))));
    store.save("gone", Some(Arc::new(cluster(9))));
    store.save("gone", None);
    assert!(!store.flush(Duration::ZERO));
    assert_eq!(folder.names(), ["a b.db", "bad.db", "bad.db.damaged", "y.7.draft"], "it does not serve yet");
    store.begin();
    assert!(store.flush(PATIENCE));
    assert_eq!(folder.names(), ["a b.db.damaged", "bad.db", "bad.db.damaged", "bad.db.damaged.2", "x.db"]);
    assert_eq!(folder.load().0.last(), Some(&cluster(200)));
    store.stop(PATIENCE);
}

#[test]
fn a_process_that_another_one_replaces_writes_nothing_more() {
    let folder = Scratch::new("retired", &[("x.db", "of the other one")]);
    let store = folder.store(Findings::default());
    store.save("x", Some(Arc::new(cluster(1))));
    store.retire();
    store.begin();
    store.save("x", Some(Arc::new(cluster(2))));
    store.stop(PATIENCE);
    assert!(store.flush(PATIENCE));
    assert_eq!(fs::read_to_string(folder.0.join("x.db")).expect("a file"), "of the other one");
}

#[test]
fn a_file_that_cannot_be_read_stays_and_its_name_is_reserved() {
    let folder = Scratch::new("unreadable", &[("good.db", &file::render(&cluster(1)))]);
    std::os::unix::fs::symlink("loop.db", folder.0.join("loop.db")).expect("a link to itself");
    fs::create_dir(folder.0.join("folder.db")).expect("a folder");
    let (clusters, findings) = folder.load();
    assert_eq!((clusters.len(), findings.damaged.len(), findings.reserved.len()), (1, 0, 2), "{findings:?}");
    let store = folder.store(findings);
    store.begin();
    assert!(store.reserved("loop").is_some_and(|problem| problem.starts_with("loop.db cannot be read: ")));
    store.save("loop", Some(Arc::new(cluster(9))));
    store.save("folder", None);
    assert!(store.flush(PATIENCE));
    assert_eq!(folder.names(), ["folder.db", "good.db", "loop.db"]);
    store.stop(PATIENCE);
}

#[test]
fn a_file_of_the_rewrite_does_not_come_back_where_that_of_this_program_was_damaged() {
    let conf = "[director]\nhealth-check-success-threshold=3\n";
    let folder = Scratch::new("rewrite", &[("a.db.damaged", "x"), ("a.cluster.conf", conf), ("b.cluster.conf", conf)]);
    let (clusters, findings) = folder.load();
    assert_eq!(clusters.iter().map(|cluster| &*cluster.name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(findings.originals.len(), 2, "both are kept before they are removed");
}

#[test]
fn of_two_clusters_for_the_same_requests_the_second_is_reserved_and_opens_no_port() {
    let text = |name: &str| file::render(&ClusterDefinition { name: name.into(), ..cluster(8080) });
    let other = file::render(&ClusterDefinition { name: "c".into(), ..cluster(8081) });
    let folder = Scratch::new("rivals", &[("a.db", &text("a")), ("b.db", &text("b")), ("c.db", &other)]);
    let settings = crate::directory::Settings {
        source: crate::directory::Source::Nothing,
        dns_refresh: PATIENCE,
        dns_servers: None,
        state_dir: Some(folder.0.clone()),
    };
    let state = State::load(&settings);
    assert_eq!(state.ports().collect::<Vec<_>>(), [8080, 8081]);
    let problem = &state.findings.reserved["b"];
    assert_eq!(problem, "a file of before the start stays: cluster a is for the same requests");
}
