//! The short run: the corpus, and mutations of it by a fixed seed.

use crate::mutate::Mutator;
use crate::targets;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of a target that the ordinary test run plays.
const MUTATIONS: usize = 8_000;

/// Plays a target.
pub(crate) fn play(target: &str) {
    let run = targets::ALL.iter().find(|(name, _)| *name == target).expect("a target").1;
    if let Ok(path) = std::env::var("FUZZ_INPUT") {
        return run(&fs::read(&path).unwrap_or_else(|error| panic!("reading {path}: {error}")));
    }
    let corpus = corpus(target);
    for (path, input) in &corpus {
        attempt(target, run, input, &path.display().to_string());
    }
    let inputs: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(&inputs);
    for number in 0..mutations() {
        attempt(target, run, &mutator.next(), &format!("mutation {number}"));
    }
}

/// A corpus that no target plays would look like a test.
pub(crate) fn check_corpora(targets: &[&str]) {
    let folders = fs::read_dir(corpora()).expect("the folder of the corpora").flatten();
    let folders: BTreeSet<_> = folders.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(folders, targets.iter().map(|target| (*target).to_owned()).collect());
}

fn attempt(target: &str, run: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let kept = std::env::temp_dir().join(format!("sluice-fuzz-{target}-{:08x}", crc32fast::hash(input)));
        fs::write(&kept, input).expect("keeping the input");
        eprintln!("{target} fails with {name}: {:?}", input.escape_ascii().to_string());
        eprintln!("once more: FUZZ_INPUT={} cargo test --test fuzz {target}", kept.display());
        std::panic::resume_unwind(panic);
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpora().join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()));
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let read = |path: PathBuf| (fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())), path);
    paths.into_iter().map(read).map(|(input, path)| (path, input)).collect()
}

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

fn mutations() -> usize {
    let set = std::env::var("FUZZ_MUTATIONS").ok();
    set.map_or(MUTATIONS, |text| text.parse().expect("FUZZ_MUTATIONS is a number"))
}
