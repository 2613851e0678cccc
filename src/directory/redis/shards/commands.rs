//! Packed commands, as the `redis` crate writes them: their arguments, the keys by which they are routed, and
//! transactions.

use super::slots::slot_of;
use std::ops::Range;

/// Commands that have to be executed by one server, in order: one command, or a transaction from `MULTI` to `EXEC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Their place in the packed bytes.
    pub(super) bytes: Range<usize>,
    /// Number of commands, and of replies.
    pub(super) count: usize,
    /// The slot; `None` if any server can execute them.
    pub(super) slot: Option<u16>,
}

/// Splits packed commands. Returns `None` if the bytes are no complete commands.
pub(super) fn units(packed: &[u8]) -> Option<Vec<Unit>> {
    let mut units: Vec<Unit> = Vec::new();
    let (mut at, mut is_in_transaction) = (0, false);
    while at < packed.len() {
        let start = at;
        let args = read_command(packed, &mut at)?;
        let name = args.first()?.to_ascii_uppercase();
        let slot = key_of(&name, &args).map(slot_of);
        match units.last_mut().filter(|_| is_in_transaction) {
            Some(unit) => {
                unit.bytes.end = at;
                unit.count += 1;
                unit.slot = unit.slot.or(slot);
            }
            None => units.push(Unit { bytes: start..at, count: 1, slot }),
        }
        is_in_transaction = name == b"MULTI" || is_in_transaction && name != b"EXEC";
    }
    Some(units)
}

/// The key that decides where a command is executed. A channel counts as a key: a publisher and its subscribers then
/// meet at one server, which can count them.
fn key_of<'p>(name: &[u8], args: &[&'p [u8]]) -> Option<&'p [u8]> {
    match name {
        b"PING" | b"ROLE" | b"INFO" | b"TIME" | b"CLUSTER" | b"MULTI" | b"EXEC" | b"SCAN" | b"COMMAND" => None,
        b"EVAL" | b"EVALSHA" => args.get(3).copied(),
        b"XREAD" => {
            let streams = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"))?;
            args.get(streams + 1).copied()
        }
        _ => args.get(1).copied(),
    }
}

/// The arguments of the command at `at`, which is moved behind it.
fn read_command<'p>(packed: &'p [u8], at: &mut usize) -> Option<Vec<&'p [u8]>> {
    let count = read_length(packed, at, b'*')?;
    let mut args = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let length = read_length(packed, at, b'$')?;
        args.push(packed.get(*at..at.checked_add(length)?)?);
        *at += length;
        (packed.get(*at..*at + 2)? == b"\r\n").then_some(())?;
        *at += 2;
    }
    Some(args)
}

fn read_length(packed: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    let rest = packed.get(*at..)?.strip_prefix(&[kind])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let length = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    *at += 1 + end + 2;
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::cmd;

    fn pack(lines: &[&str]) -> Vec<u8> {
        let command = |line: &&str| {
            let mut words = line.split(' ');
            let mut command = cmd(words.next().expect("a name"));
            words.for_each(|word| _ = command.arg(word));
            command.get_packed_command()
        };
        lines.iter().flat_map(command).collect()
    }

    #[test]
    fn commands_are_routed_by_their_first_key() {
        for (line, key) in [
            ("LRANGE frontend:a 0 -1", Some("frontend:a")),
            ("PUBLISH dead a;b", Some("dead")),
            ("EVAL script 3 {o} {o}:m {o}:l x", Some("o")),
            ("XREAD COUNT 1 BLOCK 500 STREAMS log 0-0", Some("log")),
            ("xread streams log 0-0", Some("log")),
            ("BLPOP list 0.25", Some("list")),
            ("PING", None),
            ("TIME", None),
            ("CLUSTER NODES", None),
            ("SCAN 0 MATCH x", None),
        ] {
            let packed = pack(&[line]);
            let slot = key.map(|key| slot_of(key.as_bytes()));
            assert_eq!(units(&packed), Some(vec![Unit { bytes: 0..packed.len(), count: 1, slot }]), "{line}");
        }
    }

    #[test]
    fn a_transaction_is_one_unit_and_bytes_that_are_no_commands_are_refused() {
        let lines = ["GET a", "MULTI", "SADD b 1", "EXPIRE b 2", "EXEC", "GET c"];
        let packed = pack(&lines);
        let found = units(&packed).expect("commands");
        let slots: Vec<_> = found.iter().map(|unit| (unit.count, unit.slot)).collect();
        assert_eq!(slots, [(1, Some(slot_of(b"a"))), (4, Some(slot_of(b"b"))), (1, Some(slot_of(b"c")))]);
        assert_eq!(found.iter().map(|unit| unit.bytes.len()).sum::<usize>(), packed.len());
        for end in 1..packed.len() {
            let whole = units(&packed[..end]);
            assert!(whole.is_none_or(|units| units.last().is_some_and(|unit| unit.bytes.end == end)), "{end}");
        }
        for bad in ["PING\r\n", "*1\r\n$9\r\nPING\r\n", "*x\r\n", "*0\r\n", "*1\r\n$99999999999999999999\r\n"] {
            assert_eq!(units(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
