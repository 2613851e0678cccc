//! An object as a file: a mark of the format, the checksum of the rest, the head in the form of [`portable`], and the
//! body.

use crate::cache::body::{BodyBuilder, BodyFault};
use crate::cache::object::Object;
use crate::cache::portable::{self, Message, PREFIX, PortableObject};
use crate::cache::store::Store;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: &[u8; 16] = b"sluice object 1\n";

/// The bytes of a checksum (XXH3, 64 bits).
const CHECKSUM: usize = 8;

/// The unit in which the disk space of files is counted.
const BLOCK: u64 = 4096;

/// The size of one read or write.
const ROOM: usize = 256 * 1024;

/// The ending of a file that is being written.
const UNFINISHED: &str = ".tmp";

/// The name of a file: the hashes of its key and of its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileName {
    pub(super) key: u128,
    pub(super) variant: u64,
}

impl FileName {
    pub(super) fn of(key: u128, object: &Object) -> Self {
        Self { key, variant: xxh3_64(&object.variant.to_bytes()) }
    }

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

fn create(path: &Path) -> io::Result<File> {
    match File::create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            File::create(path)
        }
        created => created,
    }
}

/// The reason why a file has no object.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is absent or unreadable.
    Io(io::Error),
    /// It is corrupt.
    Corrupt,
    /// There is no room for the object in memory.
    NoRoom,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Corrupt } else { Self::Io(error) }
    }
}

/// Reads the head of a file, and its length. The checksum is not verified, because it covers the whole file.
pub(super) fn read_head(path: &Path) -> Result<(PortableObject, u64), Fault> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let (object, _, _) = read_start(&mut BufReader::with_capacity(BLOCK as usize, file))?;
    Ok((object, len))
}

/// Reads an object of this key, with memory of the store's budget.
pub(super) fn read(path: &Path, key: &[u8], store: &Store) -> Result<Object, Fault> {
    let mut input = BufReader::with_capacity(ROOM, File::open(path)?);
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
            BodyFault::NoRoom | BodyFault::TooLarge => Self::NoRoom,
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
