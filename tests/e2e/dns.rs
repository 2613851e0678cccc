//! Backends whose names are asked of a server of names: services (SRV), times to live, and long responses.

use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, until};
use serde_json::json;
use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};
use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The records of a name.
#[derive(Clone)]
enum Records {
    /// Addresses, with their time to live.
    Addresses(u32, Vec<Ipv4Addr>),
    /// Priority, weight, port and host of each, with their time to live.
    Services(u32, Vec<(u16, u16, u16, String)>),
    /// The server has a problem with it.
    Failing,
}

/// A server of names.
struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Records>>>,
}

impl NameServer {
    /// One that says all it has to say by TCP alone, or at once.
    fn start(is_terse: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let socket = UdpSocket::bind(address).expect("the same port");
        let zone = Arc::<Mutex<HashMap<String, Records>>>::default();
        let (by_udp, by_tcp) = (Arc::clone(&zone), Arc::clone(&zone));
        thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((len, client)) = socket.recv_from(&mut room) {
                let response = respond(&room[..len], &by_udp, is_terse);
                socket.send_to(&response, client).expect("a datagram");
            }
        });
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut len = [0; 2];
                stream.read_exact(&mut len).expect("a length");
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut question).expect("a question");
                let response = respond(&question, &by_tcp, false);
                let len = u16::try_from(response.len()).expect("a short response");
                stream.write_all(&[&len.to_be_bytes()[..], &response].concat()).expect("a response");
            }
        });
        Self { address, zone }
    }

    fn zone(&self) -> MutexGuard<'_, HashMap<String, Records>> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, records: Records) {
        self.zone().insert(name.to_owned(), records);
    }

    /// Has a service of these backends, each on a host of its own.
    fn set_service(&self, backends: &[(u16, &Backend)]) {
        let weighed: Vec<_> = backends.iter().map(|(priority, backend)| (*priority, 0, *backend)).collect();
        self.set_weighed(&weighed);
    }

    /// The same with weights, after the priorities.
    fn set_weighed(&self, backends: &[(u16, u16, &Backend)]) {
        let service = |(place, (priority, weight, backend)): (usize, &(u16, u16, &Backend))| {
            let (host, address) = (format!("host{place}.app.test"), backend.address());
            let IpAddr::V4(ip) = address.ip() else { panic!("IPv4") };
            self.set(&host, Records::Addresses(1, vec![ip]));
            (*priority, *weight, address.port(), host)
        };
        let services = backends.iter().enumerate().map(service).collect();
        self.set("_http._tcp.app.test", Records::Services(1, services));
    }

    /// A proxy that asks it, and looks up again when records have come to their end, or in an hour.
    fn proxy(&self, url: &str) -> Proxy {
        let setup = Setup::for_backends([url.to_owned()]).set("dnsServers", json!([self.address.to_string()]));
        setup.set("dnsRefresh", 3600).workers(1).start()
    }
}

fn respond(question: &[u8], zone: &Mutex<HashMap<String, Records>>, is_truncated: bool) -> Vec<u8> {
    let packet = Packet::parse(question).expect("a question");
    let asked = packet.questions[0].clone();
    let name = asked.qname.to_string();
    let is_of = |kind: simple_dns::TYPE| asked.qtype == kind.into();
    let mut reply = Packet::new_reply(packet.id());
    reply.questions.push(asked.clone());
    let records = zone.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let mut add = |ttl, data| reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, ttl, data));
    let mut rcode = RCODE::NoError;
    match records {
        Some(Records::Addresses(ttl, addresses)) if is_of(simple_dns::TYPE::A) => {
            addresses.iter().for_each(|ip| add(ttl, RData::A(A { address: ip.to_bits() })));
        }
        Some(Records::Services(ttl, services)) if is_of(simple_dns::TYPE::SRV) => {
            for (priority, weight, port, host) in services {
                let target = Name::new(&host).expect("a name").into_owned();
                add(ttl, RData::SRV(SRV { priority, weight, port, target }));
            }
        }
        Some(Records::Failing) => rcode = RCODE::ServerFailure,
        Some(_) => {}
        None => rcode = RCODE::NameError,
    }
    *reply.rcode_mut() = rcode;
    if is_truncated {
        reply.set_flags(PacketFlag::TRUNCATION);
        reply.answers.clear();
    }
    reply.build_bytes_vec().expect("a response")
}

