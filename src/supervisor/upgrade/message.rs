//! The messages between a process and its successor.
//!
//! A message is "sluice", the version of the format (two bytes), the length of the rest (four bytes, both big-endian)
//! and a JSON value. Parsing is strict: a message of another version, with a missing or an additional member, is a
//! [`Fault`], and its receiver ends the upgrade.

use crate::exchange::PortableExchange;
use crate::net::tls::PortableSession;
use crate::wire::forwarded::TlsPeer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const MAGIC: &[u8] = b"sluice";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 2 + 4;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Message {
    /// To the successor: the id of the predecessor, and the number of sockets that follow.
    Begin { pid: u32, sockets: usize },
    /// To the successor: the listening socket of an address. It carries the socket.
    Socket { address: SocketAddr },
    /// To the predecessor, before `Ready`: clients with an exchange of this version are taken. It is sent if the predecessor
    /// has announced the same version.
    TakesExchanges { version: u16 },
    /// To the predecessor: everything is loaded.
    Ready { pid: u32 },
    /// To the successor: serve. The upgrade cannot be undone from here on.
    Go,
    /// To the predecessor: connections are accepted.
    Serving,
    /// To the successor: an idle connection. It carries the connection.
    Client(Client),
    /// To the successor: a client with a tunnel or a response under way. Carries both connections; its bytes follow.
    Running(Box<Running>),
    /// To the successor: the clients of this batch are complete.
    Confirm { batch: u64 },
    /// To the predecessor: the clients at these places of the batch were taken. From now on they belong to the successor.
    Taken { batch: u64, places: Vec<u32> },
    /// To the successor: the last message, with the number of idle clients handed over.
    End { clients: u64 },
    /// To the predecessor: the upgrade failed.
    Failed { why: String },
    /// To the predecessor: the access log was renamed.
    ReopenLog,
}

/// The state of a client besides its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    /// The address of its peer.
    pub(super) address: IpAddr,
    /// The local port.
    pub(super) local_port: u16,
    /// The number of responses on this connection.
    pub(super) served: u32,
    /// The PROXY header's addresses: the two ends of the client's connection to the proxy.
    pub(super) told: Option<(SocketAddr, SocketAddr)>,
    /// Its TLS session; only for processes that take exchanges of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<ClientTls>,
}

/// The TLS session of a client, which the kernel continues, and the facts of its handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientTls {
    /// The session.
    pub(super) session: PortableSession,
    /// The server name that the client asked for.
    pub(super) server_name: Option<Box<str>>,
    /// The subject of the client's certificate.
    pub(super) subject: Option<String>,
    /// The names of the certificate that the client was shown.
    pub(super) shown: Option<Vec<String>>,
}

impl ClientTls {
    pub(super) fn new(session: PortableSession, peer: Option<&TlsPeer>) -> Self {
        let peer = peer.cloned().unwrap_or_default();
        let subject = peer.subject.map(|subject| String::clone(&subject));
        let shown = peer.shown.map(|shown| shown.to_vec());
        Self { session, server_name: peer.server_name, subject, shown }
    }

    pub(super) fn peer(&self) -> TlsPeer {
        TlsPeer {
            server_name: self.server_name.clone(),
            subject: self.subject.clone().map(Arc::new),
            shown: self.shown.as_deref().map(Arc::from),
        }
    }
}

/// The state of a client with an exchange, without its two connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Running {
    /// Its place in the batch.
    pub(super) place: u32,
    /// The client.
    pub(super) client: Client,
    /// The TLS session of the connection to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upstream_session: Option<PortableSession>,
    /// The sides, client and backend, whose stream ends after the bytes for them.
    pub(super) closing: [bool; 2],
    /// The lengths of the parts of its bytes, in the order of `RunningBytes::parts`.
    pub(super) lengths: [usize; 5],
    /// The state of the exchange.
    pub(super) state: PortableExchange,
}

/// Why bytes are not a valid message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They do not begin with "sluice".
    Foreign,
    /// They are of another version.
    Version(u16),
    /// Their length differs from the stated one.
    Torn,
    /// Their content is invalid.
    Content(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("the bytes received are not a message of sluice"),
            Self::Version(version) => write!(
                f,
                "the other process speaks version {version} of the hand-over, and this one version {VERSION}: these two \
                 cannot follow each other without a restart"
            ),
            Self::Torn => f.write_str("a message is not as long as it says"),
            Self::Content(problem) => write!(f, "a message cannot be understood: {problem}"),
        }
    }
}

