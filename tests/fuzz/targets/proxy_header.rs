//! The header of the PROXY protocol: however it is cut it means the same, and what was understood can be written.

use sluice::wire::proxy_protocol::{Header, LONGEST, Version, parse, write};

pub(crate) fn run(bytes: &[u8]) {
    let found = parse(bytes);
    let len = found.ok().flatten().map_or(bytes.len(), |header| header.len);
    assert!(len <= bytes.len());
    assert!(found != Ok(None) || bytes.len() < LONGEST, "no end after {} bytes", bytes.len());
    for cut in super::cuts(len) {
        let early = parse(&bytes[..cut]);
        assert!(early == Ok(None) || (early.is_err() && early == found), "{early:?} at {cut}, then {found:?}");
    }
    let Ok(Some(header)) = found else { return };
    assert_eq!(parse(&bytes[..len]), found, "what follows the header changes it");
    for version in [Version::V1, Version::V2] {
        let mut out = Vec::new();
        write(version, header.ends, &mut out);
        assert_eq!(parse(&out), Ok(Some(Header { len: out.len(), ends: header.ends })), "written as {version:?}");
    }
}