/// Those that serve a few requests, each on a connection of its own to its backend.
fn serving(proxy: &Proxy) -> BTreeSet<String> {
    (0..12).map(|_| proxy.client().get(HOST, "/").text()).collect()
}

#[test]
fn a_service_has_hosts_and_ports_for_as_long_as_its_records_live() {
    let [one, two, spare] = ["one", "two", "spare"].map(|name| Backend::closing(canned::ok(name)));
    let names = NameServer::start(false);
    names.set_service(&[(7, &one), (7, &two), (9, &spare)]);
    let proxy = names.proxy("http://_http._tcp.app.test");
    let expect = |set: &[&str]| {
        let expected: BTreeSet<String> = set.iter().map(|name| (*name).to_owned()).collect();
        until(&format!("{set:?} serve"), || serving(&proxy) == expected);
    };
    expect(&["one", "two"]);
    // Long before an hour is over.
    names.set_service(&[(9, &one), (1, &spare)]);
    expect(&["spare"]);
    // What is known serves on while the server has a problem, and when the service is gone.
    names.set("_http._tcp.app.test", Records::Failing);
    until("the problem is told", || proxy.stderr().contains("looking up _http._tcp.app.test of the backend"));
    assert_eq!(serving(&proxy), BTreeSet::from(["spare".to_owned()]));
    names.set_service(&[(0, &two)]);
    expect(&["two"]);
}

#[test]
fn hosts_of_a_service_have_shares_by_their_weights() {
    let [one, two, none] = ["one", "two", "none"].map(|name| Backend::closing(canned::ok(name)));
    let names = NameServer::start(false);
    names.set_weighed(&[(7, 30, &one), (7, 10, &two), (7, 0, &none)]);
    let proxy = names.proxy("http://_http._tcp.app.test");
    let shares = || {
        let served: Vec<_> = (0..40).map(|_| proxy.client().get(HOST, "/").text()).collect();
        ["one", "two", "none"].map(|name| served.iter().filter(|served| *served == name).count())
    };
    let [of_one, of_two, of_none] = shares();
    assert!((29..=31).contains(&of_one) && (9..=11).contains(&of_two) && of_none <= 1, "{of_one} {of_two} {of_none}");
    // The weights alone change.
    names.set_weighed(&[(7, 10, &one), (7, 30, &two)]);
    until("the weights are known", || {
        let [of_one, of_two, of_none] = shares();
        (9..=11).contains(&of_one) && (29..=31).contains(&of_two) && of_none == 0
    });
}

#[test]
fn a_response_that_is_too_long_for_a_datagram_comes_by_tcp() {
    let backend = Backend::always(canned::ok("found"));
    let names = NameServer::start(true);
    let IpAddr::V4(ip) = backend.address().ip() else { panic!("IPv4") };
    names.set("app.test", Records::Addresses(60, vec![ip]));
    let proxy = names.proxy(&format!("http://app.test:{}", backend.address().port()));
    proxy.client().get(HOST, "/").expect_ok("found");
    let proxy = names.proxy("http://no-such-name.app.test:80");
    assert_eq!(proxy.client().get(HOST, "/").status(), 502);
    until("it is told", || proxy.stderr().contains("there is no such name, or it has no address"));
}

/// Backends keep their connections: requests follow the name all the same.
#[test]
fn a_host_that_has_moved_gets_no_request_over_connections_that_are_kept() {
    let [old, new] = ["old", "new"].map(|name| Backend::always(canned::ok(name)));
    let names = NameServer::start(false);
    names.set_service(&[(1, &old)]);
    let proxy = names.proxy("http://_http._tcp.app.test");
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("old");
    client.get(HOST, "/").expect_ok("old");
    assert_eq!(old.connections(), 1);
    names.set_service(&[(1, &new)]);
    until("the new one serves", || client.get(HOST, "/").text() == "new");
    let served = old.heads();
    (0..20).for_each(|_| client.get(HOST, "/").expect_ok("new"));
    assert_eq!(old.heads(), served, "none goes to where the name has led");
    assert_eq!(new.connections(), 1, "a connection to an address that stays is kept");
}
