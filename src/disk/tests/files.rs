//! The files themselves: who may read them, and other things in their places.

use super::*;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::os::unix::fs::{PermissionsExt, symlink};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn only_this_account_reads_the_files() {
    let folder = Folder::new("modes");
    let store = folder.open(64 << 20);
    put(&store, "a", "en", b"x");
    settle(&store);
    let file = folder.files().pop().expect("a file");
    let folders = [&folder.0, file.parent().expect("its folder")];
    assert_eq!(folders.map(mode), [0o700; 2]);
    assert_eq!([mode(&file), mode(&folder.0.join("sluice-cache.lock"))], [0o600; 2]);
}

/// Links are neither read nor written through, and a pipe stops nothing.
#[test]
fn links_and_pipes_are_not_followed() {
    let folder = Folder::new("links");
    let old = folder.open(64 << 20);
    ["a", "b", "c"].iter().for_each(|host| put(&old, host, "en", b"text"));
    settle(&old);
    let path = |host: &str| FileName::of(host.as_bytes(), &object(host, "en", b"")).path(&folder.0);
    let draft = |host: &str| path(host).with_extension("tmp");
    let outside = folder.0.join("outside");
    fs::rename(path("a"), &outside).expect("a file");
    symlink(&outside, path("a")).expect("a link");
    fs::remove_file(path("b")).expect("a file");
    mkfifo(&path("b"), Mode::S_IRWXU).expect("a pipe");
    let before = fs::read(&outside).expect("a file");
    let new = restart(&folder, &old, 64 << 20);
    assert_eq!(["a", "b", "c"].map(|host| load(&new, host, "en").is_some()), [false, false, true]);
    symlink(&outside, draft("a")).expect("a link");
    fs::write(draft("b"), "of a process that was killed").expect("a file");
    ["a", "b"].iter().for_each(|host| put(&new, host, "en", b"newer"));
    settle(&new);
    assert_eq!(count(&new, "failed"), 0);
    let newest = restart(&folder, &new, 64 << 20);
    assert_eq!(["a", "b"].map(|host| load(&newest, host, "en")), [Some(b"newer".to_vec()), Some(b"newer".to_vec())]);
    assert_eq!(fs::read(&outside).expect("a file"), before);
}

#[test]
fn a_folder_that_is_a_link_is_not_used() {
    let (folder, elsewhere) = (Folder::new("linked"), Folder::new("elsewhere"));
    let old = folder.open(64 << 20);
    put(&old, "a", "en", b"text");
    settle(&old);
    let file = folder.files().pop().expect("a file");
    let within = file.parent().expect("its folder");
    fs::rename(within, &elsewhere.0).expect("a folder");
    symlink(&elsewhere.0, within).expect("a link");
    let new = restart(&folder, &old, 64 << 20);
    assert_eq!(load(&new, "a", "en"), None);
    put(&new, "a", "en", b"newer");
    settle(&new);
    assert_eq!(count(&new, "failed"), 1);
    let name = file.file_name().expect("a name");
    assert_eq!(fs::read_dir(&elsewhere.0).expect("a folder").count(), 1);
    assert!(elsewhere.0.join(name).exists());
}

/// A purge that cannot remove its file is reported, and completed once that is possible.
#[test]
fn a_file_that_cannot_be_removed_is_reported_until_it_is() {
    let folder = Folder::new("leftover");
    let old = folder.open(64 << 20);
    ["a", "b"].iter().for_each(|host| put(&old, host, "en", b"text"));
    settle(&old);
    let path = FileName::of(b"a", &object("a", "en", b"")).path(&folder.0);
    let bytes = fs::read(&path).expect("a file");
    // A folder in its place stays.
    fs::remove_file(&path).expect("a file");
    fs::create_dir(&path).expect("a folder");
    old.invalidate(b"a");
    assert!(!old.settle(PATIENCE), "the file is left");
    assert!(old.tier().expect("a tier").has_leftovers());
    // The cause is gone, and the file is back.
    fs::remove_dir(&path).expect("a folder");
    fs::write(&path, bytes).expect("a file");
    assert!(old.settle(PATIENCE), "it is removed now");
    assert!(!path.exists() && !old.tier().expect("a tier").has_leftovers());
    // A newer object is not removed in its place.
    fs::create_dir(&path).expect("a folder");
    old.invalidate(b"a");
    put(&old, "b", "en", b"newer");
    fs::remove_dir(&path).expect("a folder");
    settle(&old);
    assert_eq!(load(&old, "b", "en").as_deref(), Some(&b"newer"[..]));
}

/// A copy of a file under another name is not the object of that name.
#[test]
fn a_file_under_another_name_is_dropped() {
    let folder = Folder::new("renamed");
    let old = folder.open(64 << 20);
    put(&old, "a", "en", b"text");
    settle(&old);
    let from = folder.files().pop().expect("a file");
    let to = FileName::of(b"a", &object("a", "de", b"")).path(&folder.0);
    fs::copy(from, &to).expect("a copy");
    let new = restart(&folder, &old, 64 << 20);
    assert!(!to.exists());
    assert_eq!((count(&new, "corrupt"), load(&new, "a", "en").is_some()), (1, true));
}
