//! A client of DNS: one question, one response, by UDP and by TCP where that is too short (RFC 1035, RFC 7766). The codec is
//! `simple-dns`. Responses come from a recursive resolver, which has followed all aliases.

use crate::base::clock::Clock;
use simple_dns::rdata::{A, AAAA, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long one server may take, and how often all are asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;

/// A response by UDP, without extensions (RFC 1035 section 4.2.1), may be larger where a server does not care.
const MAX_DATAGRAM: usize = 4096;

/// The type of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
    /// Hosts and ports of a service (RFC 2782).
    Srv,
}

/// A record of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Service { priority: u16, weight: u16, port: u16, target: String },
}

/// The records of a response; none where the name has none, or does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) records: Vec<Record>,
    /// The least time to live of its records, those of aliases included.
    pub(super) ttl: Option<Duration>,
}

/// What a message of a server is.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Response(Response),
    /// It is too long for a datagram.
    Truncated,
    /// The server cannot or does not want to respond.
    Refused,
    /// It is no response to the question.
    Other,
}

/// Asks the servers in turn until one responds.
pub(super) fn ask(servers: &[SocketAddr], name: &str, kind: Kind, clock: Clock) -> io::Result<Response> {
    let mut last = io::Error::new(ErrorKind::NotFound, "there is no server of names to ask");
    for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
        match ask_one(*server, name, kind, clock) {
            Ok(response) => return Ok(response),
            Err(error) => last = io::Error::new(error.kind(), format!("asking {server}: {error}")),
        }
    }
    Err(last)
}

fn ask_one(server: SocketAddr, name: &str, kind: Kind, clock: Clock) -> io::Result<Response> {
    let id = fastrand::u16(..);
    let question = write_question(id, name, kind)?;
    match ask_by_udp(server, &question, (id, name, kind), clock)? {
        Message::Response(response) => Ok(response),
        Message::Truncated => match ask_by_tcp(server, &question, (id, name, kind))? {
            Message::Response(response) => Ok(response),
            _ => Err(ErrorKind::InvalidData.into()),
        },
        Message::Refused | Message::Other => Err(io::Error::other("the server does not respond to the question")),
    }
}

fn ask_by_udp(server: SocketAddr, question: &[u8], asked: (u16, &str, Kind), clock: Clock) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own, drawn by the system, beside a random number: a response is hard to guess (RFC 5452).
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let deadline = clock.now() + TIMEOUT;
    let mut room = [0; MAX_DATAGRAM];
    loop {
        let left = deadline.since(clock.now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut room) {
            Ok(len) => match read_message(room.get(..len).unwrap_or_default(), asked) {
                Message::Other => {}
                message => return Ok(message),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn ask_by_tcp(server: SocketAddr, question: &[u8], asked: (u16, &str, Kind)) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let len = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes(), question].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    Ok(read_message(&message, asked))
}

fn write_question(id: u16, name: &str, kind: Kind) -> io::Result<Vec<u8>> {
    let bad = |error: simple_dns::SimpleDnsError| io::Error::new(ErrorKind::InvalidInput, error.to_string());
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(Name::new(name).map_err(bad)?, kind.qtype(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(bad)
}

/// Reads what a server has sent, as the response to this question.
fn read_message(bytes: &[u8], (id, name, kind): (u16, &str, Kind)) -> Message {
    let Ok(packet) = Packet::parse(bytes) else { return Message::Other };
    let is_of_question = |question: &Question<'_>| {
        question.qtype == kind.qtype() && question.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'))
    };
    let is_response = packet.has_flags(PacketFlag::RESPONSE) && packet.id() == id;
    if !is_response || !packet.questions.first().is_none_or(is_of_question) {
        return Message::Other;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Message::Truncated;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Message::Response(Response::default()),
        _ => return Message::Refused,
    }
    let mut response = Response::default();
    for answer in &packet.answers {
        let ttl = Duration::from_secs(answer.ttl.into());
        response.ttl = Some(response.ttl.map_or(ttl, |least| least.min(ttl)));
        response.records.extend(match (&answer.rdata, kind) {
            (RData::A(A { address }), Kind::A) => Some(Record::Address(Ipv4Addr::from_bits(*address).into())),
            (RData::AAAA(AAAA { address }), Kind::Aaaa) => Some(Record::Address(Ipv6Addr::from_bits(*address).into())),
            (RData::SRV(SRV { priority, weight, port, target }), Kind::Srv) => {
                let (priority, weight, port) = (*priority, *weight, *port);
                Some(Record::Service { priority, weight, port, target: target.to_string() })
            }
            _ => None,
        });
    }
    Message::Response(response)
}

impl Kind {
    fn qtype(self) -> QTYPE {
        match self {
            Self::A => TYPE::A.into(),
            Self::Aaaa => TYPE::AAAA.into(),
            Self::Srv => TYPE::SRV.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_response_to_the_question_is_left_aside() {
        let asked = (7, "app.test", Kind::A);
        let question = write_question(7, "app.test", Kind::A).expect("a good name");
        assert_eq!(read_message(&question, asked), Message::Other, "a question");
        let answered = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = question.clone();
            bytes[2] |= 0x80;
            change(&mut bytes);
            read_message(&bytes, asked)
        };
        let none = || Message::Response(Response::default());
        assert_eq!(answered(&|_| {}), none());
        assert_eq!(answered(&|bytes| bytes[1] = 8), Message::Other, "another number");
        assert_eq!(answered(&|bytes| bytes[13] = b'x'), Message::Other, "another name");
        assert_eq!(answered(&|bytes| bytes[13] = b'A'), none(), "the case of letters");
        assert_eq!(answered(&|bytes| bytes[2] |= 2), Message::Truncated);
        assert_eq!(answered(&|bytes| bytes[3] |= 3), none(), "no such name");
        assert_eq!(answered(&|bytes| bytes[3] |= 2), Message::Refused);
        for len in 0..question.len() {
            assert_eq!(answered(&|bytes| bytes.truncate(len)), Message::Other, "{len} bytes");
        }
    }
}
