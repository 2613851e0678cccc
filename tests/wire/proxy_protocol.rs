//! The PROXY protocol: headers of both versions whole, byte by byte and with something behind them, and what is none.

use sluice::wire::proxy_protocol::{Fault, Header, LONGEST, ProxyAddresses, Version, parse, write};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with these four bytes and this content; its length is the content's.
fn block(version_and_command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a length of two bytes").to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &len, content].concat()
}

fn ends(source: &str, destination: &str) -> Option<ProxyAddresses> {
    let [source, destination] = [source, destination].map(|text| text.parse().expect("an address and a port"));
    Some(ProxyAddresses { source, destination })
}

/// What is found, whatever the pieces are in which it comes.
fn feed(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let found = parse(bytes);
    let len = if let Ok(Some(header)) = found { header.len } else { bytes.len() };
    for end in 0..len {
        let early = parse(&bytes[..end]);
        assert!(early == Ok(None) || (early.is_err() && early == found), "{early:?} at {end}, and then {found:?}");
    }
    if found.is_ok_and(|header| header.is_some()) {
        assert_eq!(parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()), found, "with something behind");
    }
    found
}

#[test]
fn lines_of_version_1() {
    let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".to_owned() + &" ".repeat(48) + "\r\n";
    assert_eq!(longest.len(), 107);
    let table = [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ends("192.0.2.1:56324", "198.51.100.2:443")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n", ends("255.255.255.255:0", "0.0.0.0:65535")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", ends("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n", ends("192.0.2.1:1", "198.51.100.2:2")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN whatever that may be\r\n", None),
        (longest.as_str(), None),
    ];
    for (line, expected) in table {
        assert_eq!(feed(line.as_bytes()), Ok(Some(Header { len: line.len(), ends: expected })), "{line:?}");
    }
}

#[test]
fn lines_that_are_none() {
    let table = [
        ("GET / HTTP/1.1\r\n", Fault::Signature),
        ("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Fault::Signature),
        ("PROXY\tTCP4 192.0.2.1 198.51.100.2 1 2\r\n", Fault::Signature),
        ("\r\nPROXY UNKNOWN\r\n", Fault::Signature),
        ("\x16\x03\x01\x02", Fault::Signature),
        ("PROXY \r\n", Fault::Line),
        ("PROXY UNKNOWN\n", Fault::Line),
        ("PROXY UNKNOWNX\r\n", Fault::Line),
        ("PROXY TCP4\r\n", Fault::Line),
        ("PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Fault::Line),
        ("PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", Fault::Line),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Fault::Line),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 \u{661} 2\r\n", Fault::Line),
    ];
    for (line, expected) in table {
        assert_eq!(feed(line.as_bytes()), Err(expected), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    assert_eq!(feed(endless.as_bytes()), Err(Fault::TooLong));
    assert_eq!(feed(b"PROXY TCP4 \xff\r\n"), Err(Fault::Line));
}

#[test]
fn blocks_of_version_2() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
    let mut v6 = [0; 36];
    (v6[0], v6[15], v6[31]) = (0x20, 1, 2);
    v6[32..].copy_from_slice(&[0, 80, 0x1f, 0x90]);
    let tlvs = [&v4[..], &[0x04, 0, 3, 1, 2, 3], &[0x20; 700]].concat();
    let long = vec![0; LONGEST - 16];
    let told = ends("192.0.2.1:56324", "198.51.100.2:443");
    let table = [
        (block(0x21, 0x11, &v4), told),
        (block(0x21, 0x11, &tlvs), told),
        (block(0x21, 0x21, &v6), ends("[2000::1]:80", "[::2]:8080")),
        // LOCAL: its addresses mean nothing, whatever they are.
        (block(0x20, 0x11, &v4), None),
        (block(0x20, 0x00, b""), None),
        (block(0x20, 0x21, b"short"), None),
        // UNSPEC, datagrams, UNIX sockets.
        (block(0x21, 0x00, b""), None),
        (block(0x21, 0x00, &v4), None),
        (block(0x21, 0x12, &v4), None),
        (block(0x21, 0x31, &[b'/'; 216]), None),
        (block(0x21, 0x00, &long), None),
    ];
    for (bytes, expected) in table {
        assert_eq!(feed(&bytes), Ok(Some(Header { len: bytes.len(), ends: expected })), "{:02x?}", &bytes[12..16]);
    }
}

#[test]
fn blocks_that_are_none() {
    let table = [
        (block(0x11, 0x11, &[0; 12]), Fault::Version),
        (block(0x22, 0x11, &[0; 12]), Fault::Version),
        (block(0x31, 0x11, &[0; 12]), Fault::Version),
        (block(0x21, 0x41, &[0; 12]), Fault::Family),
        (block(0x21, 0x13, &[0; 12]), Fault::Family),
        (block(0x21, 0x11, &[0; 11]), Fault::TooShort),
        (block(0x21, 0x21, &[0; 35]), Fault::TooShort),
        (block(0x21, 0x11, b""), Fault::TooShort),
        (block(0x21, 0x00, &vec![0; LONGEST - 15]), Fault::TooLong),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Fault::Signature),
    ];
    for (bytes, expected) in table {
        assert_eq!(feed(&bytes), Err(expected), "{:02x?}", bytes.get(12..16));
    }
}

#[test]
fn what_is_written_is_read_again() {
    let table = [
        ends("192.0.2.1:56324", "198.51.100.2:443"),
        ends("[2001:db8::1]:1", "[::1]:65535"),
        ends("192.0.2.1:1", "[::1]:2"),
        None,
    ];
    for ends in table {
        for version in [Version::V1, Version::V2] {
            let mut out = Vec::new();
            write(version, ends, &mut out);
            assert_eq!(feed(&out), Ok(Some(Header { len: out.len(), ends })), "{version:?} of {ends:?}");
        }
    }
    let mut line = Vec::new();
    write(Version::V1, ends("192.0.2.1:1", "[::1]:2"), &mut line);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
}