impl Message {
    /// The number of its open files.
    pub(super) fn files(&self) -> usize {
        match self {
            Self::Socket { .. } | Self::Client(_) => 1,
            Self::Running(_) => 2,
            _ => 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("values of plain text and numbers");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + json.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&json);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Fault::Foreign)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(Fault::Torn)?;
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let (length, json) = rest.split_first_chunk::<4>().ok_or(Fault::Torn)?;
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(json.len()) {
            return Err(Fault::Torn);
        }
        serde_json::from_slice(json).map_err(|error| Fault::Content(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        vec![
            Message::Begin { pid: 7, sockets: 4 },
            Message::Socket { address: "[::1]:80".parse().expect("an address") },
            Message::Ready { pid: 8 },
            Message::Go,
            Message::Serving,
            Message::Client(Client {
                address: "10.0.0.1".parse().expect("an address"),
                local_port: 80,
                served: 3,
                told: None,
                tls: None,
            }),
            Message::Client(Client {
                address: "::1".parse().expect("an address"),
                local_port: 65_535,
                served: 0,
                told: Some((([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 443).into())),
                tls: None,
            }),
            Message::TakesExchanges { version: 1 },
            Message::Confirm { batch: 7 },
            Message::Taken { batch: 7, places: vec![0, 2] },
            Message::End { clients: u64::MAX },
            Message::Failed { why: "\"quoted\"\nand a second line".to_owned() },
            Message::ReopenLog,
        ]
    }

    /// A client with a tunnel.
    const RUNNING: &str = r#"{"running":{"place":3,"client":{"address":"10.0.0.1","local_port":80,"served":3,"told":null},"closing":[false,true],"lengths":[9,0,0,70000,1],"state":{"progress":{"tunnel":{"client_ended":false,"upstream_ended":false,"upstream_write_closed":false,"frames":null}},"stats":{"status":101,"cache":null,"bytes_to_client":7,"has_backend":true,"queue_micros":1,"connect_micros":5,"first_byte_micros":6},"origin":{"host":"a","pattern":"a","frontend_id":"site","backend_url":"http://10.0.0.1:80","endpoint":"http://10.0.0.1:80","bucket":null,"counted_client":null,"elapsed":{"secs":9,"nanos":1},"timeouts":{"connect":null,"response":null,"body":null,"tunnel":null,"stream":null}},"due_in_micros":null}}}"#;

    #[test]
    fn a_client_with_an_exchange_arrives_as_it_was_sent() {
        let message = Message::decode(&framed(RUNNING)).expect("a message");
        assert_eq!((message.files(), message.encode()), (2, framed(RUNNING)));
    }

    fn framed(json: &str) -> Vec<u8> {
        let length = u32::try_from(json.len()).expect("a short text").to_be_bytes();
        [MAGIC, &VERSION.to_be_bytes(), &length, json.as_bytes()].concat()
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        for message in all() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_torn_wherever_that_happens() {
        for message in all() {
            let bytes = message.encode();
            for length in 0..bytes.len() {
                let expected = if length < MAGIC.len() { Fault::Foreign } else { Fault::Torn };
                assert_eq!(Message::decode(&bytes[..length]), Err(expected), "{length} bytes of {message:?}");
            }
            assert_eq!(Message::decode(&[&bytes[..], b" "].concat()), Err(Fault::Torn), "{message:?} and a byte");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = Message::Go.encode();
        bytes[7] = 9;
        assert_eq!(Message::decode(&bytes), Err(Fault::Version(9)));
        assert!(Fault::Version(9).to_string().contains("version 9"));
        assert_eq!(Message::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(Fault::Foreign));
    }

    #[test]
    fn nothing_is_missing_and_nothing_is_too_many() {
        let table = [
            r#"{"begin":{"pid":7}}"#,
            r#"{"begin":{"pid":7,"sockets":1,"more":1}}"#,
            r#"{"begin":{"pid":-7,"sockets":1}}"#,
            r#"{"socket":{"address":"somewhere"}}"#,
            r#"{"client":{"address":"10.0.0.1","local_port":65536,"served":1}}"#,
            r#"{"client":{"address":"10.0.0.1","local_port":80}}"#,
            r#"{"client":{"address":"10.0.0.1","local_port":80,"served":1,"more":1}}"#,
            r#""go"x"#,
            r#""went""#,
            "{}",
            "",
        ];
        for json in table {
            let found = Message::decode(&framed(json));
            assert!(matches!(found, Err(Fault::Content(_))), "{json}: {found:?}");
        }
    }
}
