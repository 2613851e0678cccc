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
        let file = self.at(from)?;
        self.names.borrow_mut().remove(from);
        self.names.borrow_mut().insert(to.to_owned(), file);
        self.note_names();
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let Ok(file) = self.at(from) else { return Ok(()) };
        self.names.borrow_mut().entry(to.to_owned()).or_insert(file);
        self.note_names();
        Ok(())
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
            if write_all(&disk, wanted, 1).1.is_some() {
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

#[test]
fn on_a_full_disk_the_old_file_stays_until_there_is_room() {
    let disk = Model::new(usize::MAX);
    let wanted = |version: u16| Wanted::from([("x".into(), Some(Arc::new(cluster(version))))]);
    assert!(write_all(&disk, wanted(1), 9).0.is_empty());
    let length = file::render(&cluster(2)).len();
    for room in 0..length {
        disk.room.set(room);
        let (left, problem) = write_all(&disk, wanted(2), 9);
        assert!(left.len() == 1 && problem.is_some_and(|problem| problem.starts_with("the file of x: ")));
        let files = disk.after_crash(&mut fastrand::Rng::with_seed(room as u64));
        assert_eq!(version(&files), Some(1));
    }
    assert!(!disk.names.borrow().contains_key("x.draft"), "what could not be written takes no room");
    disk.room.set(length);
    assert!(write_all(&disk, wanted(2), 9).0.is_empty());
    assert_eq!(version(&disk.after_crash(&mut fastrand::Rng::with_seed(0))), Some(2));
}

#[test]
fn a_folder_of_the_system_keeps_clusters_and_sets_damaged_files_aside() {
    let folder = std::env::temp_dir().join(format!("sluice-state-{}", std::process::id()));
    let store = Store::start(Folder::new(&folder.join("state"))).expect("a thread");
    for version in 1..=200 {
        store.save("x", Some(Arc::new(cluster(version))));
    }
    store.save("gone", Some(Arc::new(cluster(9))));
    store.save("gone", None);
    assert!(store.flush(Duration::from_secs(20)));
    let state = folder.join("state");
    for (name, text) in [("bad.db", "[director]\nx"), ("a b.db", "[director]\n"), ("y.draft", "[dir")] {
        fs::write(state.join(name), text).expect("a file");
    }
    let loaded = State::load_files(&state);
    let clusters: Vec<_> = loaded.clusters.into_iter().map(|(cluster, _)| cluster).collect();
    assert_eq!(clusters, [cluster(200)]);
    let mut names: Vec<_> =
        fs::read_dir(&state).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["a b.db.damaged", "bad.db.damaged", "x.db"]);
    store.stop(Duration::from_secs(20));
    fs::remove_dir_all(&folder).expect("the folder goes");
}
