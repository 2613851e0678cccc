//! An object as a file: a mark of the format, the checksum of the rest, the head in the form of [`portable`], and the
//! body. Only the account of this process can read it. Links, pipes and devices are not followed.

use crate::cache::body::{BodyBuilder, BodyFault};
use crate::cache::object::Object;
use crate::cache::portable::{self, Message, PREFIX, PortableObject};
use crate::cache::store::Store;
use crate::cache::tier::FileName;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 16] = b"sluice object 1\n";

/// The bytes of a checksum (XXH3, 64 bits).
const CHECKSUM: usize = 8;

/// The unit in which the disk space of files is counted.
const BLOCK: u64 = 4096;

/// The size of one read or write.
const ROOM: usize = 256 * 1024;

/// The ending of a file that is being written.
const UNFINISHED: &str = ".tmp";

/// Flags of every open: a link is an error, and a pipe is not waited for.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

impl FileName {
    /// Its path. Files are spread over 256 folders.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:02x}", self.key >> 120)).join(format!("{:032x}-{:016x}", self.key, self.variant))
    }

    /// Parses the name of a file, and whether it is a draft.
    pub(super) fn parse(name: &str) -> Option<(Self, bool)> {
        let is_hex =
            |text: &str, len| text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let (name, is_unfinished) = name.strip_suffix(UNFINISHED).map_or((name, false), |name| (name, true));
        let (key, variant) = name.split_once('-').filter(|(key, variant)| is_hex(key, 32) && is_hex(variant, 16))?;
        let name = Self { key: u128::from_str_radix(key, 16).ok()?, variant: u64::from_str_radix(variant, 16).ok()? };
        Some((name, is_unfinished))
    }
}

/// The disk space of a file of this length.
pub(super) fn taken(len: u64) -> u64 {
    len.div_ceil(BLOCK) * BLOCK
}

/// Writes an object, and returns the length of its file. The file is complete or absent in any case. `None` for an
/// object that cannot be written as a file.
pub(super) fn write(folder: &Path, name: FileName, key: &[u8], object: &Object) -> io::Result<Option<u64>> {
    let Some(head) = portable::encode_object(key, object) else { return Ok(None) };
    let body = || object.body.slices(0..object.body.len());
    let mut checksum = Xxh3::new();
    checksum.update(&head);
    body().for_each(|slice| checksum.update(slice));
    let path = name.path(folder);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let written = create(&unfinished).and_then(|file| {
        let mut out = BufWriter::with_capacity(ROOM, file);
        out.write_all(MAGIC)?;
        out.write_all(&checksum.digest().to_be_bytes())?;
        out.write_all(&head)?;
        body().try_for_each(|slice| out.write_all(slice))?;
        out.flush()?;
        fs::rename(&unfinished, &path)
    });
    match written {
        Ok(()) => Ok(Some((MAGIC.len() + CHECKSUM + head.len()) as u64 + object.body.len())),
        Err(error) => {
            // An incomplete file is useless, and may be what fills the disk.
            let _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Makes an empty file in place of an unfinished one.
fn create(path: &Path) -> io::Result<File> {
    let new = || File::options().write(true).create_new(true).mode(0o600).custom_flags(FLAGS).open(path);
    let parent = path.parent().unwrap_or(path);
    if fs::symlink_metadata(parent).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(io::Error::new(ErrorKind::NotADirectory, format!("{} is not a folder", parent.display())));
    }
    match new() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_folder(parent)?;
            new()
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            new()
        }
        created => created,
    }
}

/// Makes a folder, and those that it is in, if they are missing.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens the file whose lock marks the owner of the folder.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).custom_flags(FLAGS).open(path)?;
    ordinary(file, path)
}

/// The paths in one of the 256 folders; none where a link is in its place.
pub(super) fn paths_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir());
    let entries = is_folder.then(|| fs::read_dir(folder).ok()).flatten();
    entries.into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Removes a file, or empties it if it cannot be removed: an empty file is no object.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let Err(error) = fs::remove_file(path) else { return Ok(()) };
    if error.kind() == ErrorKind::NotFound {
        return Ok(());
    }
    let emptied = File::options().write(true).custom_flags(FLAGS).open(path).and_then(|file| file.set_len(0));
    emptied.map_err(|_| error)
}

fn open(path: &Path) -> io::Result<File> {
    ordinary(File::options().read(true).custom_flags(FLAGS).open(path)?, path)
}

fn ordinary(file: File, path: &Path) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is not an ordinary file", path.display()))),
    }
}

/// The reason why a file has no object.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is absent or unreadable.
    Io(io::Error),
    /// It is corrupt.
    Corrupt,
    /// There is no room for the object in memory now.
    NoRoom,
    /// The object is larger than memory takes one.
    TooLarge,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof { Self::Corrupt } else { Self::Io(error) }
    }
}

/// Reads the head of a file, and its length. The checksum is not verified, because it covers the whole file.
pub(super) fn read_head(path: &Path) -> Result<(PortableObject, u64), Fault> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    let (object, _, _) = read_start(&mut BufReader::with_capacity(BLOCK as usize, file))?;
    Ok((object, len))
}

/// Reads an object of this key, with memory of the store's budget.
pub(super) fn read(path: &Path, key: &[u8], store: &Store) -> Result<Object, Fault> {
    let mut input = BufReader::with_capacity(ROOM, open(path)?);
    let (object, expected, mut checksum) = read_start(&mut input)?;
    // The key has the same hash, and may be another one nevertheless.
    if *object.key != *key {
        return Err(Fault::Corrupt);
    }
    let len = object.len;
    let mut builder = BodyBuilder::within(len, store.largest(), store.budget())?;
    let mut room = vec![0; ROOM];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
        let part = room.split_at_mut(part).0;
        input.read_exact(part)?;
        left -= part.len() as u64;
        checksum.update(part);
        builder.push(part)?;
    }
    let is_at_end = input.read(&mut [0])? == 0;
    if !is_at_end || checksum.digest() != expected {
        return Err(Fault::Corrupt);
    }
    Ok(object.with_body(builder.finish()?).1)
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::NoRoom => Self::NoRoom,
            BodyFault::TooLarge => Self::TooLarge,
            BodyFault::Incomplete => Self::Corrupt,
        }
    }
}

fn read_start(input: &mut impl Read) -> Result<(PortableObject, u64, Xxh3), Fault> {
    let (mut magic, mut expected, mut prefix) = ([0; MAGIC.len()], [0; CHECKSUM], [0; PREFIX]);
    input.read_exact(&mut magic)?;
    input.read_exact(&mut expected)?;
    input.read_exact(&mut prefix)?;
    let len = portable::prefix(prefix).filter(|_| magic == *MAGIC).ok_or(Fault::Corrupt)?;
    let mut rest = vec![0; len as usize];
    input.read_exact(&mut rest)?;
    let Some(Message::Object(object)) = portable::decode(&rest) else { return Err(Fault::Corrupt) };
    let mut checksum = Xxh3::new();
    checksum.update(&prefix);
    checksum.update(&rest);
    Ok((*object, u64::from_be_bytes(expected), checksum))
}
